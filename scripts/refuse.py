"""What every script does: its config beside its results, one clear line and exit code 1 for a user's mistake."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def refusing(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Turn a refusal (a wrong value, file or option) into one line on stderr and exit code 1, and Ctrl-C into 130."""

    @functools.wraps(main)
    def run(cfg: DictConfig) -> None:
        try:
            main(cfg)
            folder = Path(str(cfg.output_dir))
            if folder.is_dir():
                OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
        except InstantiationException as error:
            _refuse(error.__cause__ or error)
        except (ValueError, OSError, OmegaConfBaseException) as error:
            _refuse(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run


def _refuse(error: BaseException) -> None:
    print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
    sys.exit(1)
