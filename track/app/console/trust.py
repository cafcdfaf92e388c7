"""Which code a config may name, unless it is trusted: classes and functions of this program that configs are for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from inspect import isclass, isfunction
from typing import Any

from omegaconf import Container, DictConfig
from omegaconf.errors import OmegaConfBaseException

from track.checkpoint import printable

TRUSTED = ("track.tracking.", "track.detection.", "track.training.")  # their classes may be made, functions passed
GET_FUNCTION = "hydra.utils.get_method"  # of `path`, which is not called
LIBRARIES = {  # what the package's own configs name besides
    "lightning.Trainer",
    *(f"lightning.pytorch.loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger")),
    *(f"lightning.pytorch.callbacks.{name}" for name in ("ModelCheckpoint", "RichProgressBar")),
}
HYDRA = {  # what Hydra makes itself, each by its whole name: a prefix would let through what a module has imported
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    *(f"logging.{name}" for name in ("StreamHandler", "FileHandler", "NullHandler", "Formatter", "Filter")),
    "colorlog.ColoredFormatter",
    *("ext://sys.stdout", "ext://sys.stderr"),
}
EXTERNAL = "ext://"  # Python's logging replaces such a value by what it names
FACTORIES = ("_target_", "()", "class")  # keys of what is called: Hydra's, and those of Python's logging
FOREIGN_CONFIGS = ("--co", "--e", "-cd", "-cp", "-cn")  # Hydra's flags that read other configs or a pickle
HIDING = ("hydra.searchpath", "hydra.sweeper")  # their values are read as configs or overrides after the check
FOLDERS = ("hydra.sweep.", "hydra.run.")  # which may interpolate what changes in a sweep
MAX_DEPTH = 50
TRUST = "trust_config=true"


def check_flags(options: Sequence[str]) -> None:
    """Raise ValueError for an option that reads configs of other origin, unless one says that they are trusted."""
    for option in options:
        key, _, value = option.lstrip("+").partition("=")
        is_foreign = option.startswith(FOREIGN_CONFIGS) or key == "hydra" or key.startswith(HIDING)
        is_foreign |= key.startswith("hydra") and "${" in value and not key.startswith(FOLDERS)
        if is_foreign and not is_trusted(options):
            raise ValueError(f"{printable(option)}: a config can run any code; {TRUST} permits it")


def is_trusted(options: Sequence[str]) -> bool:
    """Whether the options themselves say so; a config cannot."""
    return any(option.lstrip("+").lower() == TRUST for option in options)


def check_targets(cfg: DictConfig, name: str = "") -> None:
    """Raise ValueError for the first class or function in a config that is not allowed; `name` is that of the node."""
    for key, value, siblings in _factories(cfg, name, MAX_DEPTH):
        target = str(value)
        if target == GET_FUNCTION and "_args_" not in siblings:
            key = key.removesuffix("_target_") + "path"
            target = str(siblings.get("path"))
            allowed = isfunction(_own(target))
        else:
            allowed = isclass(_own(target)) or target in LIBRARIES
        if not allowed and not (name == "hydra" and target in HYDRA):
            raise ValueError(
                f"{printable(key)}: expected a part of grutrack, not {printable(target)}; {TRUST} permits it"
            )


def _factories(node: Any, name: str, depth: int) -> Iterator[tuple[str, Any, Any]]:
    """Of every value that is called: its key, itself, and the node that it lies in. Interpolations are resolved."""
    if not depth:
        raise ValueError(f"{printable(name)}: expected a config of at most {MAX_DEPTH} levels")
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        full = f"{name}.{key!s}" if name else str(key)
        try:
            value = node[key]
        except OmegaConfBaseException:  # without a value, as yet
            continue
        if key in FACTORIES or (full.startswith("hydra.") and str(value).startswith(EXTERNAL)):
            yield full, value, node
        if isinstance(value, Container) and not value._is_none() and not value._is_missing():
            yield from _factories(value, full, depth - 1)


def _own(target: str) -> Any:
    """The class or function of that name if one of the `TRUSTED` packages defines it; None otherwise."""
    module_name, _, name = target.rpartition(".")
    if not target.startswith(TRUSTED):
        return None
    try:
        found = getattr(import_module(module_name), name, None)
    except ImportError:
        return None
    return found if getattr(found, "__module__", None) == module_name else None
