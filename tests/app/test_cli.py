"""The command line itself: every config composes, help needs no argument, and options are taken as typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

import track
from tests.conftest import Call
from track.app.console.options import COMMANDS, CONFIGS, quote_paths
from track.detection.detector import available_detectors

CONF = Path(__file__).parents[2] / "conf"
VARIANTS = [
    *(("train", [f"task={task}"]) for task in ("motion", "association", "existence", "detector")),
    *((command, [f"tracker={name}"]) for command in ("predict", "evaluate", "demo", "serve")
      for name in ("gru", "gru_byte", "bytetrack")),
    *((name, []) for name in ("pipeline", "view", "prepare_data", "benchmark", "ablation", "convert")),
    ("train", ["trainer=tensorboard"]),
]  # fmt: skip


def composed(config: str, *options: str) -> DictConfig:
    with initialize_config_module(CONFIGS, version_base=None):
        return compose(config, list(options))


@pytest.mark.parametrize(("config", "options"), VARIANTS)
def test_every_config_composes_and_names_things_that_exist(config: str, options: list[str]) -> None:
    from hydra.utils import get_object

    text = OmegaConf.to_yaml(composed(config, *options))
    targets = re.findall(r"(?:_target_|path): ([a-z]\w*\.[\w.]+)", text)
    assert len(targets) > 0 or config in ("prepare_data", "ablation", "convert")
    for target in targets:
        assert callable(get_object(target))


def test_every_file_of_the_configs_is_composed_by_a_test() -> None:
    named = {config for config, _ in VARIANTS} | {one.split("=")[1] for _, options in VARIANTS for one in options}
    assert {file.stem for file in CONF.rglob("*.yaml")} == named | {"default"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_argument_and_shows_a_sentence_an_example_and_every_option(command: str, call: Call) -> None:
    done = call(command, "--help")
    assert (done.code, done.err) == (0, "")
    first, *rest = done.out.splitlines()
    assert re.fullmatch(r"[A-Z].*[.)]\.?", first)
    assert any(line.startswith(f"  grutrack {command} ") for line in rest)
    shown = {match[1] for line in rest if (match := re.match(r"  ([\w.]+)=", line))}
    config = composed(command.replace("-", "_"))
    assert {
        key for key in config if key not in ("tracker", "trackers", "detector", "data", "model", "trainer")
    } <= shown
    assert "_target_" not in done.out


def test_help_lists_the_values_that_the_code_knows(call: Call) -> None:
    text = call("predict", "--help").out
    assert all(name in text for name in available_detectors())
    assert all(f"tracker={name}" in text for name in ("gru", "gru_byte", "bytetrack"))
    assert "mot17, mot20, dancetrack, sportsmot, pennfudan" in call("prepare-data", "--help").out


def test_the_overview_lists_every_command_and_unknown_ones_are_refused(call: Call) -> None:
    assert all(f"  {command} " in call("--help").out for command in COMMANDS)
    assert call().out == call("--help").out
    assert call("--version").out == f"grutrack {track.__version__}\n"
    refused = call("predit", "source=x")
    assert (refused.code, refused.err) == (1, "error: predit: no such command, nearest: predict; see grutrack --help\n")
    assert "xyz: no such command, expected one of predict, evaluate, " in call("xyz").err


@pytest.mark.parametrize(
    "value",
    [
        "video (1).mp4", "clip [x].mp4", "a=b.mp4", "a,b.mp4", "walk#2.mp4", "rtsp://camera/?channel=1&subtype=0",
        "epoch=1-step=6.ckpt", "it's.mp4", 'say "hi".mp4', "back\\slash", "ends with \\", "two \\' three", "{a: b}",
        " spaces ", "0", "~/film.mp4", "$HOME", "100%.mp4", "straße 日本.mp4", "null.mp4", "a:b", "'", "@x", "x!",
    ],
)  # fmt: skip
def test_a_path_reaches_the_config_as_typed(value: str) -> None:
    for key in ("source", "output_dir", "+detections"):
        (quoted,) = quote_paths([f"{key}={value}"])
        assert OverridesParser.create().parse_override(quoted).value() == value
    assert composed("predict", *quote_paths([f"source={value}"])).source == value


def test_lists_are_quoted_item_by_item() -> None:
    (quoted,) = quote_paths(["output=[out (1).mp4, a=b.csv,plain.txt]"])
    assert list(composed("demo", quoted).output) == ["out (1).mp4", "a=b.csv", "plain.txt"]


def test_a_file_whose_name_looks_like_a_list_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[a,b].mp4").touch()
    (tmp_path / "[c]").mkdir()
    for name in ("[a,b].mp4", "[c]"):
        assert composed("predict", *quote_paths([f"source={name}"])).source == name


def test_what_is_quoted_null_interpolated_or_swept_is_left_alone() -> None:
    options = ["source='a b'", "detections=null", "output_dir=${source}", "stride=3", "tracker=gru", "-m"]
    assert quote_paths(options) == options
    assert quote_paths(["-m", "source=a,b"]) == ["-m", "source=a,b"]
    assert quote_paths(["-m", "source=choice(a,b)"]) == ["-m", "source=choice(a,b)"]
    assert quote_paths(["source=a,b"]) == ["source='a,b'"]


def test_importing_the_package_changes_no_global_state() -> None:
    import os
    import subprocess
    import sys

    program = (
        "import os, cv2, logging, warnings; before = dict(os.environ), cv2.utils.logging.getLogLevel()\n"
        "import track\n"
        "assert (dict(os.environ), cv2.utils.logging.getLogLevel()) == before"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    done = subprocess.run([sys.executable, "-c", program], env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_sweep_runs_once_for_each_value(streets: Path, tmp_path: Path, call: Call) -> None:
    options = f"source={streets}", "detections=det/det.txt", "tracker=bytetrack,gru_byte", "camera=none"
    done = call("predict", *options, "-m", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.err
    assert sorted(file.parent.name for file in (tmp_path / "sweep").rglob("street-04-00.txt")) == ["0", "1"]
