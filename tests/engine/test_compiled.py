"""Compiled modules: the packaged graphs compute what torch computes, and torch steps in where there is none."""

import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from track.engine import compiled
from track.engine.compiled import GRAPHS, Compiled, graph_name, make_graph
from track.structures import Detections, Tracks
from track.tracking.association import ByteAssociation, FrameDetections, TrackPredictions
from track.tracking.graph_features import OF_DETECTIONS, OF_PAIRS, find_neighbours, graph_inputs
from track.tracking.graph_network import GraphAssociation, MessagePassing, Score
from track.tracking.motion import Advance, Initiate, Kalman, Observe
from track.tracking.recurrent import RecurrentMotion, load_motion, save_motion
from track.tracking.tracker import Tracker

SCRIPT = Path(__file__).parents[2] / "scripts/export_graphs.py"
MODULES = runpy.run_path(str(SCRIPT))["packaged_modules"]()


def random_boxes(chance: torch.Generator, count: int) -> Tensor:
    low = 300 * torch.rand(count, 2, generator=chance)
    return torch.cat([low, low + 10 + 80 * torch.rand(count, 2, generator=chance)], 1)


def random_inputs(module: nn.Module, chance: torch.Generator, count: int) -> tuple[np.ndarray, ...]:
    """Inputs of a step of some tracks, or of the network for them and as many detections."""
    motion = module.features.motion if isinstance(module, Score) else module.motion
    boxes, scores = random_boxes(chance, count), torch.rand(count, generator=chance)
    state = motion.initiate(boxes, scores)
    for _ in range(5):
        state = motion.predict(state, scores)
        boxes = boxes + 5 * torch.randn(count, 4, generator=chance)
        state = motion.update(state, boxes, scores)
    if isinstance(module, Score):
        tracks = TrackPredictions(
            boxes=boxes.numpy(),
            sigma=10 * torch.rand(count, 4, generator=chance).numpy(),
            state=state.numpy(),
            class_logits=torch.rand(count, 3, generator=chance).numpy(),
            scores=scores.numpy(),
            hits=np.arange(count),
            time_since_update=scores.numpy(),
            confirmed=scores.numpy() > 0.3,
            matched_last_frame=scores.numpy() > 0.6,
        )
        rows = random_boxes(chance, count).numpy(), scores.numpy(), torch.randint(3, (count,), generator=chance).numpy()
        detections = FrameDetections(*rows)
        return graph_inputs(tracks, detections, find_neighbours(tracks, detections))
    affine = torch.eye(2, 3) + 0.01 * torch.randn(count, 2, 3, generator=chance)
    named = {"boxes": boxes, "scores": scores, "state": state, "elapsed": scores, "affine": affine}
    names = module.forward.__code__.co_varnames[1 : module.forward.__code__.co_argcount]
    return tuple(named[name].numpy() for name in names)


def test_the_packaged_graphs_are_those_of_the_packaged_modules() -> None:
    assert {file.name for file in GRAPHS.iterdir()} == {graph_name(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=graph_name)
def test_a_graph_computes_what_torch_computes(module: nn.Module) -> None:
    function, chance = Compiled(module), torch.Generator().manual_seed(0)
    assert function.session is not None
    for count in (1, 2, 7, 60, 300):
        inputs = random_inputs(module, chance, count)
        for a, b in zip(function(*inputs), function._in_torch(inputs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert len(function(*inputs, outputs=1)) == 1


def crowd(frames: int) -> list[Detections]:
    """People who walk, and are missed or invented now and then."""
    chance = torch.Generator().manual_seed(0)
    boxes, velocity = random_boxes(chance, 40), 3 * torch.randn(40, 2, generator=chance)
    scene = []
    for t in range(frames):
        seen = torch.rand(40, generator=chance) > 0.1
        now = boxes + t * velocity.repeat(1, 2) + torch.randn(40, 4, generator=chance)
        rows = torch.cat([now[seen], random_boxes(chance, 2)])
        scene.append(Detections.from_numpy(rows, 0.3 + 0.7 * torch.rand(len(rows), generator=chance)))
    return scene


def track(tracker: Tracker, scene: list[Detections]) -> list[Tracks]:
    turn = torch.tensor([[0.999, -0.01, 2], [0.01, 0.999, -1]])
    return [tracker.update(frame, t / 30, turn if t % 3 else None) for t, frame in enumerate(scene)]


@pytest.mark.parametrize("make", [Tracker, lambda: Tracker(Kalman(), ByteAssociation())], ids=["gru", "bytetrack"])
def test_tracks_are_the_same_without_onnxruntime(make: type[Tracker], monkeypatch: pytest.MonkeyPatch) -> None:
    scene = crowd(40)
    expected = track(make(), scene)
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="onnxruntime is missing: pip install onnxruntime"):
        tracker = make()
    for a, b in zip(expected, track(tracker, scene), strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        torch.testing.assert_close(a.boxes, b.boxes, rtol=1e-4, atol=1e-2)
    assert max(expected[-1].ids.tolist()) >= 30


def test_another_architecture_is_exported_once_with_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    motion = RecurrentMotion(hidden=8).requires_grad_(False).eval()
    module = Advance(motion)
    assert Compiled(module).session is None
    make_graph(module)
    (file,) = tmp_path.rglob("*.onnx")
    made = file.stat().st_mtime_ns
    make_graph(module)
    assert file.stat().st_mtime_ns == made
    for seed in (0, 1):
        torch.manual_seed(seed)
        nn.init.normal_(motion.head[-1].weight)
        function = Compiled(module)
        assert function.session is not None
        inputs = random_inputs(module, torch.Generator().manual_seed(seed), 5)
        for a, b in zip(function(*inputs), function._in_torch(inputs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_without_an_exporter_torch_runs_another_architecture_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = save_motion(RecurrentMotion(hidden=8), tmp_path / "small.safetensors")
    monkeypatch.setattr(compiled, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.warns(UserWarning, match="another architecture.*: pip install onnx onnxscript"):
        tracker = Tracker(weights=file)
    assert tracker.update(Detections.from_numpy([[0, 0, 20, 40]]), 0.0).ids.tolist() == [1]


def test_a_damaged_graph_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Initiate(Kalman())
    monkeypatch.setattr(compiled, "GRAPHS", tmp_path)
    (tmp_path / graph_name(module)).write_bytes(b"no graph")
    with pytest.warns(UserWarning, match="torch tracks instead of ONNX Runtime, which says: "):
        assert Compiled(module).session is None


class Still(nn.Module):
    """A motion model of a user's own."""

    def initiate(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        return state

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        return self.initiate(boxes, scores)

    def apply_camera_motion(self, state: Tensor, affine: Tensor) -> Tensor:
        return state

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return state, torch.ones_like(state)


def test_a_motion_model_of_the_users_own_runs_in_torch() -> None:
    tracker = Tracker(Still(), ByteAssociation())
    assert tracker._functions.advance.session is None
    for frame in [[[0, 0, 20, 40]], [[1, 0, 21, 40]]]:
        tracks = tracker.update(Detections.from_numpy(frame))
    assert (tracks.ids.tolist(), tracks.boxes.tolist()) == ([1], [[1, 0, 21, 40]])


def test_a_compiled_module_can_be_sent_to_another_process() -> None:
    association = GraphAssociation(load_motion(), MessagePassing(load_motion().feature_size).requires_grad_(False))
    copy = pickle.loads(pickle.dumps(association))
    assert copy.score.session is not None
    inputs = random_inputs(association.score.module, torch.Generator().manual_seed(0), 9)
    for a, b in zip(association.score(*inputs), copy.score(*inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_observing_in_parts_equals_observing_at_once() -> None:
    function, chance = Compiled(Observe(load_motion())), torch.Generator().manual_seed(0)
    inputs = random_inputs(function.module, chance, 30)
    whole, first = function(*inputs), function(*(column[:7] for column in inputs))
    for a, b in zip(whole, first, strict=True):
        np.testing.assert_allclose(a[:7], b, rtol=1e-5, atol=1e-5)
    assert OF_PAIRS.isdisjoint(OF_DETECTIONS)
