"""Association of tracks and detections: the protocol, affinities, optimal assignment, and ByteTrack's rule.

`ByteAssociation` is the two-stage rule of Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every
Detection Box" (ECCV 2022): confident detections first, then the remaining tracks with the remaining detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from track.geometry import paired_iou, touching_boxes

DENSE_TABLE = 4_000  # cells, up to which one table holds all pairs to assign
BLOCK_ROWS = 32  # of the tables that larger frames are assigned in


class FrameDetections(NamedTuple):
    """The detections of one frame that are tracked: boxes (D, 4) and scores (D,) float32, labels (D,) int64.

    Labels are columns of the tracks' class logits.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class TrackPredictions:
    """The live tracks, predicted to the time of the current frame, one row per track.

    boxes: (T, 4) predicted boxes, xyxy pixels. sigma: (T, 4) their standard deviations as centre x, centre y, width and
    height, pixels. state: (T, S) the motion model's. class_logits: (T, C) per class, nats. scores: (T,) of the last
    detection. hits: (T,) number of detections so far. time_since_update: (T,) seconds from the last detection to
    this frame. confirmed: (T,) bool, whether it has had `min_hits` detections, or began in the first frame.
    matched_last_frame: (T,) bool, whether it had a detection in the previous frame.
    """

    boxes: np.ndarray
    sigma: np.ndarray
    state: np.ndarray
    class_logits: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    time_since_update: np.ndarray
    confirmed: np.ndarray
    matched_last_frame: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(T,) the likeliest class, as column of `class_logits`."""
        return self.class_logits.argmax(1)


@dataclass(frozen=True)
class Matches:
    """The outcome of association in one frame.

    tracks, detections: (M,) rows that are matched, each at most once. new_tracks: (K,) rows of detections that start a
    track. i, j: (E,) rows of the tracks and detections that might have been matched, and affinity: (E,) that the
    matches were chosen by, in the association's own unit; larger is better. evidence: (D, len(EVIDENCE)) of each
    detection, see `track.tracking.existence`; None if the association knows none.
    """

    tracks: np.ndarray
    detections: np.ndarray
    new_tracks: np.ndarray
    i: np.ndarray
    j: np.ndarray
    affinity: np.ndarray
    evidence: np.ndarray | None = None

    def table(self, tracks: int, detections: int) -> np.ndarray:
        """(tracks, detections) affinities, -inf where no match was possible."""
        table = np.full((tracks, detections), -np.inf, np.float32)
        table[self.i, self.j] = self.affinity
        return table


class Affinity(Protocol):
    """Measures how well detections fit tracks."""

    def __call__(self, tracks: np.ndarray, detections: np.ndarray) -> np.ndarray:
        """(E,) affinities of pairs, from predicted boxes (E, 4) and detected boxes (E, 4); larger is better, 0 is
        impossible."""
        ...


class Association(Protocol):
    """Decides which detections continue which track, and which start a new one."""

    def __call__(self, frames: Sequence[tuple[TrackPredictions, FrameDetections]]) -> list[Matches]:
        """The matches of one frame of each video, as rows of its tracks and detections."""
        ...


def iou(tracks: np.ndarray, detections: np.ndarray) -> np.ndarray:
    """(E,) intersection over union of predicted boxes (E, 4) and detected boxes (E, 4)."""
    return paired_iou(tracks, detections)


def height_iou(tracks: np.ndarray, detections: np.ndarray) -> np.ndarray:
    """(E,) IoU times the IoU of the vertical extents, which tells people at different depths apart.

    Yang et al., "Hybrid-SORT: Weak Cues Matter for Online Multi-Object Tracking" (AAAI 2024).
    """
    shared = np.minimum(tracks[:, 3], detections[:, 3]) - np.maximum(tracks[:, 1], detections[:, 1])
    span = np.maximum(tracks[:, 3], detections[:, 3]) - np.minimum(tracks[:, 1], detections[:, 1])
    return paired_iou(tracks, detections) * np.maximum(shared, 0) / np.maximum(span, 1e-6)


def assign(affinity: Tensor, minimum: float) -> tuple[Tensor, Tensor]:
    """Rows (M,) and columns (M,) of the best assignment among the pairs whose affinity exceeds `minimum`.

    affinity: (T, D). See `assign_pairs`.
    """
    i, j = (affinity > minimum).nonzero(as_tuple=True)
    chosen = assign_pairs(i.numpy(), j.numpy(), affinity[i, j].double().numpy() - minimum)
    return i[chosen], j[chosen]


def assign_pairs(i: np.ndarray, j: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(M,) which pairs are chosen, each i and each j at most once, so that their total gain is maximal.

    i, j: (E,) rows of two sets. gain: (E,) of the pair over leaving both alone; pairs without a gain are not chosen, so
    that a doubtful match never displaces a good one. Frames that are large fall apart into groups that share no row,
    which are assigned one after another: the result is the same, the cost grows with their number.
    """
    useful = np.flatnonzero(gain > 0)
    i, j, gain = i.take(useful), j.take(useful), gain.take(useful)
    if not len(i):
        return useful
    rows, columns = int(i.max()) + 1, int(j.max()) + 1
    if rows * columns <= DENSE_TABLE:
        return useful[_assign_table(i, j, gain, rows, columns)]
    alone = (np.bincount(i)[i] == 1) & (np.bincount(j)[j] == 1)
    chosen = [np.flatnonzero(alone)]
    for block in _blocks(i, j, np.flatnonzero(~alone)):
        _, r = np.unique(i[block], return_inverse=True)
        _, c = np.unique(j[block], return_inverse=True)
        chosen.append(block[_assign_table(r, c, gain[block], int(r.max()) + 1, int(c.max()) + 1)])
    return useful[np.sort(np.concatenate(chosen))]


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

    def __call__(self, frames: Sequence[tuple[TrackPredictions, FrameDetections]]) -> list[Matches]:
        """See `Association`."""
        return [self._match(tracks, detections) for tracks, detections in frames]

    def _match(self, tracks: TrackPredictions, detections: FrameDetections) -> Matches:
        i, j, affinity = self._pairs(tracks, detections)
        weighted = affinity * detections.scores.take(j)
        high = detections.scores >= self.high_score
        free_tracks = np.ones(len(tracks.boxes), bool)
        free_detections = np.ones(len(high), bool)
        matched = [np.zeros(0, np.int64)]
        for values, minimum, stage_tracks, stage_detections in (
            (weighted, self.min_first, tracks.confirmed, high),
            (affinity, self.min_second, tracks.confirmed & tracks.matched_last_frame, ~high),
            (weighted, self.min_new_track, ~tracks.confirmed, high),
        ):
            possible = (stage_tracks & free_tracks).take(i) & (stage_detections & free_detections).take(j)
            pairs = np.flatnonzero(possible & (values > minimum))
            if not len(pairs):
                continue
            pairs = pairs[assign_pairs(i.take(pairs), j.take(pairs), values.take(pairs).astype(np.float64) - minimum)]
            free_tracks[i.take(pairs)] = False
            free_detections[j.take(pairs)] = False
            matched.append(pairs)
        pairs = np.concatenate(matched)
        new_tracks = np.flatnonzero(free_detections & (detections.scores >= self.new_track_score))
        return Matches(i.take(pairs), j.take(pairs), new_tracks, i, j, affinity)

    def _pairs(self, tracks: TrackPredictions, detections: FrameDetections) -> tuple[np.ndarray, ...]:
        """Rows (E,) of tracks and of detections of the same class whose boxes meet, and their affinities (E,)."""
        labels = tracks.labels
        blocks = []
        for i, j in touching_boxes(tracks.boxes, detections.boxes):
            affinity = self.affinity(tracks.boxes.take(i, 0), detections.boxes.take(j, 0))
            possible = np.flatnonzero((labels.take(i) == detections.labels.take(j)) & (affinity > 0))
            blocks.append((i.take(possible), j.take(possible), affinity.take(possible)))
        return blocks[0] if len(blocks) == 1 else tuple(map(np.concatenate, zip(*blocks, strict=True)))


def _blocks(i: np.ndarray, j: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """The pairs in blocks that share no i and no j, each of some `BLOCK_ROWS` rows or of one connected
    group."""
    if not len(pairs):
        return []
    rows, columns = int(i.max()) + 1, int(j.max()) + 1
    links = coo_array((np.ones(len(pairs)), (i[pairs], rows + j[pairs])), shape=(rows + columns, rows + columns))
    group = connected_components(links, directed=False)[1][i[pairs]]
    order = np.argsort(group, kind="stable")
    pairs, group = pairs[order], group[order]
    is_first = np.zeros(len(pairs), np.int64)
    is_first[np.unique(i[pairs], return_index=True)[1]] = 1
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    block = np.repeat((is_first.cumsum()[starts] - 1) // BLOCK_ROWS, np.diff(starts, append=len(pairs)))
    return np.split(pairs, np.flatnonzero(np.diff(block)) + 1)


def _assign_table(i: np.ndarray, j: np.ndarray, gain: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(M,) which of the pairs are chosen, by one table of all rows and columns."""
    table = np.zeros(rows * columns)
    cells = i * columns + j
    table[cells] = gain
    number = np.full(rows * columns, -1)
    number[cells] = np.arange(len(i))
    r, c = linear_sum_assignment(table.reshape(rows, columns), maximize=True)
    chosen = number.take(r * columns + c)
    return chosen[chosen >= 0]
