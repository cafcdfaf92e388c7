"""Options as people type them: paths are quoted for Hydra's grammar, and what fits no config is refused in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig
from omegaconf.errors import OmegaConfBaseException

from track.app.console.trust import check_flags, check_targets, is_trusted
from track.checkpoint import first_line, printable
from track.evaluation.protocol import PROTOCOLS
from track.pipeline import CAMERA_MODES

COMMANDS = ("predict", "evaluate", "train", "demo", "serve", "prepare-data", "convert", "export", "benchmark")
CONFIGS = "track.conf"
PATH_OPTIONS = {  # the last part of an option whose value is taken as typed, whatever characters are in it
    *("source", "output", "output_dir", "detections", "ground_truth", "predictions", "ckpt_path", "viewer"),
    *("root", "weights", "checkpoint", "backbone", "motion"),
}
COUNTS = {  # the last part of an option that counts something, so that it is at least 1 or, where that is so, null
    *("threads", "repeats", "frames", "stride", "upload_limit", "batch_size", "episodes", "batches"),
    *("hidden", "rounds", "min_hits", "log_every_n_steps", "check_val_every_n_epoch"),
}
TRACKING = ("camera", "postprocess", "tracker", "overwrite")
UNUSED: list[tuple[str, Callable[[Any], bool], str, tuple[str, ...]]] = [
    # an option, its values that make others of no use, how that is said, and the others or their groups
    ("predictions", bool, "beside predictions=", ("source", "detections", "scores", "detector", "on_error", *TRACKING)),
    ("detections", bool, "beside detections=", ("detector",)),
    ("detections", lambda file: file is None, "without detections=", ("scores",)),
    ("output", lambda file: file is None, "without output=", ("rotate",)),
    ("metrics", lambda kind: kind == "detection", "with metrics=detection", ("evaluator", *TRACKING)),
    ("crowd", lambda counts: counts is not None, "beside crowd=", ("source", "split", "detections", "camera")),
    ("trackers", bool, "here, all are compared: see trackers.gru and others", ("tracker",)),
]
FLAGS = {  # Hydra's
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r"),
    *("--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn", "--config-dir"),
    *("-cd", "--experimental-rerun", "--info", "-i"),
}
CHOICES: dict[str, tuple[str, ...]] = {  # of options with a word of a few as their value
    "camera": CAMERA_MODES,
    "postprocess": ("none", "interpolate", "smooth"),
    "on_error": ("stop", "skip"),
    "metrics": ("tracking", "detection"),
    "evaluator": ("trackeval", "motmetrics"),
    "protocol": PROTOCOLS,
}
FREE_OPTIONS = ("trainer.devices",)  # a number or a word, auto
MULTIRUN = "-m", "--multirun"
SWEEP = re.compile(r"[^=]*=\s*(choice|range|interval|glob|sort|shuffle|tag)\(")
OPTION = re.compile(r"(?P<key>\+{0,2}[\w.@/]+)=(?P<value>.*)", re.DOTALL)


def check_options(config: str, options: Sequence[str]) -> None:
    """Raise ValueError, in one line, for overrides that do not fit the config, which Hydra would refuse in many."""
    if GlobalHydra.instance().is_initialized():
        return
    overrides = [option for option in options if "=" in option and not option.startswith("-")]
    _check_words(options)
    check_flags(options)
    if any(option in MULTIRUN for option in options):
        _check_sweep(overrides)
        overrides = [one for one in map(_first_of_sweep, overrides) if one]
    groups = [one for one in overrides if "." not in one.split("=")[0] and _is_group(one.split("=")[0])]
    try:
        with initialize_config_module(CONFIGS, version_base=None):
            defaults = compose(config, groups)
            chosen = compose(config, overrides)
            if any("hydra" in one for one in overrides) and not is_trusted(options):
                check_targets(compose(config, overrides, return_hydra_config=True).hydra, "hydra")
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_misused_option(config, groups, error)) from error
    unknown = set(map(str, chosen)) - set(map(str, defaults))
    if unknown:  # one that was added, +key=value
        raise ValueError(_unknown_option(min(unknown), defaults))
    _check_values(defaults, chosen)
    _note_unused(overrides, chosen)


def check_choices(cfg: DictConfig) -> None:
    """Raise ValueError for an option of a run's config that is none of its choices."""
    for key, choices in CHOICES.items():
        if key in cfg and cfg[key] not in choices:
            raise ValueError(f"{key}: expected one of {', '.join(choices)}, got {cfg[key]}")


def quote_paths(options: Sequence[str]) -> list[str]:
    """The options with the values of paths quoted for Hydra's grammar, in which a name may hold no `=`, `(` or space.

    Lists, `[a,b]`, are quoted item by item; null, what is quoted already, interpolations and, with `-m`, sweeps that
    are no file's name are left as they are.
    """
    sweeps = any(option in MULTIRUN for option in options)
    return [_quote_option(option, sweeps) for option in options]


def _check_words(options: Sequence[str]) -> None:
    """Raise ValueError for a word that is neither `key=value` nor one of Hydra's flags or the value of one."""
    for before, option, after in zip(["", *options], options, [*options[1:], ""], strict=False):
        flag, _, value = option.partition("=")
        is_value = before.startswith("-") and before not in MULTIRUN
        if flag.startswith("-") and flag not in FLAGS and not is_value:
            key = flag.lstrip("-").replace("-", "_")
            given = value or (after if after and "=" not in after and not after.startswith("-") else "VALUE")
            raise ValueError(f"{printable(flag)}: expected {printable(key)}={printable(given)}; see --help")
        if "=" not in option and not option.startswith(("-", "~")) and not is_value:
            shown = printable(option)
            raise ValueError(f"{shown}: expected key=value, such as source={shown}; see --help")


def _note_unused(overrides: Sequence[str], chosen: DictConfig) -> None:
    """Say which of the given options have no effect."""
    keys = [override.lstrip("+").partition("=")[0] for override in overrides]
    for option, is_cause, reason, others in UNUSED:
        unused = [key for key in keys if key.split(".")[0] in others]
        if unused and option in chosen and is_cause(chosen[option]):
            print(f"note: {', '.join(unused)} {'have' if len(unused) > 1 else 'has'} no effect {reason}")
            keys = [key for key in keys if key not in unused]


def _check_sweep(overrides: Sequence[str]) -> None:
    """Raise ValueError for an output that every run of a sweep would write to."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("output", "output_dir") and "${" not in value:
            raise ValueError(f"{key}: expected none with -m, every run would write there: give hydra.sweep.dir=DIR")


def _first_of_sweep(override: str) -> str:
    """An override with the first value of its list; none for a function of Hydra's; unchanged one of Hydra's own
    settings, which are for the whole sweep."""
    if "hydra" in override.partition("=")[0]:
        return override
    return "" if SWEEP.match(override) else re.sub(r"^([^=]*=[^'\"\[{(,]+),.*", r"\1", override, flags=re.DOTALL)


def _misused_option(config: str, groups: list[str], error: BaseException) -> str:
    """One line for an override that Hydra does not accept."""
    if isinstance(error, OverrideParseException):
        reason = first_line(error)
        return f"{printable(error.override)}: expected key=value as Hydra's grammar has it ({reason})"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}: expected one of {', '.join(error.options or [])}, got {name}"
    cause = error.__cause__ or error
    lines = [line for line in f"{error}\n{cause}".splitlines() if line.strip()]
    unknown = re.search(r"Key '([^']*)' is not in struct", "\n".join(lines))
    if not unknown:
        return printable(lines[0])
    full = next((m[1] for line in lines if (m := re.search(r"full_key: (\S+)", line))), unknown[1])
    with initialize_config_module(CONFIGS, version_base=None):
        return _unknown_option(full, compose(config, groups))


def _unknown_option(key: str, known: DictConfig) -> str:
    nearest = ", ".join(difflib.get_close_matches(key, list(_flat_keys(known)), 3, 0.5))
    return f"{printable(key)}: no such option" + (f", nearest: {nearest}" if nearest else "") + "; see --help"


def _check_values(defaults: DictConfig, chosen: DictConfig, prefix: str = "") -> None:
    """Raise ValueError for a value that is not of its default's type, or a count below 1."""
    for key in map(str, defaults):
        default, value = defaults._get_node(key), chosen._get_node(key)
        name = f"{prefix}{key}"
        if isinstance(default, DictConfig) and isinstance(value, DictConfig):
            _check_values(default, value, f"{name}.")
        elif not isinstance(default, Container) and not isinstance(value, Container) and name not in FREE_OPTIONS:
            expected = None if default is None else default._value()
            given = None if value is None else value._value()
            if isinstance(given, str) and given.startswith("${"):
                continue
            if given is None and (expected is None or prefix == "trainer."):  # where null is Lightning's own default
                continue
            if given != expected:
                _check_type(name, expected, given)
            if key in COUNTS:
                _check_type(name, 1, given)
                if float(str(given)) < 1:
                    raise ValueError(f"{name}: expected at least 1, got {given}")


def _check_type(name: str, expected: object, given: object) -> None:
    """Raise ValueError if `expected` is a number, or true or false, and `given` is none."""
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if isinstance(expected, bool):
        if not isinstance(given, bool):
            raise ValueError(f"{name}: expected true or false, got {given}")
    elif isinstance(expected, int) and not (is_number and float(str(given)).is_integer()):
        raise ValueError(f"{name}: expected a whole number, got {given}")
    elif isinstance(expected, float) and not is_number:
        raise ValueError(f"{name}: expected a number, got {given}")


def _is_group(key: str) -> bool:
    return (files(CONFIGS) / key).is_dir()


def _flat_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted name of every option in a config."""
    for key in map(str, node):
        yield f"{prefix}{key}"
        value = node._get_node(key)
        if isinstance(value, DictConfig):
            yield from _flat_keys(value, f"{prefix}{key}.")


def _quote_option(option: str, sweeps: bool) -> str:
    match = OPTION.fullmatch(option)
    if match is None or match["key"].lstrip("+").rsplit(".", 1)[-1] not in PATH_OPTIONS:
        return option
    return f"{match['key']}={_quote(match['value'], sweeps)}"


def _quote(value: str, sweeps: bool) -> str:
    if (
        value in ("", "null", "???")
        or "${" in value
        or (value[0] == value[-1] and value[0] in "'\"" and len(value) > 1)
    ):
        return value
    if not _exists(value):
        if value.startswith("[") and value.endswith("]"):
            items = re.findall(r"'(?:\\.|[^'])*'|\"(?:\\.|[^\"])*\"|[^,]+", value[1:-1])
            return f"[{','.join(_quote(item.strip(), sweeps) for item in items)}]"
        if sweeps and ("," in value or re.fullmatch(r"\w+\(.*\)", value)):
            return value
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{trailing * chr(92)}'"


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):
        return False
