"""Association of tracks and detections: the protocol, affinities, optimal assignment, and ByteTrack's rule.

`ByteAssociation` is the two-stage rule of Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every
Detection Box" (ECCV 2022): confident detections first, then the remaining tracks with the remaining detections.
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
    """The live tracks, predicted to the time of the current frame, one row per track.

    boxes: (T, 4) predicted boxes, xyxy pixels. sigma: (T, 4) their standard deviations as centre x, centre y, width and
    height, pixels. state: (T, S) the motion model's. labels: (T,). class_logits: (T, C) per class, nats. scores: (T,)
    of the last detection. hits: (T,) number of detections so far. time_since_update: (T,) seconds from the last
    detection to this frame. confirmed: (T,) bool, whether the track was ever reported. matched_last_frame: (T,) bool,
    whether it had a detection in the previous frame.
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
    """The outcome of association in one frame.

    tracks, detections: (M,) rows that are matched, each at most once. new_tracks: (K,) rows of detections that start a
    track. affinity: (T, D) that the matches were chosen by, in the association's own unit; larger is better, -inf means
    impossible. objectness: (D,) log-odds that each detection is an object.
    """

    tracks: Tensor
    detections: Tensor
    new_tracks: Tensor
    affinity: Tensor
    objectness: Tensor


class Affinity(Protocol):
    """Measures how well each detection fits each track."""

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Tensor:
        """(T, D) affinities; larger is better, -inf means impossible."""
        ...


class Association(Protocol):
    """Decides which detections continue which track, and which start a new one."""

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Matches:
        """The matches of one frame, as rows of `tracks` and `detections`."""
        ...


def iou(tracks: TrackPredictions, detections: Detections) -> Tensor:
    """(T, D) intersection over union of predicted and detected boxes, -inf across classes."""
    overlap = box_iou(tracks.boxes, detections.boxes).nan_to_num(0.0)
    return _within_class(overlap, tracks, detections)


def height_iou(tracks: TrackPredictions, detections: Detections) -> Tensor:
    """(T, D) IoU times the IoU of the vertical extents, which tells people at different depths apart.

    Yang et al., "Hybrid-SORT: Weak Cues Matter for Online Multi-Object Tracking" (AAAI 2024).
    """
    track_top, track_bottom = tracks.boxes[:, 1::2, None].unbind(1)
    top, bottom = detections.boxes[:, 1::2].unbind(1)
    shared = (torch.minimum(track_bottom, bottom) - torch.maximum(track_top, top)).clamp(min=0)
    span = (torch.maximum(track_bottom, bottom) - torch.minimum(track_top, top)).clamp(min=1e-6)
    overlap = box_iou(tracks.boxes, detections.boxes).nan_to_num(0.0)
    return _within_class(overlap * (shared / span), tracks, detections)


def assign(affinity: Tensor, minimum: float) -> tuple[Tensor, Tensor]:
    """Rows (M,) and columns (M,) of the best assignment among the pairs whose affinity exceeds `minimum`.

    affinity: (T, D). A pair is worth `affinity - minimum`, an unmatched row or column 0, and the total is maximal; so
    a doubtful match never displaces a good one.
    """
    gain = (affinity - minimum).clamp(min=0).double()
    rows, columns = (torch.as_tensor(index) for index in linear_sum_assignment(gain.numpy(), maximize=True))
    matched = gain[rows, columns] > 0
    return rows[matched], columns[matched]


class ByteAssociation:
    """ByteTrack's rule: all confirmed tracks with confident detections, then those matched last frame with the others.

    Unconfirmed tracks come last, and are matched with the remaining confident detections only.
    """

    def __init__(
        self,
        affinity: Affinity = height_iou,
        high_score: float = 0.6,
        min_first: float = 0.1,
        min_second: float = 0.5,
        min_new_track: float = 0.3,
        new_track_score: float = 0.7,
    ) -> None:
        """high_score: minimal score of a confident detection.

        min_first, min_second: minimal affinity for a match of a confirmed track in the first and in the second stage;
        min_new_track: of an unconfirmed track. All but min_second are compared with affinity times score.
        new_track_score: an unmatched detection of at least this score starts a track.
        """
        self.affinity = affinity
        self.high_score = high_score
        self.min_first = min_first
        self.min_second = min_second
        self.min_new_track = min_new_track
        self.new_track_score = new_track_score

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Matches:
        """See `Association`."""
        affinity = self.affinity(tracks, detections)
        weighted = affinity * detections.scores
        high = detections.scores >= self.high_score
        free_tracks = torch.ones(len(tracks.boxes), dtype=torch.bool)
        free_detections = torch.ones(len(detections), dtype=torch.bool)
        pairs: list[tuple[Tensor, Tensor]] = []
        for values, minimum, stage_tracks, stage_detections in (
            (weighted, self.min_first, tracks.confirmed, high),
            (affinity, self.min_second, tracks.confirmed & tracks.matched_last_frame, ~high),
            (weighted, self.min_new_track, ~tracks.confirmed, high),
        ):
            rows = (stage_tracks & free_tracks).nonzero()[:, 0]
            columns = (stage_detections & free_detections).nonzero()[:, 0]
            i, j = assign(values[rows][:, columns], minimum)
            pairs.append((rows[i], columns[j]))
            free_tracks[rows[i]] = False
            free_detections[columns[j]] = False
        new_tracks = (free_detections & (detections.scores >= self.new_track_score)).nonzero()[:, 0]
        rows, columns = torch.cat([i for i, _ in pairs]), torch.cat([j for _, j in pairs])
        return Matches(rows, columns, new_tracks, affinity, detections.scores.logit(1e-3))


def _within_class(affinity: Tensor, tracks: TrackPredictions, detections: Detections) -> Tensor:
    return affinity.masked_fill(tracks.labels[:, None] != detections.labels, -torch.inf)
