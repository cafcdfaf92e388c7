"""The step that is exported: its dense tables find what the tracker's neighbour search finds."""

import numpy as np
import pytest
import torch

from track.tracking.association import FrameDetections, TrackPredictions
from track.tracking.graph_features import find_neighbours
from track.tracking.graph_features import graph_inputs as sparse_inputs
from track.tracking.graph_network import MessagePassing
from track.tracking.recurrent import load_motion
from track.tracking.step import INPUTS, OUTPUTS, StepInputs, StepOutputs, TrackerStep, graph_inputs


def random_boxes(chance: torch.Generator, count: int, side: float) -> torch.Tensor:
    low = side * torch.rand(count, 2, generator=chance)
    return torch.cat([low, low + 10 + 60 * torch.rand(count, 2, generator=chance)], 1)


def untrained_step() -> TrackerStep:
    motion = load_motion()
    return TrackerStep(motion, MessagePassing(motion.feature_size)).eval().requires_grad_(False)


def inputs_of(step: TrackerStep, tracks: torch.Tensor, detections: torch.Tensor, classes: int = 2) -> StepInputs:
    """A second frame with these detections, after a first one with those of `tracks`."""
    one, labels = torch.ones(1), torch.arange(10_000) % classes
    nothing = torch.zeros(0, sum(step.widths) + classes)
    scores = torch.linspace(0.2, 0.9, 10_000)
    first = StepInputs(nothing, 0 * one, torch.eye(2, 3), tracks, scores[: len(tracks)], labels[: len(tracks)], one)
    rows = step(*first).initiated
    count = len(detections)
    return StepInputs(rows, one / 30, torch.eye(2, 3), detections, scores[:count], labels[1 : count + 1], 2 * one)


@pytest.mark.parametrize(("count", "side"), [(1, 9.0), (40, 300.0), (150, 500.0), (150, 10.0)])
def test_dense_tables_find_the_neighbours_of_the_tracker(count: int, side: float) -> None:
    """The last case has more near detections than a track may be paired with."""
    step, chance = untrained_step(), torch.Generator().manual_seed(count)
    given = inputs_of(step, random_boxes(chance, count, side), random_boxes(chance, count + 5, side))
    outputs = step(*given)
    rows = step._rows(outputs.predicted)
    tracks = TrackPredictions(
        boxes=rows.box.numpy(),
        sigma=rows.sigma.numpy(),
        state=rows.state.numpy(),
        class_logits=rows.class_logits.numpy(),
        scores=rows.score[:, 0].numpy(),
        hits=rows.hits[:, 0].numpy(),
        time_since_update=rows.seconds[:, 0].numpy(),
        confirmed=rows.confirmed[:, 0].numpy() > 0,
        matched_last_frame=np.ones(count, bool),
    )
    detections = FrameDetections(given.boxes.numpy(), given.scores.numpy(), given.labels.numpy())
    expected = sparse_inputs(tracks, detections, find_neighbours(tracks, detections))
    frame = graph_inputs(rows, given.boxes, given.scores, given.labels, given.elapsed)
    for name, array in frame._asdict().items():
        np.testing.assert_allclose(array.numpy(), getattr(expected, name), rtol=1e-5, atol=1e-5, err_msg=name)
    assert np.bincount(expected.i).max() == 64 or side > 10 or count == 1


def test_the_dummy_changes_nothing_for_the_others() -> None:
    step, chance = untrained_step(), torch.Generator().manual_seed(0)
    given = inputs_of(step, random_boxes(chance, 20, 200), random_boxes(chance, 25, 200))
    outputs = step(*given)
    rows = step._rows(outputs.predicted)
    affinity, new_track, *_ = step.score(*graph_inputs(rows, given.boxes, given.scores, given.labels, given.elapsed))
    torch.testing.assert_close(outputs.new_track, new_track)
    torch.testing.assert_close(outputs.affinity, affinity[affinity > 0])
    assert outputs.updated.isfinite().all()
    assert outputs.initiated.isfinite().all()


@pytest.mark.parametrize(("tracks", "detections"), [(0, 0), (0, 3), (2, 0), (1, 1)])
def test_frames_without_tracks_or_detections_have_empty_outputs(tracks: int, detections: int) -> None:
    step = untrained_step()
    outputs = step(
        *inputs_of(step, 100 * torch.eye(4)[:tracks] + 1, torch.tensor([[1.0, 1, 9, 9]]).repeat(detections, 1))
    )
    assert tuple(map(len, outputs)) == (tracks, *[len(outputs.pairs)] * 3, detections, detections)
    assert outputs.predicted.shape[1] == outputs.updated.shape[1] == outputs.initiated.shape[1] == 304


def test_tables_and_fields_have_the_same_names() -> None:
    assert (tuple(INPUTS), tuple(OUTPUTS)) == (StepInputs._fields, StepOutputs._fields)
