"""grutrack train: weights that predict uses, resuming, and refusals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from tests.conftest import Call
from tests.evaluation.test_plots import LINE_COLOURS, pixels_of
from track.evaluation.plots import plot_reliability
from track.tracking.graph_network import load_graph, save_network
from track.tracking.recurrent import load_motion, save_motion
from track.tracking.tracker import Tracker
from track.training.association import PROBABILITIES, AssociationModule
from track.training.detector import DetectorModule
from track.training.motion import MotionModule


def test_training_motion_writes_weights_that_predict_uses(streets: Path, tmp_path: Path, call: Call) -> None:
    done = call(
        "train", "task=motion", f"data.root={streets}", "data.held_out=[street-04-01]", "data.detections=det/det.txt",
        "trainer.max_epochs=2", "trainer.limit_train_batches=2", "data.batch_size=4", "output_dir=run",
        "model.learning_rate=0",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "weights: run/motion.safetensors" in done.out
    epochs_of = {
        name: torch.load(tmp_path / f"run/{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")
    }
    assert epochs_of == {"best": 0, "last": 1}
    assert "val/mota" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    before = (tmp_path / "run" / "metrics.csv").read_text()
    weights = "tracker.weights=run/motion.safetensors"
    tracked = call("predict", f"source={streets}", "detections=det/det.txt", weights, "output_dir=out")
    assert tracked.code == 0, tracked.err
    resumed = call(
        "train", "task=motion", f"data.root={streets}", "data.held_out=[street-04-01]", "data.detections=det/det.txt",
        "trainer.max_epochs=3", "trainer.limit_train_batches=2", "data.batch_size=4", "output_dir=run",
        "ckpt_path=last",
    )  # fmt: skip
    assert resumed.code == 0, resumed.err
    epochs = [line.split(",")[0] for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == sorted(epochs)
    assert set(epochs) == {"0", "1", "2"}
    assert epochs.count("1") == before.count("\n1,")
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_with_the_weights_so_far(
    streets: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    options = f"data.root={streets}", "data.detections=det/det.txt", "data.batch_size=4", "output_dir=run"
    command = [sys.executable, "-m", "track", "train", "task=motion", *options, "trainer.max_epochs=1000"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    began = time.monotonic()
    while not (tmp_path / "run/best.ckpt").exists():
        assert running.poll() is None, running.stderr.read()  # type: ignore[union-attr]
        assert time.monotonic() - began < 120
        time.sleep(0.1)
    running.send_signal(number)
    told, complaint = running.communicate(timeout=60)
    assert running.returncode == code
    assert complaint.decode().splitlines()[-1] in ("interrupted", "terminated")
    assert "weights: run/motion.safetensors" in told.decode()
    assert load_motion(tmp_path / "run/motion.safetensors").options["cell"] == "gru"


def interrupted(step: Callable[..., Tensor], epoch: int) -> Callable[..., Tensor]:
    """A training step during whose second batch of an epoch Ctrl-C is pressed."""

    def training_step(module: Any, batch: Any, index: int) -> Tensor:
        if (module.current_epoch, index) == (epoch, 1):
            raise KeyboardInterrupt
        return step(module, batch, index)

    return training_step


@pytest.mark.parametrize(
    ("task", "module", "options"),
    [
        ("motion", MotionModule, ["data.detections=det/det.txt", "model.dropout=0.2"]),
        ("motion", MotionModule, ["data.detections=det/det.txt", "trainer.check_val_every_n_epoch=3"]),
        ("association", AssociationModule, ["data.episodes=2", "data.batches=3", "model.hidden=8"]),
        ("detector", DetectorModule, ["model.name=small_fcos", "model.weights=null", "data.stride=4"]),
    ],
)
def test_a_training_that_is_resumed_twice_is_bit_equal_to_the_uninterrupted_one(
    task: str,
    module: Any,
    options: list[str],
    streets: Path,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = [f"task={task}", f"data.root={streets}", "data.batch_size=4", *options]
    shared += ["trainer.max_epochs=3", "trainer.log_every_n_steps=1"]
    whole = call("train", *shared, "output_dir=whole")
    assert whole.code == 0, whole.err
    for epoch, resumed in ((1, []), (2, ["ckpt_path=last"])):
        with monkeypatch.context() as patch:
            patch.setattr(module, "training_step", interrupted(module.training_step, epoch))
            assert call("train", *shared, *resumed, "output_dir=parts").code == 130
    last = call("train", *shared, "ckpt_path=last", "output_dir=parts")
    assert last.code == 0, last.err
    for name in ("best", "last"):
        expected, got = (torch.load(tmp_path / run / f"{name}.ckpt")["state_dict"] for run in ("whole", "parts"))
        assert [key for key in expected if not torch.equal(expected[key], got[key])] == []
    expected, got = (pd.read_csv(tmp_path / run / "metrics.csv") for run in ("whole", "parts"))
    pd.testing.assert_frame_equal(expected, got, check_exact=True)
    assert expected["val/loss" if task == "motion" else "train/loss"].notna().any()


def test_two_processes_train_and_one_exports(streets: Path, tmp_path: Path, call: Call) -> None:
    options = "data.detections=det/det.txt", "data.batch_size=4", "data.held_out=[street-04-01]", "output_dir=run"
    short = "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.log_every_n_steps=1"
    done = call("train", "task=motion", f"data.root={streets}", *options, *short, "trainer.devices=2")
    assert done.code == 0, done.err
    assert done.out.count("weights: run/motion.safetensors") == 1
    best = torch.load(tmp_path / "run/best.ckpt", weights_only=True)["state_dict"]
    exported = load_motion(tmp_path / "run/motion.safetensors").state_dict()
    assert exported
    assert all(torch.equal(best[f"network.{name}"], value) for name, value in exported.items())
    assert pd.read_csv(tmp_path / "run/metrics.csv")["val/loss"].count() == 1


def test_training_association_writes_weights_that_predict_uses(streets: Path, tmp_path: Path, call: Call) -> None:
    small = ["data.episodes=2", "data.batches=3", "data.batch_size=4", "trainer.max_epochs=2", "model.hidden=8"]
    done = call(
        "train", "task=association", f"data.root={streets}", "data.held_out=[street-04-01]",
        "data.detections=[det/det.txt]", *small, "output_dir=run",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "weights: run/gru.safetensors" in done.out
    plot_reliability(dict.fromkeys(PROBABILITIES, pd.DataFrame(columns=["confidence", "observed"])), Path("empty.png"))
    for colour in LINE_COLOURS[:2]:  # of the matches' probabilities
        drawn, legend = (len(pixels_of(tmp_path / file, colour)) for file in ("run/reliability.png", "empty.png"))
        assert drawn > 2 * legend > 0
    figures = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert "val/hota" in figures[0]
    weights = "tracker.weights=run/gru.safetensors"
    tracked = call("predict", f"source={streets}", "detections=det/det.txt", weights, "output_dir=out")
    assert tracked.code == 0, tracked.err
    again = call(
        "train", "task=association", f"data.root={streets}", "data.held_out=[]", "monitor=null",
        "model.checkpoint=run/gru.safetensors", *small, "output_dir=again",
    )  # fmt: skip
    assert again.code == 0, again.err
    assert "weights: again/gru.safetensors" in again.out
    existence = call(
        "train", "task=existence", f"data.root={streets}", "data.detections=[det/det.txt]", "data.episodes=1",
        "data.held_out=[street-04-01]", "model.weights=run/gru.safetensors", "output_dir=existence",
    )  # fmt: skip
    assert existence.code == 0, existence.err
    assert "weights: existence/gru.safetensors" in existence.out
    assert Tracker(weights=tmp_path / "run/gru.safetensors").existence is None
    assert Tracker(weights=tmp_path / "existence/gru.safetensors").existence is not None


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (["task=motion", "model.checkpoint=./motion.safetensors"], "motion.safetensors"),
        (["task=existence", "model.weights=gru.safetensors"], "gru.safetensors"),
        (["task=association", "model.checkpoint=gru.safetensors"], "gru.safetensors"),
        (["task=association", "model.motion=gru.safetensors"], "gru.safetensors"),
    ],
)
def test_weights_that_a_training_starts_from_are_not_replaced(
    call: Call, streets: Path, tmp_path: Path, options: list[str], file: str
) -> None:
    save_motion(load_motion(), tmp_path / "motion.safetensors")
    save_network(load_motion(), load_graph(), tmp_path / "gru.safetensors")
    before = (tmp_path / file).read_bytes()
    done = call("train", f"data.root={streets}", "data.detections=[det/det.txt]", "output_dir=.", *options)
    assert done.code == 1
    assert done.err == f"error: output: {file}: expected a file that is neither an input nor another output\n"
    assert (tmp_path / file).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task=motion"], "data.root: expected a value, see --help"),
        (["data.root=.", "ckpt_path=absent.ckpt"], "absent.ckpt: expected a checkpoint as grutrack train writes it"),
        (["data.root=.", "ckpt_path=epoch=1-step=6.ckpt"], "epoch=1-step=6.ckpt: expected a checkpoint as grutrack tr"),
        (["data.root=.", "trainer.accelerator=nonsense"], "nonsense"),
        (["task=nonsense"], "task: expected one of association, detector, existence, motion, got nonsense"),
        (["data.root=.", "trainer.max_epochs=abc"], "trainer.max_epochs: expected a whole number, got abc"),
        (["data.root=.", "data.batch_size=0"], "data.batch_size: expected at least 1, got 0"),
        (
            ["task=association", "data.root=.", "trainer.devices=2"],
            "trainer.devices: expected at most 1 with this task",
        ),
        (["data.root=.", "trainer.devices=2"], ".: no sequences below it"),
        (["data.rot=."], "data.rot: no such option, nearest: data.root"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_1(call: Call, options: list[str], message: str) -> None:
    done = call("train", *options)
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert message in done.err
