"""One clear line and exit code 1 for a user's mistake, in every script."""

import functools
import sys
from collections.abc import Callable

from hydra.errors import InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException


def refusing(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Turn a refusal (ValueError, a missing option) into one line on stderr and exit code 1; Ctrl-C into 130."""

    @functools.wraps(main)
    def run(cfg: DictConfig) -> None:
        try:
            main(cfg)
        except InstantiationException as error:
            if not isinstance(error.__cause__, ValueError | OmegaConfBaseException):
                raise
            _refuse(error.__cause__)
        except (ValueError, OmegaConfBaseException) as error:
            _refuse(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run


def _refuse(error: BaseException) -> None:
    print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
    sys.exit(1)
