"""The exported file: what it says, what it computes, and the trackers without torch that run it."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.conftest import Call
from track.app import export
from track.formats.mot import read_sequence, read_tracks, write_detections, write_tracks
from track.structures import Detections, Tracks
from track.tracking.existence import load_existence
from track.tracking.graph_network import load_graph
from track.tracking.recurrent import load_motion, save_motion
from track.tracking.step import COLUMNS, INPUTS, OUTPUTS, TrackerStep
from track.tracking.tracker import Tracker

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/numpy_tracker.py"
WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "track"):
    sys.modules[name] = None  # importing it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the command writes by default."""
    folder = tmp_path_factory.mktemp("exported")
    command = [sys.executable, "-m", "track", "export", "output=models/tracker.onnx"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("written: models/tracker.onnx (0.")
    assert "  pairs      (pair, 2): row of the track" in done.stdout
    return folder / "models/tracker.onnx"


def crowd(frames: int, people: int, classes: int = 1, best: float = 1.0) -> list[Detections]:
    """People who walk and cross, missed or invented now and then; none in two frames. best: the largest score."""
    chance = torch.Generator().manual_seed(1)
    low = 600 * torch.rand(people, 2, generator=chance)
    boxes = torch.cat([low, low + torch.tensor([30.0, 70]) + 20 * torch.rand(people, 2, generator=chance)], 1)
    velocity, label = 3 * torch.randn(people, 2, generator=chance), torch.randint(classes, (people,), generator=chance)
    scene = []
    for t in range(frames):
        seen = torch.rand(people, generator=chance) > (1.0 if t in (0, 20) else 0.15)
        now = (boxes + t * velocity.repeat(1, 2) + 2 * torch.randn(people, 4, generator=chance))[seen]
        ghosts = now[:2] + 200
        rows = torch.cat([now, ghosts]).numpy().round(2)
        scores = (0.05 + (best - 0.05) * torch.rand(len(rows), generator=chance)).numpy().round(3)
        scene.append(Detections.from_numpy(rows, scores, torch.cat([label[seen], label[:2][: len(ghosts)]]).numpy()))
    return scene


def assert_equal_tracks(a: list[Tracks], b: list[Tracks], tolerance: float = 0.02) -> None:
    assert [frame.ids.tolist() for frame in a] == [frame.ids.tolist() for frame in b]
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=tolerance)


def run_without_torch(exported: Path, detections: Path, length: int, frame_rate: float, folder: Path) -> list[Tracks]:
    """The tracks that the example writes, in a process where importing torch or this package fails."""
    arguments = [EXAMPLE, exported, detections, folder / "tracks.txt", frame_rate]
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return read_tracks(folder / "tracks.txt", length)


def test_the_file_says_what_it_takes_and_returns(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert {one.name: tuple(one.shape) for one in session.get_inputs()} == {n: axes for n, (axes, _) in INPUTS.items()}
    assert {one.name: tuple(one.shape) for one in session.get_outputs()} == {
        n: axes for n, (axes, _) in OUTPUTS.items()
    }
    meta = session.get_modelmeta()
    assert (meta.producer_name, meta.custom_metadata_map["format"]) == ("grutrack", "1")
    assert meta.custom_metadata_map["weights"] == "gru.safetensors"
    columns = json.loads(meta.custom_metadata_map["columns"])
    assert list(columns) == list(COLUMNS) == list(json.loads(meta.custom_metadata_map["meaning"]))
    assert (columns["box"], columns["log_odds"], columns["class_logits"]) == ([0, 4], [12, 13], [317, None])
    state = json.loads(meta.custom_metadata_map["state"])
    assert (state["kalman position"], state["memory"]) == ([27, 31], [253, 317])
    assert json.loads(meta.custom_metadata_map["existence"]) == {"min_silent": 0.35, "hysteresis": 0.5}
    assert json.loads(meta.custom_metadata_map["options"])["max_age"] == 2.0
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    onnx.checker.check_model(model)
    assert {one.name: one.doc_string for one in model.graph.output} == {n: text for n, (_, text) in OUTPUTS.items()}
    assert str(ROOT).encode() not in exported.read_bytes()


def test_a_state_of_one_track_is_where_the_metadata_says(exported: Path) -> None:
    tracker = runpy.run_path(str(EXAMPLE))["Tracker"](exported)
    for t in range(3):
        tracker.update(np.float32([[10 + t, 20, 40 + t, 100]]), np.float32([0.9]), elapsed=0.5)
    state = json.loads(tracker.session.get_modelmeta().custom_metadata_map["state"])
    (row,) = tracker.rows
    np.testing.assert_allclose(row[slice(*state["boxes"])][:12], [27, 60, 30, 80, 26, 60, 30, 80, 25, 60, 30, 80])
    np.testing.assert_allclose(row[slice(*state["ages"])][:3], [0, 0.5, 1.0])
    assert [tracker.column(name)[0] for name in ("score", "seconds", "hits", "confirmed")] == pytest.approx(
        [0.9, 0, 3, 1]
    )
    assert abs(row[:4] - [12, 20, 42, 100]).max() < 1
    assert np.abs(row[slice(*state["memory"])]).max() <= 1


def test_a_made_scene_has_the_tracks_of_the_tracker(exported: Path, tmp_path: Path) -> None:
    scene = crowd(60, 25)
    write_detections(tmp_path / "det.txt", scene)
    tracker = Tracker()
    expected = [tracker.update(frame, t / 25) for t, frame in enumerate(scene)]
    given = run_without_torch(exported, tmp_path / "det.txt", len(scene), 25, tmp_path)
    assert_equal_tracks(given, expected)
    assert max(frame.ids.max().item() for frame in expected if len(frame)) > 25
    assert [len(scene[t]) for t in (0, 20)] == [0, 0]


def test_the_tracker_in_javascript_has_the_same_tracks(exported: Path, tmp_path: Path) -> None:
    """NODE_MODULES: the folder that `npm install onnxruntime-node` made."""
    modules = os.environ.get("NODE_MODULES")
    if not modules:
        pytest.skip("NODE_MODULES is not set")
    scene = crowd(60, 25)
    write_detections(tmp_path / "det.txt", scene)
    expected = run_without_torch(exported, tmp_path / "det.txt", len(scene), 25, tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    shutil.copy(EXAMPLE.with_name("tracker.mjs"), tmp_path)
    command = ["node", "tracker.mjs", str(exported), "det.txt", "javascript.txt", "25"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_equal_tracks(read_tracks(tmp_path / "javascript.txt", len(scene)), expected)


def test_the_page_names_every_input_output_and_column(exported: Path) -> None:
    page = (ROOT / "docs/export.md").read_text()
    assert [name for name in (*INPUTS, *OUTPUTS, *COLUMNS) if f"`{name}`" not in page] == []
    onnx = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    meta = onnx.get_modelmeta().custom_metadata_map
    assert [key for key in meta if f"`{key}`" not in page] == []
    for name, (start, end) in json.loads(meta["state"]).items():
        assert f"{start} to {end - 1}" in page, name


def test_classes_and_camera_motion_are_those_of_the_tracker(exported: Path) -> None:
    scene, turn = crowd(50, 25, classes=3), np.float32([[0.999, -0.01, 2], [0.01, 0.999, -1]])
    tracker = Tracker()
    other = runpy.run_path(str(EXAMPLE))["Tracker"](exported, classes=3)
    for t, frame in enumerate(scene):
        affine = turn if t % 3 else None
        expected = tracker.update(frame, 0.1 * t, None if affine is None else torch.from_numpy(affine))
        arrays = frame.boxes.numpy(), frame.scores.numpy(), frame.labels.numpy()
        ids, boxes = other.update(*arrays, elapsed=0.1, affine=affine)
        assert ids.tolist() == expected.ids.tolist()
        np.testing.assert_allclose(boxes, expected.boxes.numpy(), atol=1e-2)
        reported = other.rows[np.isin(other.ids, ids)]
        assert reported[:, other.columns["class_logits"]].argmax(1).tolist() == expected.labels.tolist()


def test_low_scores_are_lifted_as_by_the_tracker(exported: Path, tmp_path: Path) -> None:
    scene = crowd(60, 25, best=0.5)
    write_detections(tmp_path / "det.txt", scene)
    tracker = Tracker()
    expected = [tracker.update(frame, t / 30) for t, frame in enumerate(scene)]
    given = run_without_torch(exported, tmp_path / "det.txt", len(scene), 30, tmp_path)
    assert_equal_tracks(given, expected)
    assert tracker.score_level.lift > 1.7
    assert max(frame.ids.max().item() for frame in expected if len(frame)) > 15


@pytest.mark.parametrize("min_new_track", [0.1, 0.8])
def test_the_probability_to_be_reported_is_that_of_the_tracker(exported: Path, min_new_track: float) -> None:
    tracker = Tracker(min_new_track=min_new_track)
    other = runpy.run_path(str(EXAMPLE))["Tracker"](exported, min_new_track=min_new_track)
    silent = 0
    for t, frame in enumerate(crowd(40, 25)):
        expected = tracker.update(frame, t / 30)
        ids, _ = other.update(frame.boxes.numpy(), frame.scores.numpy())
        assert ids.tolist() == expected.ids.tolist()
        log_odds = tracker.existence.log_odds(tracker.memory.existence, tracker.score_level.lift)
        np.testing.assert_allclose(other.column("log_odds"), log_odds, atol=1e-3)
        silent += (other.ids == 0).sum()
    assert silent > 0


def test_weights_without_existence_have_the_tracks_of_the_tracker(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    step = TrackerStep(load_motion("crowds"), load_graph("crowds"), load_existence("crowds"))
    onnx.save(export.documented_model(step, "crowds"), tmp_path / "crowds.onnx")
    tracker = Tracker(weights="crowds")
    other = runpy.run_path(str(EXAMPLE))["Tracker"](tmp_path / "crowds.onnx")
    for t, frame in enumerate(crowd(40, 25, best=0.6)):
        expected = tracker.update(frame, t / 30)
        ids, _ = other.update(frame.boxes.numpy(), frame.scores.numpy())
        assert ids.tolist() == expected.ids.tolist()
    assert step.existence is None
    assert other.next_id > 15


def test_a_track_with_more_near_detections_than_it_may_have_keeps_the_nearest(exported: Path) -> None:
    chance = np.random.default_rng(0)
    tracker, other = Tracker(), runpy.run_path(str(EXAMPLE))["Tracker"](exported)
    for t in range(4):
        low = 100 + 12 * chance.random((150, 2)).astype(np.float32)
        boxes = np.concatenate([low, low + np.float32([40, 90])], 1)
        scores = np.full(150, 0.9, np.float32)
        expected = tracker.update(Detections.from_numpy(boxes, scores), t / 30)
        ids, _ = other.update(boxes, scores, elapsed=1 / 30)
        assert ids.tolist() == expected.ids.tolist()
    assert len(tracker.trace.matches.i) == 64 * len(tracker.trace.keys)


@pytest.mark.data
@pytest.mark.parametrize("name", ["MOT17-09", "MOT17-05"])
def test_a_real_sequence_has_the_tracks_of_the_tracker(
    name: str, exported: Path, track_data: Path, tmp_path: Path
) -> None:
    sequence = read_sequence(track_data / "MOT17/train" / name)
    tracker = Tracker()
    frames = zip(sequence.detections("det/yolox.txt"), sequence.times, strict=True)
    expected = [tracker.update(frame, time) for frame, time in frames]
    write_tracks(tmp_path / "expected.txt", expected)
    file, rate = sequence.path / "det/yolox.txt", sequence.frame_rate
    given = run_without_torch(exported, file, len(sequence), rate, tmp_path)
    assert_equal_tracks(given, read_tracks(tmp_path / "expected.txt", len(sequence)))
    assert sum(map(len, given)) > 3000


def test_what_may_not_be_written_is_refused_before_the_export(tmp_path: Path, call: Call) -> None:
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "folder").mkdir()
    save_motion(load_motion(), tmp_path / "motion.safetensors")
    shutil.copy(ROOT / "track/weights/gru.safetensors", tmp_path / "own.safetensors")
    for options, message in (
        (["output=there.onnx"], "output: there.onnx: exists; overwrite=true replaces it"),
        (["output=folder", "overwrite=true"], "output: folder: expected a file, it is a folder"),
        (["output=there.onnx/tracker.onnx"], "output: there.onnx/tracker.onnx: expected a file that can be written ("),
        (["weights=motion.safetensors"], "motion.safetensors: expected association weights, as `grutrack train` wri"),
        (["weights=none.safetensors"], "none.safetensors: expected motion weights"),
        (["weights=own.safetensors", "output=own.safetensors", "overwrite=true"], "expected another file than the we"),
    ):
        done = call("export", *options)
        assert (done.code, len(done.err.splitlines())) == (1, 1), done.err
        assert message in done.err
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_what_an_export_needs_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name.startswith("onnx") else name)
    done = call("export")
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "error: export: onnx, onnxscript, onnxruntime is missing, pip install 'onnx>=" in done.err
