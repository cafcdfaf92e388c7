"""Help: a sentence, examples and every option of a command, read from its config's comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from track.app.console.options import COMMANDS, CONFIGS
from track.datasets.download import DATASETS
from track.detection.detector import available_detectors

YAML_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:# (?P<comment>.*))?")


def overview() -> str:
    """What `grutrack --help` prints."""
    rows = "\n".join(f"  {command:14}{_introduction(command)[0]}" for command in COMMANDS)
    return (
        "Multi-object tracking with a GRU motion model and a graph network.\n\n"
        f"usage: grutrack COMMAND key=value ...\n\n{rows}\n\ngrutrack COMMAND --help lists every option."
    )


def help_text(command: str) -> str:
    """What `grutrack COMMAND --help` prints: a sentence, examples, and every option with its comment."""
    sentence, *examples = _introduction(command)
    parts = [sentence, "\n".join(["examples:", *(f"  {example}" for example in examples)])]
    parts.append("\n".join(["options:", *_option_lines(command.replace("-", "_"))]))
    if command == "train":
        for task in ("motion", "association", "existence", "detector"):
            parts.append("\n".join([f"with task={task}:", *_option_lines(f"task/{task}")]))
    elif command not in ("prepare-data", "convert", "export", "benchmark"):
        trackers = "\n".join(f"  tracker={name:12}{_introduction(f'tracker/{name}')[0]}" for name in _trackers())
        parts.append(f"trackers:\n{trackers}\n" + "\n".join(_option_lines("tracker/gru", "tracker.")))
    what = "Results go" if command in ("predict", "evaluate", "train", "demo") else "The run's config.yaml goes"
    parts.append(
        f"{what} to output_dir, by default outputs/{command.replace('-', '_')}/DATE.\n"
        "-m sweeps over comma-separated values, and its results go to multirun/, or to hydra.sweep.dir=DIR."
    )
    text = "\n\n".join(parts)
    return text.replace("{detectors}", ", ".join(available_detectors())).replace("{datasets}", ", ".join(DATASETS))


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
            stack = [*(parent for parent in stack if parent[0] < depth), (depth, match["key"])]
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
    return sorted(file.name.removesuffix(".yaml") for file in (files(CONFIGS) / "tracker").iterdir())
