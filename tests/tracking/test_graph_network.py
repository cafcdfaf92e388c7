from dataclasses import replace
from pathlib import Path

import pytest
import torch

from track.structures import Detections
from track.tracking.association import TrackPredictions
from track.tracking.graph_features import build_graph, collate_graphs
from track.tracking.graph_network import (
    AssociationLogits,
    GraphAssociation,
    MessagePassing,
    load_graph,
    save_network,
    segment_logsumexp,
)
from track.tracking.recurrent import RecurrentMotion, load_motion, save_motion

MOTION = RecurrentMotion(hidden=8).eval().requires_grad_(False)
NETWORK = MessagePassing(MOTION.feature_size, 16).eval().requires_grad_(False)
BOXES = torch.tensor([[0.0, 0, 20, 40], [15, 0, 35, 42], [200, 10, 220, 50]])
FOUND = Detections.from_rows([[16, 0, 36, 42, 0.9, 1], [1, 0, 21, 40, 0.8, 1], [201, 10, 221, 50, 0.6, 1]])


def candidates(boxes: torch.Tensor = BOXES, sigma: float = 1.0) -> TrackPredictions:
    count = len(boxes)
    state = MOTION.predict(MOTION.start(boxes, torch.ones(count)), torch.full((count,), 1 / 30))
    numbers = torch.full((count,), 0.9), torch.full((count,), 5), torch.full((count,), 1 / 30)
    flags = 2 * [torch.ones(count, dtype=torch.bool)]
    labels = torch.ones(count, dtype=torch.long)
    return TrackPredictions(
        boxes, torch.full_like(boxes, sigma), state, labels, torch.tensor([0.0, 9.0]).expand(count, 2), *numbers, *flags
    )


def as_table(graph: object, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    table = torch.full(shape, -torch.inf)
    table[graph.i, graph.j] = values  # type: ignore[attr-defined]
    return table


def test_pairs_are_those_within_reach_and_of_like_height() -> None:
    graph = build_graph(MOTION, candidates(), FOUND)
    assert sorted(zip(graph.i.tolist(), graph.j.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    far = build_graph(MOTION, candidates(sigma=50.0), FOUND)
    assert len(far.i) == 9
    child = Detections.from_rows([[0, 0, 20, 14, 0.9, 1]])
    assert len(build_graph(MOTION, candidates(), child).i) == 0


def test_the_graph_does_not_depend_on_the_pictures_scale() -> None:
    large = candidates(3 * BOXES, 3.0)
    found = replace(FOUND, boxes=3 * FOUND.boxes)
    for a, b in zip(
        vars(build_graph(MOTION, candidates(), FOUND)).values(),
        vars(build_graph(MOTION, large, found)).values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_permuting_detections_permutes_their_scores() -> None:
    order = torch.tensor([2, 0, 1])
    graph, permuted = build_graph(MOTION, candidates(), FOUND), build_graph(MOTION, candidates(), FOUND[order])
    plain, other = NETWORK(graph), NETWORK(permuted)
    torch.testing.assert_close(plain.newcomer[order], other.newcomer)
    torch.testing.assert_close(plain.nobody, other.nobody)
    torch.testing.assert_close(as_table(graph, plain.pair, (3, 3))[:, order], as_table(permuted, other.pair, (3, 3)))


def test_a_rival_changes_the_score_of_a_pair() -> None:
    alone, both = build_graph(MOTION, candidates(), FOUND[1:2]), build_graph(MOTION, candidates(), FOUND[:2])
    pair = as_table(alone, NETWORK(alone).pair, (3, 1))[0, 0], as_table(both, NETWORK(both).pair, (3, 2))[0, 1]
    assert abs(float(pair[0] - pair[1])) > 1e-4


def test_stacked_frames_score_as_they_do_apart() -> None:
    frames = [build_graph(MOTION, candidates(), FOUND), build_graph(MOTION, candidates(BOXES[:1]), FOUND[:2])]
    together, apart = NETWORK(collate_graphs(frames)), [NETWORK(frame) for frame in frames]
    for name in vars(together):
        torch.testing.assert_close(getattr(together, name), torch.cat([getattr(one, name) for one in apart]))


def test_a_choice_is_normalised_over_all_its_candidates() -> None:
    pair, alone = torch.tensor([1.0, 2.0, 30.0]), torch.tensor([0.5, -3.0, 4.0])
    expected = torch.stack([torch.tensor([0.5, 1, 2]).logsumexp(0), torch.tensor([-3.0, 30]).logsumexp(0), alone[2]])
    torch.testing.assert_close(segment_logsumexp(pair, alone, torch.tensor([0, 0, 1])), expected)


class Fixed(torch.nn.Module):
    """A pair is worth its IoU times ten, nobody and new_tracks nothing; a score of .5 is doubtful."""

    def forward(self, graph: object) -> AssociationLogits:
        overlap = graph.pairs[:, -3]  # type: ignore[attr-defined]
        tracks, detections = len(graph.tracks), len(graph.detections)  # type: ignore[attr-defined]
        real = 10 * (graph.detections[:, 0] - 0.5)  # type: ignore[attr-defined]
        return AssociationLogits(10 * overlap - 3, torch.zeros(tracks), torch.zeros(detections), real)


def test_pairs_are_assigned_by_their_odds_and_the_certain_rest_starts_tracks() -> None:
    learned = GraphAssociation(MOTION, Fixed())  # type: ignore[arg-type]
    new_tracks = Detections.from_rows([[400, 0, 420, 40, 0.9, 1], [500, 0, 520, 40, 0.4, 1]])
    decision = learned(candidates(), Detections.cat([FOUND, new_tracks]))
    assert sorted(zip(decision.tracks.tolist(), decision.detections.tolist(), strict=True)) == [(0, 1), (1, 0), (2, 2)]
    assert decision.new_tracks.tolist() == [3]


@pytest.mark.parametrize(("tracks", "found"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_flows_through(tracks: int, found: int) -> None:
    decision = GraphAssociation(MOTION, Fixed())(candidates(BOXES[:tracks]), FOUND[:found])  # type: ignore[arg-type]
    assert len(decision.tracks) == 0
    assert decision.new_tracks.tolist() == [0, 1, 2][:found]
    assert [
        len(column) for column in vars(NETWORK(build_graph(MOTION, candidates(BOXES[:tracks]), FOUND[:found]))).values()
    ] == [0, tracks, found, found]


def test_one_file_holds_both_networks(tmp_path: Path) -> None:
    path = save_network(MOTION, NETWORK, tmp_path / "gru.safetensors")
    graph = build_graph(MOTION, candidates(), FOUND)
    torch.testing.assert_close(load_graph(path)(graph).pair, NETWORK(graph).pair)
    torch.testing.assert_close(load_motion(path).start(BOXES, BOXES[:, 0]), MOTION.start(BOXES, BOXES[:, 0]))
    save_motion(MOTION, tmp_path / "motion.safetensors")
    with pytest.raises(
        ValueError, match=r"motion.safetensors: expected the weights of a association.* \(it has motion\)"
    ):
        load_graph(tmp_path / "motion.safetensors")
