"""The association network: symmetries, normalised choices, decisions from logits, and weights on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tracking.scenes import DETECTED, NEIGHBOURS, arrays, predictions_of
from track.structures import Detections
from track.tracking.graph_features import (
    DETECTION_FEATURES,
    PAIR_FEATURES,
    Graph,
    GraphFeatures,
    build_graph,
    collate_graphs,
)
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


def graph_of(boxes: torch.Tensor = NEIGHBOURS, detections: Detections = DETECTED) -> Graph:
    return build_graph(GraphFeatures(MOTION), predictions_of(MOTION, boxes), arrays(detections))


def as_table(graph: Graph, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    table = torch.full(shape, -torch.inf)
    table[graph.i, graph.j] = values
    return table


def column(layout: dict[str, int], features: torch.Tensor, name: str) -> torch.Tensor:
    return dict(zip(layout, features.split(list(layout.values()), 1), strict=True))[name][:, 0]


def test_permuting_detections_permutes_their_logits() -> None:
    order = torch.tensor([2, 0, 1])
    graph, permuted = graph_of(), graph_of(detections=DETECTED[order])
    plain, other = NETWORK(graph), NETWORK(permuted)
    torch.testing.assert_close(plain.no_track[order], other.no_track)
    torch.testing.assert_close(plain.objectness[order], other.objectness)
    torch.testing.assert_close(plain.no_detection, other.no_detection)
    torch.testing.assert_close(as_table(graph, plain.pair, (3, 3))[:, order], as_table(permuted, other.pair, (3, 3)))


def test_a_competing_detection_changes_the_logit_of_a_pair() -> None:
    alone, both = graph_of(detections=DETECTED[1:2]), graph_of(detections=DETECTED[:2])
    logit = as_table(alone, NETWORK(alone).pair, (3, 1))[0, 0]
    logit_with_competitor = as_table(both, NETWORK(both).pair, (3, 2))[0, 1]
    assert abs(float(logit - logit_with_competitor)) > 1e-4


def test_collated_frames_have_the_logits_of_separate_frames() -> None:
    frames = [graph_of(), graph_of(NEIGHBOURS[:1], DETECTED[:2])]
    collated, separate = NETWORK(collate_graphs(frames)), [NETWORK(frame) for frame in frames]
    for name in vars(collated):
        torch.testing.assert_close(getattr(collated, name), torch.cat([getattr(logits, name) for logits in separate]))


def test_a_choice_is_normalised_over_all_its_candidates() -> None:
    pair, alone = torch.tensor([1.0, 2.0, 30.0]), torch.tensor([0.5, -3.0, 4.0])
    expected = torch.stack([torch.tensor([0.5, 1, 2]).logsumexp(0), torch.tensor([-3.0, 30]).logsumexp(0), alone[2]])
    torch.testing.assert_close(segment_logsumexp(pair, alone, torch.tensor([0, 0, 1])), expected)


class FixedLogits(torch.nn.Module):
    """The logit of a pair is ten times its IoU less 3, that of no match 0; a detection of score .5 is doubtful."""

    def forward(self, graph: Graph) -> AssociationLogits:
        iou = column(PAIR_FEATURES, graph.pairs, "iou")
        scores = column(DETECTION_FEATURES, graph.detections, "score")
        no_detection, no_track = torch.zeros(len(graph.tracks)), torch.zeros(len(graph.detections))
        return AssociationLogits(10 * iou - 3, no_detection, no_track, 10 * (scores - 0.5))


FIXED = GraphAssociation(MOTION, FixedLogits())  # type: ignore[arg-type]


def test_pairs_are_assigned_by_their_logits_and_unmatched_objects_start_tracks() -> None:
    unmatched = Detections.from_rows([[400, 0, 420, 40, 0.9, 1], [500, 0, 520, 40, 0.4, 1]])
    [matches] = FIXED([(predictions_of(MOTION), arrays(Detections.cat([DETECTED, unmatched])))])
    assert sorted(zip(matches.tracks.tolist(), matches.detections.tolist(), strict=True)) == [(0, 1), (1, 0), (2, 2)]
    assert matches.new_tracks.tolist() == [3]
    overlap = 200 / 1440  # of the first two
    affinity = [10 * 19 / 21 - 3] * 3 + [0, 0]  # of each detection and its track
    expected = [[4, 3, 1, 4, -1], [0.9, 0.8, 0.6, 0.9, 0.4], affinity, [overlap, overlap, 0, 0, 0]]
    assert matches.evidence is not None
    np.testing.assert_allclose(matches.evidence.T, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tracks", "detections"), [(0, 0), (0, 3), (3, 0)])
def test_frames_without_tracks_or_detections_pass_through(tracks: int, detections: int) -> None:
    [matches] = FIXED([(predictions_of(MOTION, NEIGHBOURS[:tracks]), arrays(DETECTED[:detections]))])
    assert len(matches.tracks) == 0
    assert matches.new_tracks.tolist() == [0, 1, 2][:detections]
    logits = NETWORK(graph_of(NEIGHBOURS[:tracks], DETECTED[:detections]))
    assert [len(values) for values in vars(logits).values()] == [0, tracks, detections, detections]


def test_a_motion_model_with_too_short_a_history_is_refused() -> None:
    with pytest.raises(ValueError, match="history_length: expected at least 40, got 1"):
        GraphAssociation(RecurrentMotion(hidden=8, history_length=1), NETWORK)


def test_one_file_holds_both_networks(tmp_path: Path) -> None:
    path = save_network(MOTION, NETWORK, tmp_path / "gru.safetensors")
    torch.testing.assert_close(load_graph(path)(graph_of()).pair, NETWORK(graph_of()).pair)
    state = MOTION.initiate(NEIGHBOURS, NEIGHBOURS[:, 0])
    torch.testing.assert_close(load_motion(path).initiate(NEIGHBOURS, NEIGHBOURS[:, 0]), state)


def test_a_file_without_an_association_network_is_refused(tmp_path: Path) -> None:
    save_motion(MOTION, tmp_path / "motion.safetensors")
    message = r"motion.safetensors: expected association weights.* \(the file holds motion\)"
    with pytest.raises(ValueError, match=message):
        load_graph(tmp_path / "motion.safetensors")
