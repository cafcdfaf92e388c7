"""The command line itself: every config composes, help needs no argument, and options are taken as typed."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

import track
from tests.conftest import Call
from track.app.console.options import COMMANDS, CONFIGS, quote_paths
from track.app.console.trust import check_targets
from track.detection.detector import available_detectors
from track.tracking.motion import Kalman


class Still(Kalman):
    """A user's own motion model."""


CONF = Path(__file__).parents[2] / "conf"
VARIANTS = [
    *(("train", [f"task={task}"]) for task in ("motion", "association", "existence", "detector")),
    *((command, [f"tracker={name}"]) for command in ("predict", "evaluate", "demo", "serve")
      for name in ("gru", "gru_byte", "bytetrack")),
    *((name, []) for name in ("pipeline", "view", "prepare_data", "benchmark", "ablation", "convert", "export")),
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
    assert len(targets) > 0 or config in ("prepare_data", "ablation", "convert", "export")
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stride", "2"], "--stride: expected stride=2; see --help"),
        (["--stride=2"], "--stride: expected stride=2; see --help"),
        (["--on-error", "skip"], "--on-error: expected on_error=skip; see --help"),
        (["-o", "source=x"], "-o: expected o=VALUE; see --help"),
    ],
)
def test_an_option_with_dashes_is_shown_without_them(words: list[str], message: str, call: Call) -> None:
    done = call("predict", "source=x", *words)
    assert (done.code, done.err) == (1, f"error: {message}\n")


@pytest.mark.parametrize(
    ("command", "options", "note"),
    [
        (
            "benchmark",
            ["tracker=bytetrack"],
            "tracker has no effect here, all are compared: see trackers.gru and others",
        ),
        (
            "benchmark",
            ["tracker.min_hits=3"],
            "tracker.min_hits has no effect here, all are compared: see trackers.gru",
        ),
        (
            "evaluate",
            ["metrics=detection", "tracker=gru", "camera=none"],
            "tracker, camera have no effect with metrics=d",
        ),
        ("predict", ["scores=percent"], "scores has no effect without detections="),
        ("evaluate", ["scores=percent", "predictions=out"], "scores has no effect beside predictions="),
    ],
)
def test_options_without_an_effect_are_named_once(command: str, options: list[str], note: str, call: Call) -> None:
    key = "ground_truth" if command == "evaluate" else "source"
    done = call(command, f"{key}=absent", *options)
    assert done.code == 1  # there is no such source
    notes = [line for line in done.out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith(f"note: {note}")


def test_no_file_that_users_read_names_an_extra_of_a_package_on_no_index() -> None:
    root = CONF.parent
    files = [*root.glob("*.md"), *root.glob("docs/*.md"), *CONF.rglob("*.yaml"), *root.glob("track/**/*.py")]
    assert [file.name for file in files if "grutrack[" in file.read_text()] == []


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


HOSTILE = "hydra.job_logging.formatters.x."


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("tracker._target_=os.system", "tracker._target_"),
        ("+tracker.motion._target_=os.system", "tracker.motion._target_"),
        ("+tracker.x={_target_: builtins.eval, _args_: ['open(chr(104), chr(119))']}", "tracker.x._target_"),
        ("+tracker.x={_target_: torch.load, f: a.pt, weights_only: false}", "tracker.x._target_"),
        ("+tracker.x={_target_: os.system, _partial_: true}", "tracker.x._target_"),
        ("+tracker.x=[1, [{_target_: os.system, command: 'touch hacked'}]]", "tracker.x.1.0._target_"),
        ("+tracker.x={_target_: hydra.utils.get_method, path: os.system}", "tracker.x.path"),
        ("+tracker.x={_target_: hydra.utils.get_method, path: track.checkpoint.os.system}", "tracker.x.path"),
        ("+tracker.x={_target_: hydra.utils.get_method, _args_: [os.system]}", "tracker.x._target_"),
        ("+tracker.x={_target_: hydra.utils.instantiate, config: {}}", "tracker.x._target_"),
        ("+tracker.x={_target_: track.tracking.tracker.torch.load, f: a.pt}", "tracker.x._target_"),
        ("+tracker.x={_target_: track.app.console.cli.instantiate}", "tracker.x._target_"),
        ("+tracker.x={_target_: track.checkpoint.atomic_write, path: a}", "tracker.x._target_"),
        ("tracker._target_=${oc.decode:os.system}", "tracker._target_"),
        ("+hydra.callbacks.x={_target_: os.system, command: 'touch hacked'}", "hydra.callbacks.x._target_"),
        ("hydra.job_logging.handlers.console.class=os.system", "hydra.job_logging.handlers.console.class"),
        (r"+hydra.job_logging.formatters.x={\(\):logging.os.system,command:'touch hacked'}", HOSTILE + "()"),
        (
            r"+hydra.job_logging.formatters.x={\(\):hydra._internal.core_plugins.bash_completion.os.system,command:id}",
            HOSTILE + "()",
        ),
        (r"+hydra.job_logging.formatters.x={\(\):logging.config.fileConfig,fname:a}", HOSTILE + "()"),
        ("+hydra.job_logging.formatters.x={class:logging.Formatter,.:{a:'ext://os.system'}}", HOSTILE + "..a"),
        ("+hydra.job_logging.formatters.x=${tracker}", "+" + HOSTILE[:-1] + "=${tracker}"),
        ("hydra.sweeper.params={+hydra.x:1}", "hydra.sweeper.params={+hydra.x:1}"),
        ("hydra={searchpath:[file:///tmp]}", "hydra={searchpath:[file:///tmp]}"),
        ("--config-dir=.", "--config-dir=."),
        ("--experimental-rerun=a.pickle", "--experimental-rerun=a.pickle"),
        ("hydra.searchpath=[file:///tmp]", "hydra.searchpath=[file:///tmp]"),
    ],
)
def test_a_config_names_code_of_this_program_only(option: str, key: str, tmp_path: Path, call: Call) -> None:
    done = call("predict", "source=absent", "detections=x.txt", "output_dir=out", option)
    assert done.code == 1
    assert done.err.startswith(f"error: {key}: "), done.err
    assert done.err.endswith("; trust_config=true permits it\n")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{_target_:os.system,command:'touch hacked',note:'=choice('}", "hydra.callbacks.x._target_: expected a part"),
        ("choice({_target_:os.system,command:'touch hacked'},1)", ""),
        ("null,{_target_:os.system,command:'touch hacked'}", ""),
    ],
)
def test_nothing_in_hydras_settings_is_unchecked_in_a_sweep(
    value: str, reason: str, tmp_path: Path, call: Call
) -> None:
    done = call("predict", "-m", "source=absent", "detections=x.txt", f"+hydra.callbacks.x={value}")
    assert done.code == 1
    assert done.err.startswith(f"error: {reason}"), done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "multirun").exists()


def test_code_is_found_behind_interpolations_and_in_the_settings_of_logging() -> None:
    made = OmegaConf.create({"a": "${oc.create:${b}}", "b": "{_target_: os.system}"})
    with pytest.raises(ValueError, match=r"^a\._target_: expected a part of grutrack, not os\.system; trust_config=tr"):
        check_targets(made)
    with pytest.raises(ValueError, match=r"^hydra\.x\.\(\): expected a part of grutrack, not os\.system"):
        check_targets(OmegaConf.create({"x": {"()": "os.system"}}), "hydra")
    check_targets(OmegaConf.create({"x": {"class": "logging.StreamHandler"}}), "hydra")
    deep = functools.reduce(lambda inner, _: {"a": inner}, range(60), {"_target_": "os.system"})
    with pytest.raises(ValueError, match="expected a config of at most 50 levels"):
        check_targets(OmegaConf.create(deep))


def test_a_trusted_config_names_any_code(streets: Path, call: Call) -> None:
    options = f"source={streets}", "sequences=[street-04-00]", "detections=det/det.txt", "output_dir=out"
    foreign = "+tracker.motion._target_=tests.app.test_cli.Still"
    assert "expected a part of grutrack, not tests.app.test_cli.Still" in call("predict", *options, foreign).err
    for trusted in ([foreign, "trust_config=true"], ["+tracker.motion._target_=track.tracking.motion.Kalman"]):
        done = call("predict", *options, *trusted, "tracker=gru_byte", "overwrite=true")
        assert done.code == 0, done.err


@pytest.mark.parametrize(("config", "options"), VARIANTS)
def test_the_configs_of_the_package_need_no_trust(config: str, options: list[str]) -> None:
    check_targets(composed(config, *options))
