"""The command line: commands by name, and one line for a user's mistake."""

from __future__ import annotations

import difflib
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from track import __version__
from track.app.console.help import help_text, overview
from track.app.console.options import COMMANDS, CONFIGS, MULTIRUN, check_choices, check_options, quote_paths
from track.app.console.trust import check_targets
from track.checkpoint import atomic_write, first_line, printable
from track.media.capture import is_url, silence_opencv, source_name

CONFIG_FILE = "config.yaml"  # in the folder of results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `grutrack COMMAND key=value ...`; returns or exits with the code of the process."""
    command, *options = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(overview())
    elif command in ("--version", "version"):
        print(f"grutrack {__version__}")
    elif command not in COMMANDS:
        nearest = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"nearest: {nearest[0]}" if nearest else f"expected one of {', '.join(COMMANDS)}"
        print(f"error: {printable(command)}: no such command, {hint}; see grutrack --help", file=sys.stderr)
        return 1
    elif "--help" in options or "-h" in options:
        print(help_text(command))
    else:
        run(command, options)
    return 0


def run(command: str, options: Sequence[str]) -> None:
    """Run a command with Hydra's overrides and flags. Exits with code 1, in one line, where they cannot be used."""
    silence_opencv()
    module = command.replace("-", "_")
    quoted = quote_paths(options)
    flags = [option for option in quoted if option in MULTIRUN]  # Hydra takes no flag between options
    sys.argv = [f"grutrack {command}", *flags, *(option for option in quoted if option not in MULTIRUN)]
    try:
        check_options(module, quoted)
        application = import_module(f"track.app.{module}").main
    except ValueError as error:  # a mistake, or an extra that is missing
        _refuse(reason_of(error))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them in many lines
    try:
        application()
    except (OSError, HydraException) as error:  # Hydra's own, such as a folder that it cannot make
        _refuse(reason_of(error))


def command(config: str) -> Callable[[Callable[[DictConfig], None]], Callable[..., None]]:
    """Make a function of a config the Hydra application of that config's name."""

    def decorate(function: Callable[[DictConfig], None]) -> Callable[..., None]:
        application = hydra.main(version_base=None, config_path=f"pkg://{CONFIGS}", config_name=config)
        return application(refuse_in_one_line(function))

    return decorate


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which services and batch systems end a process; everything that Ctrl-C closes is closed."""


def refuse_in_one_line(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Save the config beside complete results; another end is one line on stderr and an exit code.

    The code is 1 for a user's mistake, 130 for Ctrl-C and 143 for SIGTERM.
    """

    @functools.wraps(function)
    def wrapper(cfg: DictConfig) -> None:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            check_choices(cfg)
            if not cfg.get("trust_config"):
                check_targets(cfg)
            function(cfg)
            _save_config(cfg)
        except (ValueError, OSError, OmegaConfBaseException, InstantiationException) as error:
            _refuse(reason_of(error))
        except KeyboardInterrupt as interrupt:
            is_terminated = isinstance(interrupt, Terminated)
            print("terminated" if is_terminated else "interrupted", file=sys.stderr)
            sys.exit(128 + (signal.SIGTERM if is_terminated else signal.SIGINT))

    return wrapper


def instantiate(node: Any, **options: Any) -> Any:
    """Instantiate a config node; Hydra's exception becomes a one-line ValueError."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **options)
    except InstantiationException as error:
        raise ValueError(reason_of(error)) from error


def saved_config(folder: Path) -> DictConfig:
    """The config by which the results in a folder were made; empty if it is absent or unreadable."""
    with suppress(OmegaConfBaseException, OSError, ValueError, YAMLError):
        config = OmegaConf.load(folder / CONFIG_FILE)
        if isinstance(config, DictConfig):
            return config
    return OmegaConf.create()


def reason_of(error: BaseException) -> str:
    """One line that says what was wrong."""
    if isinstance(error, InstantiationException):
        error = error.__cause__ or error
    line = first_line(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{line.rsplit(' ', 1)[-1]}: expected a value, see --help"
    return line


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


def _refuse(line: str) -> NoReturn:
    print(f"error: {printable(line)}", file=sys.stderr)
    sys.exit(1)


def _save_config(cfg: DictConfig) -> None:
    """Write a run's config into its output_dir, unless a file of that name there is none of ours."""
    with suppress(OmegaConfBaseException):
        file = Path(str(cfg.output_dir)) / CONFIG_FILE
        if file.parent.resolve() == Path(str(cfg.get("predictions"))).resolve():
            return  # the results' own config says how they were made
        if file.parent.is_dir() and ("output_dir" in saved_config(file.parent) or not file.exists()):
            for key in [key for key in cfg if not OmegaConf.is_missing(cfg, key) and is_url(str(cfg[key]))]:
                cfg[key] = source_name(cfg[key])  # without its password
            with atomic_write(file) as temporary:
                OmegaConf.save(cfg, temporary, resolve=True)
