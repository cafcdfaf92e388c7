"""Association samples: the tracker's own per-frame graphs with ground-truth matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from track.detection.source import PrecomputedDetections
from track.formats.mot import PEDESTRIAN, considered_pedestrians, distractor_classes
from track.pipeline import Pipeline
from track.structures import Frame, Tracks
from track.tracking.association import Association, FrameDetections, Matches, TrackPredictions, assign
from track.tracking.camera_motion import AffineFile, Static
from track.tracking.graph_features import Graph, GraphFeatures, build_graph, collate_graphs
from track.tracking.graph_network import GraphAssociation
from track.tracking.recurrent import RecurrentMotion
from track.tracking.tracker import Tracker
from track.training.simulation import Episode, identify

VOTE_DECAY = 0.93  # per frame
Votes = dict[int, dict[int, float]]  # by track id: the weight of each identity it has followed, -1 for none


@dataclass(frozen=True)
class AssociationSample:
    """The graph of one frame, or of several collated, and its ground truth: T tracks, D detections.

    detection_of_track: (T,) the row of each track's detection, -1 for none. track_of_detection: (D,) the row of each
    detection's track, -1 for none. objectness: (D,) 1 for an object, 0 for a false positive, -1 for a detection that is
    not scored.
    """

    graph: Graph
    detection_of_track: Tensor
    track_of_detection: Tensor
    objectness: Tensor

    def to(self, device: torch.device, **options: bool) -> AssociationSample:
        """The sample on another device."""
        graph, *targets = (getattr(self, field.name) for field in fields(self))
        columns = (getattr(graph, field.name).to(device, **options) for field in fields(graph))
        return AssociationSample(Graph(*columns), *(target.to(device, **options) for target in targets))


class RecordingAssociation:
    """An association that remembers the graph of the last frame, whether or not it decides by it."""

    def __init__(self, association: Association, motion: RecurrentMotion) -> None:
        self.association = association
        self.features = GraphFeatures(motion)

    def __call__(self, frames: Sequence[tuple[TrackPredictions, FrameDetections]]) -> list[Matches]:
        """See `Association`; of one video."""
        if isinstance(self.association, GraphAssociation):
            matches, self.graph = self.association.decide_and_describe(*frames[0])
            return [matches]
        self.graph = build_graph(self.features, *frames[0])
        return self.association(frames)


@torch.no_grad()
def record(
    motion: RecurrentMotion, association: Association, episode: Episode
) -> tuple[list[AssociationSample], list[Tracks]]:
    """Track an episode through the pipeline.

    Returns a sample for each frame that has both tracks and detections, and the output tracks of every frame.
    """
    recording = RecordingAssociation(association, motion)
    tracker = Tracker(motion, recording)
    camera_motion = Static() if episode.affines is None else AffineFile(episode.affines)
    pipeline = Pipeline(PrecomputedDetections(episode.detections), camera_motion, tracker)
    trackable = torch.tensor([PEDESTRIAN, *distractor_classes("")])  # a tracker may follow distractors
    votes: Votes = {}
    samples = []
    results = []
    for number, (truth, time) in enumerate(zip(episode.truth, episode.times, strict=True), 1):
        results.append(pipeline.step(Frame.blank(1, 1, time, number)).tracks)
        truth = truth[torch.isin(truth.labels, trackable)]
        trace = tracker.trace
        if trace is not None and len(trace.ids) and len(trace.detections.boxes):
            identities = identify(torch.from_numpy(trace.detections.boxes), truth)
            matches = true_matches(recording.graph, [votes[k] for k in trace.keys.tolist()], identities)
            samples.append(AssociationSample(recording.graph, *matches, true_objectness(identities, truth)))
        update_votes(votes, tracker, truth)
    return samples, results


def true_matches(graph: Graph, votes: list[dict[int, float]], identities: Tensor) -> tuple[Tensor, Tensor]:
    """`detection_of_track` (T,) and `track_of_detection` (D,) of an `AssociationSample`.

    Tracks and identities are assigned one to one by votes: after an identity switch a track returns to the person it
    has mostly followed. If two tracks follow one person, the one with fewer votes may take an untracked person. Pairs
    that are not in the graph do not match. votes: the weight of each identity, for each track. identities: (D,) of the
    detections, -1 for none.
    """
    known = sorted({identity for row in votes for identity in row if identity >= 0})
    weights = torch.tensor([[row.get(identity, 0.0) for identity in known] for row in votes])
    tracks, columns = assign(weights, 0.0)
    track_of_identity = dict(zip([known[k] for k in columns.tolist()], tracks.tolist(), strict=True))
    pairs = set(zip(graph.i.tolist(), graph.j.tolist(), strict=True))
    detection_of_track = torch.full((len(votes),), -1)
    track_of_detection = torch.full((len(identities),), -1)
    for detection, identity in enumerate(identities.tolist()):
        track = track_of_identity.get(identity, -1)
        if (track, detection) in pairs:
            detection_of_track[track] = detection
            track_of_detection[detection] = track
    return detection_of_track, track_of_detection


def true_objectness(identities: Tensor, truth: Tracks) -> Tensor:
    """`objectness` (D,) of an `AssociationSample`: distractors and ground truth with flag 0 are not scored."""
    people = set(considered_pedestrians(truth).ids.tolist())
    return torch.tensor([0 if k < 0 else 1 if k in people else -1 for k in identities.tolist()])


def update_votes(votes: Votes, tracker: Tracker, truth: Tracks) -> None:
    """Let every track with a detection in this frame vote for the identity under its box, in place.

    All earlier votes decay, those of unmatched tracks too, so that a track that followed an identity recently outvotes
    one that has lost it.
    """
    for row in votes.values():
        for identity in row:
            row[identity] *= VOTE_DECAY
    memory = tracker.memory[np.flatnonzero(tracker.memory.time_since_update == 0)]
    identities = identify(torch.from_numpy(memory.boxes), truth)
    for track, identity in zip(memory.keys.tolist(), identities.tolist(), strict=True):
        row = votes.setdefault(track, {})
        row[identity] = row.get(identity, 0.0) + 1


def collate_samples(samples: Sequence[AssociationSample]) -> AssociationSample:
    """Several samples as one, whose graph has no edge between them."""
    graphs = [sample.graph for sample in samples]
    track_offsets = np.cumsum([0] + [len(graph.tracks) for graph in graphs])
    detection_offsets = np.cumsum([0] + [len(graph.detections) for graph in graphs])
    return AssociationSample(
        collate_graphs(graphs),
        torch.cat([_shift(s.detection_of_track, k) for s, k in zip(samples, detection_offsets, strict=False)]),
        torch.cat([_shift(s.track_of_detection, k) for s, k in zip(samples, track_offsets, strict=False)]),
        torch.cat([sample.objectness for sample in samples]),
    )


def _shift(rows: Tensor, offset: int) -> Tensor:
    return torch.where(rows >= 0, rows + offset, -1)
