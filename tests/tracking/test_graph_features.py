"""Graph features: which pairs are candidates, invariance to scale, and columns as declared."""

from dataclasses import replace

import pytest
import torch

from tests.tracking.scenes import DETECTED, NEIGHBOURS, arrays, predictions_of
from track.structures import Detections
from track.tracking.graph_features import (
    DETECTION_FEATURES,
    LAGS,
    NEAREST_FEATURES,
    PAIR_FEATURES,
    TRACK_FEATURES,
    Graph,
    GraphFeatures,
    build_graph,
    collate_graphs,
)
from track.tracking.recurrent import HISTORY, RecurrentMotion

MOTION = RecurrentMotion(hidden=8).eval().requires_grad_(False)
FEATURES = GraphFeatures(MOTION)
GRAPH = build_graph(FEATURES, predictions_of(MOTION), arrays(DETECTED))


def pairs_of(graph: Graph) -> list[tuple[int, int]]:
    return sorted(zip(graph.i.tolist(), graph.j.tolist(), strict=True))


def named(layout: dict[str, int], features: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(layout, features.split(list(layout.values()), 1), strict=True))


def test_pairs_are_within_reach_and_of_similar_height() -> None:
    assert pairs_of(GRAPH) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    uncertain = build_graph(FEATURES, predictions_of(MOTION, sigma=50.0), arrays(DETECTED))
    assert len(uncertain.i) == 9
    child = Detections.from_rows([[0, 0, 20, 14, 0.9, 1]])
    assert len(build_graph(FEATURES, predictions_of(MOTION), arrays(child)).i) == 0


def test_the_graph_does_not_depend_on_the_scale_of_the_image() -> None:
    detections = replace(DETECTED, boxes=3 * DETECTED.boxes)
    scaled = build_graph(FEATURES, predictions_of(MOTION, 3 * NEIGHBOURS, 3.0), arrays(detections))
    for a, b in zip(vars(GRAPH).values(), vars(scaled).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_lags_fit_in_the_history() -> None:
    assert max(LAGS) < HISTORY
    assert sorted(set(LAGS)) == LAGS


def test_nodes_have_the_declared_columns() -> None:
    memory, features = GRAPH.tracks.split([MOTION.feature_size, sum(TRACK_FEATURES.values())], 1)
    parts = named(TRACK_FEATURES, features)
    torch.testing.assert_close(
        memory, MOTION.track_features(torch.from_numpy(predictions_of(MOTION).state), _cxcywh(NEIGHBOURS))
    )
    torch.testing.assert_close(parts["score"], torch.full((3, 1), 0.9))
    torch.testing.assert_close(parts["log steps"], torch.full((3, 1), 2.0).log())
    torch.testing.assert_close(parts["log hits"], torch.full((3, 1), 1.5).log())
    assert parts["confirmed"].tolist() == parts["matched last frame"].tolist() == [[1]] * 3
    torch.testing.assert_close(parts["total overlap"][:, 0], torch.tensor([1, 1, 0]) * 200 / 1440)
    torch.testing.assert_close(parts["nearest numbers"], features[:, :3] * torch.tensor([[1], [1], [0]]))
    detections = named(DETECTION_FEATURES, GRAPH.detections)
    assert torch.equal(detections["score"][:, 0], DETECTED.scores)
    torch.testing.assert_close(detections["log aspect ratio"][1:, 0], torch.full((2,), 0.5).log())
    torch.testing.assert_close(detections["nearest score"][:, 0], torch.tensor([0.8, 0.9, 0]))
    torch.testing.assert_close(detections["total overlap"][:, 0], torch.tensor([1, 1, 0]) * 200 / 1440)


def test_the_nearest_overlapping_box_is_described_as_declared() -> None:
    features = GRAPH.tracks[:, MOTION.feature_size :]
    parts = named(NEAREST_FEATURES, named(TRACK_FEATURES, features)["nearest"])
    offset = torch.tensor([[15 / 20, 1 / 40, 2 / 40], [-15 / 20, -1 / 42, -2 / 42], [0, 0, 0]])
    torch.testing.assert_close(parts["offset"], (20 * offset).asinh() / 2)
    log_height_ratio = torch.tensor([42 / 40, 40 / 42, 1]).log()
    torch.testing.assert_close(parts["log size ratio"][:, 1], (20 * log_height_ratio).asinh() / 2)
    torch.testing.assert_close(parts["iou"][:, 0], torch.tensor([1, 1, 0]) * 200 / 1440)
    torch.testing.assert_close(parts["hidden"][:, 0], torch.tensor([200 / 800, 0, 0]))  # the second is in front
    torch.testing.assert_close(parts["hides"][:, 0], torch.tensor([0, 200 / 800, 0]))


def test_pairs_have_the_declared_columns() -> None:
    parts = named(PAIR_FEATURES, GRAPH.pairs)
    i, j = GRAPH.i, GRAPH.j
    offset = _cxcywh(DETECTED.boxes)[j] - _cxcywh(NEIGHBOURS)[i]
    size = _cxcywh(NEIGHBOURS)[i, 2:]
    torch.testing.assert_close(parts["offset"], (20 * offset[:, :2] / size).asinh() / 2)
    foot = (DETECTED.boxes[j, 3] - NEIGHBOURS[i, 3]) / size[:, 1]
    torch.testing.assert_close(parts["size and foot"][:, 2], (20 * foot).asinh() / 2)
    torch.testing.assert_close(parts["size and foot from averages"], parts["size and foot"].repeat(1, 2))
    torch.testing.assert_close(parts["normalised offset"], (offset / 2).clamp(-4, 4))
    torch.testing.assert_close(parts["mean squared offset"][:, 0], (offset**2).mean(1).log1p() / 2)
    torch.testing.assert_close(parts["extent overlap"][-1], torch.tensor([19 / 21, 1]))
    torch.testing.assert_close(parts["iou"][-1], torch.tensor([19 / 21]))
    torch.testing.assert_close(parts["score difference"][:, 0], DETECTED.scores[j] - 0.9)
    assert parts["class gap"].tolist() == [[0]] * 5
    history = parts["history"].unflatten(1, (len(LAGS), 5))
    torch.testing.assert_close(
        history[..., 4], torch.full((5, len(LAGS)), 2.0).log()
    )  # a young track repeats its first
    torch.testing.assert_close(history[:, 0, 1], (20 * -foot).asinh() / 2)


def test_a_collated_graph_holds_the_graphs_with_shifted_rows() -> None:
    other = build_graph(FEATURES, predictions_of(MOTION, NEIGHBOURS[:1]), arrays(DETECTED[:2]))
    both = collate_graphs([GRAPH, other])
    assert pairs_of(both) == [*pairs_of(GRAPH), (3, 3), (3, 4)]
    for name in ("tracks", "detections", "pairs"):
        assert torch.equal(getattr(both, name), torch.cat([getattr(GRAPH, name), getattr(other, name)]))


@pytest.mark.parametrize(("tracks", "detections"), [(0, 0), (0, 3), (3, 0)])
def test_a_graph_without_tracks_or_detections_has_no_pairs(tracks: int, detections: int) -> None:
    graph = build_graph(FEATURES, predictions_of(MOTION, NEIGHBOURS[:tracks]), arrays(DETECTED[:detections]))
    assert graph.tracks.shape == (tracks, GRAPH.tracks.shape[1])
    assert graph.detections.shape == (detections, sum(DETECTION_FEATURES.values()))
    assert graph.pairs.shape == (0, sum(PAIR_FEATURES.values()))


def _cxcywh(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
