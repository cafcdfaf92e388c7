"""Offline post-processing: interpolation and smoothing of whole tracks. Uses future frames; never part of online figures.

The motion model is run over each track forwards and backwards in time; the two estimates of a frame are weighted by
their precision, as in the two-filter smoother of Fraser and Potter, "The Optimum Linear Smoother as a Combination of
Two Optimum Linear Filters" (IEEE Trans. Automatic Control, 1969).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_convert

from track.geometry import identity_affine, invert_affine
from track.structures import Tracks
from track.tracking.motion import Motion


def interpolate(
    results: Sequence[Tracks],
    times: Sequence[float],
    motion: Motion,
    affines: Sequence[Tensor] | None = None,
    smooth: bool = False,
) -> list[Tracks]:
    """The tracks of a whole video with a box in every frame between their first and last.

    results: one `Tracks` per frame. times: seconds of each. affines: (2, 3) camera motion from the previous frame, by
    default none. smooth: also move the boxes that were there. An interpolated box has the score and label of the box
    before it.
    """
    affines = list(affines or [identity_affine()] * len(results))
    last = {k: f for f, frame in enumerate(results) for k in frame.ids.tolist()}
    first = {k: f for f, frame in reversed(list(enumerate(results))) for k in frame.ids.tolist()}
    forward = _run(results, times, motion, affines, last, updated=smooth)
    backward = _run(
        results[::-1],
        [times[-1] - time for time in reversed(times)],
        motion,
        [identity_affine(), *(invert_affine(affine) for affine in affines[:0:-1])],
        {k: len(results) - 1 - f for k, f in first.items()},
        updated=False,
    )
    merged = [_merge(a, b) for a, b in zip(forward, reversed(backward), strict=True)]
    if smooth:
        return merged
    return [_with_detected(frame, detected) for frame, detected in zip(merged, results, strict=True)]


Estimate = tuple[Tracks, Tensor, Tensor]  # rows by id, (N, 4) centre x, y, width, height, and their deviations


@torch.inference_mode()
def _run(
    results: Sequence[Tracks],
    times: Sequence[float],
    motion: Motion,
    affines: Sequence[Tensor],
    last: dict[int, int],
    updated: bool,
) -> list[Estimate]:
    """Each frame's estimate of every track from its first to its last box, with that frame's own box or before it."""
    live, state = Tracks.empty(), motion.initiate(torch.zeros(0, 4), torch.zeros(0))
    estimates, before = [], times[0]
    for index, (seen, time, affine) in enumerate(zip(results, times, affines, strict=True)):
        seen = seen[seen.ids.argsort()]
        state = motion.apply_camera_motion(state, affine)
        state, before = motion.predict(state, torch.full((len(live),), time - before)), time
        known, new = torch.isin(live.ids, seen.ids), ~torch.isin(seen.ids, live.ids)
        predicted = motion.project(state)
        old, born = seen[~new], seen[new]
        state[known] = motion.update(state[known], old.boxes, old.scores)
        state = torch.cat([state, motion.initiate(born.boxes, born.scores)])
        live = Tracks.cat([_with_detected(live, old), born])
        order = live.ids.argsort()
        position, sigma = motion.project(state)
        if not updated:  # a track's first box is all there is; it says nothing of itself
            position = torch.cat([predicted[0], position[len(predicted[0]) :]])
            sigma = torch.cat([predicted[1], torch.full_like(position[len(predicted[0]) :], 1e6)])
        live, state = live[order], state[order]
        estimates.append((live, position[order], sigma[order]))
        going = torch.tensor([last[k] > index for k in live.ids.tolist()], dtype=torch.bool)
        live, state = live[going], state[going]
    return estimates


def _merge(a: Estimate, b: Estimate) -> Tracks:
    """Both estimates of a frame, weighted by their precision."""
    (live, position, sigma), (_, other, doubt) = a, b
    weight = doubt**2 / (sigma**2 + doubt**2).clamp(min=1e-12)
    boxes = box_convert(weight * position + (1 - weight) * other, "cxcywh", "xyxy")
    return Tracks(boxes, live.scores, live.labels, live.ids)


def _with_detected(frame: Tracks, seen: Tracks) -> Tracks:
    """The frame with the boxes, scores and labels of `seen` where it has them; both are sorted by id or alike."""
    seen = seen[seen.ids.argsort()]
    rows = torch.isin(frame.ids, seen.ids)
    columns = [column.clone() for column in (frame.boxes, frame.scores, frame.labels)]
    for column, value in zip(columns, (seen.boxes, seen.scores, seen.labels), strict=True):
        column[rows] = value
    return Tracks(columns[0], columns[1], columns[2], frame.ids)
