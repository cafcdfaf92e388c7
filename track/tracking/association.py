"""Which detection is whose: affinities between tracks and detections, and their assignment.

`ByteAssociation` is the two-stage rule of Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box"
(ECCV 2022): confident detections first, then what is left of the tracks with what is left of the detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from track.structures import Detections


@dataclass(frozen=True)
class TrackPredictions:
    """The live tracks as association sees them in a frame, T rows.

    boxes: (T, 4) predicted xyxy pixels. sigma: (T, 4) standard deviation of centre x, centre y, width and height.
    state: (T, S) the motion model's, at this frame's time. labels: (T,). class_logits: (T, C) for each class, in nats.
    scores: (T,) of the last detections. hits: (T,) detections so far. time_since_update: (T,) seconds since the last, this frame's
    included. confirmed: (T,) bool, whether the track was ever reported. matched_last_frame: (T,) bool, whether it had
    a detection in the previous frame.
    """

    boxes: Tensor
    sigma: Tensor
    state: Tensor
    labels: Tensor
    class_logits: Tensor
    scores: Tensor
    hits: Tensor
    time_since_update: Tensor
    confirmed: Tensor
    matched_last_frame: Tensor


@dataclass(frozen=True)
class Matches:
    """What becomes of a frame's detections.

    tracks, detections: rows (M,) that belong together, each at most once. new_tracks: rows that start a track.
    affinity: (T, D) what it was decided by, in the association's own unit; larger is better, -inf is impossible.
    """

    tracks: Tensor
    detections: Tensor
    new_tracks: Tensor
    affinity: Tensor


class Affinity(Protocol):
    """How well each detection fits each track."""

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Tensor:
        """(T, D) affinities, larger is better, -inf where the pair is impossible."""
        ...


class Association(Protocol):
    """Decides which detections continue which tracks, and which start one."""

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Matches:
        """The decision of a frame; detections keep their order."""
        ...


def iou(tracks: TrackPredictions, detections: Detections) -> Tensor:
    """(T, D) intersection over union of predicted and detected boxes, -inf across classes."""
    overlap = box_iou(tracks.boxes, detections.boxes).nan_to_num(0.0)
    return _within_class(overlap, tracks, detections)


def height_iou(tracks: TrackPredictions, detections: Detections) -> Tensor:
    """(T, D) IoU times the overlap of the vertical extents, which tells people at different depths apart.

    Yang et al., "Hybrid-SORT: Weak Cues Matter for Online Multi-Object Tracking" (AAAI 2024).
    """
    top, bottom = tracks.boxes[:, 1::2, None].unbind(1)
    above, below = detections.boxes[:, 1::2].unbind(1)
    shared = (torch.minimum(bottom, below) - torch.maximum(top, above)).clamp(min=0)
    heights = shared / (torch.maximum(bottom, below) - torch.minimum(top, above)).clamp(min=1e-6)
    overlap = box_iou(tracks.boxes, detections.boxes).nan_to_num(0.0)
    return _within_class(overlap * heights, tracks, detections)


def assign(affinity: Tensor, minimum: float) -> tuple[Tensor, Tensor]:
    """The assignment of largest total affinity above `minimum`; a pair below it is left apart.

    affinity: (T, D). Both sides may stay unmatched: a pair is worth `affinity - minimum` and nobody is worth 0, so
    a doubtful match never displaces a good one.
    """
    gain = (affinity - minimum).clamp(min=0).double()
    rows, columns = (torch.as_tensor(index) for index in linear_sum_assignment(gain.numpy(), maximize=True))
    matched = gain[rows, columns] > 0
    return rows[matched], columns[matched]


class ByteAssociation:
    """Two-stage association: every track with the confident detections, then tracks just seen with the others."""

    def __init__(
        self,
        affinity: Affinity = height_iou,
        high_score: float = 0.6,
        min_first: float = 0.1,
        min_second: float = 0.5,
        min_new_track: float = 0.3,
        new_track_score: float = 0.7,
    ) -> None:
        """Minimal affinities of the stages; the first and the new_tracks' are of affinity times score.

        new_track_score: an unmatched detection of at least this score starts a track.
        """
        self.affinity = affinity
        self.high_score = high_score
        self.min_first, self.min_second, self.min_new_track = min_first, min_second, min_new_track
        self.new_track_score = new_track_score

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Matches:
        """See `Association`."""
        affinity = self.affinity(tracks, detections)
        weighted = affinity * detections.scores
        high = detections.scores >= self.high_score
        free_tracks, free = (
            torch.ones(len(tracks.boxes), dtype=torch.bool),
            torch.ones(len(detections), dtype=torch.bool),
        )
        pairs: list[tuple[Tensor, Tensor]] = []
        for values, minimum, who, what in (
            (weighted, self.min_first, tracks.confirmed, high),
            (affinity, self.min_second, tracks.confirmed & tracks.matched_last_frame, ~high),
            (weighted, self.min_new_track, ~tracks.confirmed, high),
        ):
            rows, columns = (who & free_tracks).nonzero()[:, 0], (what & free).nonzero()[:, 0]
            i, j = assign(values[rows][:, columns], minimum)
            pairs.append((rows[i], columns[j]))
            free_tracks[rows[i]] = False
            free[columns[j]] = False
        new_tracks = (free & (detections.scores >= self.new_track_score)).nonzero()[:, 0]
        return Matches(torch.cat([i for i, _ in pairs]), torch.cat([j for _, j in pairs]), new_tracks, affinity)


def _within_class(affinity: Tensor, tracks: TrackPredictions, detections: Detections) -> Tensor:
    return affinity.masked_fill(tracks.labels[:, None] != detections.labels, -torch.inf)
