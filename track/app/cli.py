"""The command line: commands by name, help from the configs' comments, one line for a user's mistake."""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from track import __version__
from track.media.capture import silence_opencv

COMMANDS = ("predict", "evaluate", "train", "demo", "serve", "prepare-data", "convert", "benchmark")
CONFIGS = "track.conf"
PATH_OPTIONS = {  # the last part of an option whose value is taken as typed, whatever characters are in it
    *("source", "output", "output_dir", "detections", "ground_truth", "predictions", "ckpt_path", "viewer"),
    *("root", "weights", "checkpoint", "backbone", "motion"),
}
MULTIRUN = "-m", "--multirun"
SWEEP = re.compile(r"=(choice|range|interval|glob|sort|shuffle)\(")
OPTION = re.compile(r"(?P<key>\+{0,2}[\w.@/]+)=(?P<value>.*)", re.DOTALL)
YAML_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:# (?P<comment>.*))?")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `grutrack COMMAND key=value ...`; returns or exits with the code of the process."""
    command, *options = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(overview())
    elif command == "--version":
        print(f"grutrack {__version__}")
    elif command not in COMMANDS:
        nearest = difflib.get_close_matches(command, COMMANDS, 1, 0)[0]
        print(f"error: {command}: no such command, nearest: {nearest}; see grutrack --help", file=sys.stderr)
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
    check_options(module, quoted)
    flags = [one for one in quoted if one in MULTIRUN]  # Hydra takes no flag between options
    sys.argv = [f"grutrack {command}", *flags, *(one for one in quoted if one not in MULTIRUN)]
    try:
        application = import_module(f"track.app.{module}").main
    except ValueError as error:  # an extra that is missing
        _refuse(reason_of(error))
    application()


def command(config: str) -> Callable[[Callable[[DictConfig], None]], Callable[..., None]]:
    """Make a function of a config the Hydra application of that config's name."""

    def decorate(function: Callable[[DictConfig], None]) -> Callable[..., None]:
        application = hydra.main(version_base=None, config_path=f"pkg://{CONFIGS}", config_name=config)
        return application(refuse_in_one_line(function))

    return decorate


def refuse_in_one_line(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Save the config with the results; user errors are one line on stderr and exit code 1, Ctrl-C 130."""

    @functools.wraps(function)
    def wrapper(cfg: DictConfig) -> None:
        try:
            try:
                function(cfg)
            finally:
                _save_config(cfg)
        except (ValueError, OSError, OmegaConfBaseException, InstantiationException) as error:
            _refuse(reason_of(error))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapper


def instantiate(node: Any, **options: Any) -> Any:
    """Instantiate a config node; Hydra's exception becomes a one-line ValueError."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **options)
    except InstantiationException as error:
        raise ValueError(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """One line that says what was wrong."""
    if isinstance(error, InstantiationException):
        error = error.__cause__ or error
    line = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, MissingMandatoryValue):
        return f"{line.rsplit(' ', 1)[-1]}: expected a value, see --help"
    return line


def check_options(config: str, options: Sequence[str]) -> None:
    """Refuse overrides that do not fit the config before Hydra does so in many lines."""
    if GlobalHydra.instance().is_initialized():
        return
    overrides = [one for one in options if "=" in one and not one.startswith("-")]
    if any(one in MULTIRUN for one in options):
        overrides = [re.sub(r"=([^'\"\[{(,]+),.*", r"=\1", one) for one in overrides if not SWEEP.search(one)]
    try:
        with initialize_config_module(CONFIGS, version_base=None):
            chosen = compose(config, overrides)
            groups = [one for one in overrides if "." not in one.split("=")[0] and _is_group(one.split("=")[0])]
            defaults = compose(config, groups)
        _check_types(defaults, chosen)
    except ValueError as error:
        _refuse(reason_of(error))
    except (HydraException, OmegaConfBaseException) as error:
        _refuse(_misused_option(config, error))


def quote_paths(options: Sequence[str]) -> list[str]:
    """The options with the values of paths quoted for Hydra's grammar, in which a name may hold no `=`, `(` or space.

    Lists, `[a,b]`, are quoted item by item; null, what is quoted already, interpolations and, with `-m`, sweeps that
    are no file's name are left as they are.
    """
    sweeps = any(one in MULTIRUN for one in options)
    return [_quote_option(one, sweeps) for one in options]


def overview() -> str:
    """What `grutrack --help` prints."""
    rows = "\n".join(f"  {one:14}{_introduction(one)[0]}" for one in COMMANDS)
    return (
        "Multi-object tracking with a GRU motion model and a graph network.\n\n"
        f"usage: grutrack COMMAND key=value ...\n\n{rows}\n\ngrutrack COMMAND --help lists every option."
    )


def help_text(command: str) -> str:
    """What `grutrack COMMAND --help` prints: a sentence, examples, and every option with its comment."""
    sentence, *examples = _introduction(command)
    parts = [sentence, "\n".join(["examples:", *(f"  {one}" for one in examples)])]
    parts.append("\n".join(["options:", *_option_lines(command.replace("-", "_"))]))
    if command == "train":
        for task in ("motion", "association", "detector"):
            parts.append("\n".join([f"with task={task}:", *_option_lines(f"task/{task}")]))
    elif command not in ("prepare-data", "convert"):
        trackers = "\n".join(f"  tracker={one:12}{_introduction(f'tracker/{one}')[0]}" for one in _trackers())
        parts.append(f"trackers:\n{trackers}\n" + "\n".join(_option_lines("tracker/gru", "tracker.")))
    parts.append("-m sweeps over comma-separated values; each run leaves its config.yaml beside its results.")
    text = "\n\n".join(parts)
    return text.replace("{detectors}", _detectors()).replace("{datasets}", _datasets())


def _refuse(line: str) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


def _misused_option(config: str, error: BaseException) -> str:
    """One line for an override that Hydra does not accept."""
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0]
        return f"{error.override}: expected key=value as Hydra's grammar has it ({reason})"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}: expected one of {', '.join(error.options or [])}, got {name}"
    cause = error.__cause__ or error
    lines = [line for line in f"{error}\n{cause}".splitlines() if line.strip()]
    unknown = re.search(r"Key '([^']*)' is not in struct", "\n".join(lines))
    if not unknown:
        return lines[0]
    with initialize_config_module(CONFIGS, version_base=None):
        known = list(_flat_keys(compose(config)))
    full = next((m[1] for line in lines if (m := re.search(r"full_key: (\S+)", line))), unknown[1])
    nearest = ", ".join(difflib.get_close_matches(full, known, 3, 0.5))
    return f"{full}: no such option" + (f", nearest: {nearest}" if nearest else "") + "; see --help"


def _is_group(key: str) -> bool:
    return (files(CONFIGS) / key).is_dir()


def _check_types(defaults: DictConfig, chosen: DictConfig, prefix: str = "") -> None:
    """Raise ValueError for an option whose default is a number, and which is none."""
    for key in map(str, defaults):
        default, value = defaults._get_node(key), chosen._get_node(key)
        if isinstance(default, DictConfig) and isinstance(value, DictConfig):
            if key != "trainer":  # Lightning takes words too, devices=auto
                _check_types(default, value, f"{prefix}{key}.")
        elif not isinstance(default, Container) and not isinstance(value, Container):
            expected = None if default is None else default._value()
            given = None if value is None else value._value()
            is_number = isinstance(given, int | float) and not isinstance(given, bool)
            is_whole = isinstance(given, int | float) and is_number and float(given).is_integer()
            if isinstance(expected, bool) and not isinstance(given, bool):
                raise ValueError(f"{prefix}{key}: expected true or false, got {given}")
            if isinstance(expected, int) and not isinstance(expected, bool) and not is_whole:
                raise ValueError(f"{prefix}{key}: expected a whole number, got {given}")
            if isinstance(expected, float) and not is_number:
                raise ValueError(f"{prefix}{key}: expected a number, got {given}")


def _save_config(cfg: DictConfig) -> None:
    with suppress(OmegaConfBaseException, OSError):  # which the command itself reported
        folder = Path(str(cfg.output_dir))
        if folder.is_dir():
            OmegaConf.save(cfg, folder / "config.yaml", resolve=True)


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


def _introduction(command: str) -> list[str]:
    """The comment lines at the top of a command's config: a sentence, then examples."""
    lines = (line for line in _yaml(command.replace("-", "_")).splitlines() if not line.startswith("# @"))
    introduction = []
    for line in lines:
        if not line.startswith("# "):
            break
        introduction.append(line.removeprefix("# "))
    return introduction


def _option_lines(config: str, prefix: str = "") -> list[str]:
    """`key=value` and the comment of every option, aligned."""
    rows = [(f"{prefix}{name}={value}", comment) for name, value, comment in _options(config)]
    return [f"  {left:36} {comment}".rstrip() for left, comment in rows]


def _options(config: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and comment of every option of a config and of those that it builds on, the nearest first."""
    seen: set[str] = set()
    for name in _inherited(config):
        stack: list[tuple[int, str]] = []
        for line in _yaml(name).splitlines():
            match = YAML_LINE.fullmatch(line)
            if match is None or match["key"] == "_target_":
                continue
            depth = len(match["indent"])
            stack = [*(one for one in stack if one[0] < depth), (depth, match["key"])]
            full = ".".join(key for _, key in stack)
            value = match["value"].strip()
            if full.split(".")[0] in ("defaults", "hydra") or full in seen or (not value and not match["comment"]):
                continue
            seen.add(full)
            yield full, value, match["comment"] or ""


def _inherited(config: str) -> Iterator[str]:
    """A config and, in turn, those of its own folder that its defaults name."""
    yield config
    for parent in re.findall(r"^  - (\w+)$", _yaml(config), re.MULTILINE):
        if parent != "_self_":
            yield from _inherited(str(Path(config).with_name(parent)))


def _yaml(config: str) -> str:
    return (files(CONFIGS) / f"{config}.yaml").read_text(encoding="utf-8")


def _trackers() -> list[str]:
    return sorted(one.name.removesuffix(".yaml") for one in (files(CONFIGS) / "tracker").iterdir())


def _detectors() -> str:
    from track.detection.detector import available_detectors

    return ", ".join(available_detectors())


def _datasets() -> str:
    from track.datasets.download import DATASETS

    return ", ".join(DATASETS)
