"""The step that is exported: its dense tables find what the tracker's neighbour search finds."""

import numpy as np
import pytest
import torch

from track.tracking import existence
from track.tracking.association import FrameDetections, TrackPredictions
from track.tracking.graph_features import find_neighbours
from track.tracking.graph_features import graph_inputs as sparse_inputs
from track.tracking.graph_network import MessagePassing
from track.tracking.recurrent import load_motion
from track.tracking.step import INPUTS, OUTPUTS, StepInputs, StepOutputs, TrackerStep, TrackRows, graph_inputs


def random_boxes(chance: torch.Generator, count: int, side: float) -> torch.Tensor:
    low = side * torch.rand(count, 2, generator=chance)
    return torch.cat([low, low + 10 + 60 * torch.rand(count, 2, generator=chance)], 1)


def untrained_step() -> TrackerStep:
    motion = load_motion()
    return TrackerStep(motion, MessagePassing(motion.feature_size)).eval().requires_grad_(False)


def existing_step() -> TrackerStep:
    """With an existence model of random weights."""
    torch.manual_seed(0)
    motion = load_motion()
    step = TrackerStep(motion, MessagePassing(motion.feature_size), existence.Existence())
    return step.eval().requires_grad_(False)


def inputs_of(step: TrackerStep, tracks: torch.Tensor, detections: torch.Tensor, classes: int = 2) -> StepInputs:
    """A second frame with these detections, after a first one with those of `tracks`."""
    one, labels = torch.ones(1), torch.arange(10_000) % classes
    nothing = torch.zeros(0, sum(step.widths) + classes)
    scores = torch.linspace(0.2, 0.9, 10_000)
    first = StepInputs(
        nothing, 0 * one, torch.eye(2, 3), tracks, scores[: len(tracks)], labels[: len(tracks)], one, torch.zeros(3)
    )
    rows, level = step(*first).initiated, step(*first).next_level
    count = len(detections)
    return StepInputs(
        rows, one / 30, torch.eye(2, 3), detections, scores[:count], labels[1 : count + 1], 2 * one, level
    )


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
    assert tuple(map(len, outputs)) == (tracks, *[len(outputs.pairs)] * 3, detections, detections, 3)
    assert outputs.predicted.shape[1] == outputs.updated.shape[1] == outputs.initiated.shape[1] == 319


def test_existence_is_weighed_as_by_numpy() -> None:
    step, chance = existing_step(), torch.Generator().manual_seed(0)
    count, lift, model = 12, torch.tensor([1.6]), step.existence
    rows = step(*inputs_of(step, random_boxes(chance, count, 200), random_boxes(chance, count, 200))).initiated
    tracks = step._rows(rows)._replace(existence=torch.zeros(count, existence.MEMORY_SIZE))
    memory = existence.initiate(count)
    for t in range(15):
        evidence = torch.randn(count, len(existence.EVIDENCE), generator=chance)
        seen = torch.rand(count, generator=chance) > 0.3 if t else torch.ones(count, dtype=torch.bool)
        memory = existence.update(memory, np.flatnonzero(seen), evidence.numpy()[seen])
        missed, matched = step._weigh(tracks, lift), step._weigh(tracks, lift, evidence)
        pairs = zip(matched, missed, strict=True)
        tracks = TrackRows(*(one.where(seen[:, None], other) for one, other in pairs))
        np.testing.assert_allclose(tracks.existence.numpy(), memory, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(tracks.log_odds[:, 0].numpy(), model.log_odds(memory, 1.6), rtol=1e-4, atol=1e-5)
    assert len(set(memory[:, 1].tolist())) > 3


@pytest.mark.parametrize("best", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("frame_rate", [10, 14, 24, 30, 60])
def test_scores_are_lifted_as_by_numpy(best: float, frame_rate: int) -> None:
    step, level, chance = existing_step(), torch.zeros(3), torch.Generator().manual_seed(0)
    expected, untrained = existence.ScoreLevel(), untrained_step()
    one, nothing = torch.ones(1), torch.zeros(0, sum(step.widths) + 1)
    lifts = []
    for t in range(40):
        elapsed = t / frame_rate - (t - 1) / frame_rate if t else 0.0
        scores = best * torch.rand(0 if t % 7 == 3 else 4, generator=chance)
        given = StepInputs(
            nothing, elapsed * one, torch.eye(2, 3), torch.zeros(len(scores), 4), scores, one, one, level
        )
        expected.update(scores.numpy(), elapsed)
        assert untrained._level(given)[1].item() == 1
        level, lift = step._level(given)
        assert lift.item() == pytest.approx(expected.lift, rel=1e-5)
        lifts.append(expected.lift)
    assert lifts[0] == 1 < lifts[-1]


def test_tables_and_fields_have_the_same_names() -> None:
    assert (tuple(INPUTS), tuple(OUTPUTS)) == (StepInputs._fields, StepOutputs._fields)
