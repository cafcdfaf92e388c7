"""Offline post-processing: interpolation and smoothing of whole tracks; uses future frames, so never in online figures.

The motion model runs over each track forwards and backwards in time. The two estimates of a frame are weighted by
their precision, as in the two-filter smoother of Fraser and Potter, "The Optimum Linear Smoother as a Combination of
Two Optimum Linear Filters" (IEEE Trans. Automatic Control, 1969).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert

from track.geometry import identity_affine, invert_affine
from track.structures import Tracks
from track.tracking.motion import Motion

UNKNOWN_SIGMA = 1e6  # pixels: no information


def interpolate(
    results: Sequence[Tracks],
    times: Sequence[float],
    motion: Motion,
    affines: Sequence[Tensor] | None = None,
    smooth: bool = False,
) -> list[Tracks]:
    """The tracks of a whole video, with a box in every frame between the first and the last of each track.

    results: the tracks of each frame, at least one. times: seconds, per frame. affines: (2, 3) per frame, camera motion
    from the previous frame's pixels to this frame's; by default none. smooth: replace the existing boxes, too, by
    smoothed ones. An interpolated box has the score and label of the track's previous box.
    """
    affines = list(affines or [identity_affine()] * len(results))
    reversed_affines = [identity_affine(), *(invert_affine(affine) for affine in affines[:0:-1])]
    reversed_times = [times[-1] - time for time in reversed(times)]
    forward = _estimates(results, times, motion, affines, include_current=smooth)
    backward = _estimates(results[::-1], reversed_times, motion, reversed_affines, include_current=False)
    merged = [_merge(a, b) for a, b in zip(forward, reversed(backward), strict=True)]
    if smooth:
        return merged
    return [_replace_rows(frame, detected) for frame, detected in zip(merged, results, strict=True)]


@dataclass(frozen=True)
class Estimate:
    """The boxes of one frame by one filter, rows in the order of ids.

    tracks: the last known box, score and label of each track. position: (N, 4) centre x, centre y, width, height.
    sigma: (N, 4) standard deviations, pixels.
    """

    tracks: Tracks
    position: Tensor
    sigma: Tensor


@torch.inference_mode()
def _estimates(
    results: Sequence[Tracks],
    times: Sequence[float],
    motion: Motion,
    affines: Sequence[Tensor],
    include_current: bool,
) -> list[Estimate]:
    """Per frame, the filter's estimate of each track from the track's first frame to its last.

    include_current: use the frame's own box, too, not only those of the frames before.
    """
    last_frame = {identity: index for index, tracks in enumerate(results) for identity in tracks.ids.tolist()}
    live = Tracks.empty()
    state = motion.initiate(torch.zeros(0, 4), torch.zeros(0))
    elapsed = [time - previous for time, previous in zip(times, [times[0], *times[:-1]], strict=True)]
    estimates = []
    for index, (observed, seconds, affine) in enumerate(zip(results, elapsed, affines, strict=True)):
        observed = observed[observed.ids.argsort()]
        state = motion.apply_camera_motion(state, affine)
        state = motion.predict(state, torch.full((len(live),), seconds))
        predicted, predicted_sigma = motion.project(state)
        matched = torch.isin(live.ids, observed.ids)
        is_new = ~torch.isin(observed.ids, live.ids)
        continued = observed[~is_new]
        new = observed[is_new]
        state = state.clone()  # the prediction may be a view of it
        state[matched] = motion.update(state[matched], continued.boxes, continued.scores)
        state = torch.cat([state, motion.initiate(new.boxes, new.scores)])
        live = Tracks.cat([_replace_rows(live, continued), new])
        position, sigma = motion.project(state)
        if not include_current:  # a new track has no estimate but its first box, which must not count
            position = torch.cat([predicted, position[len(predicted) :]])
            sigma = torch.cat([predicted_sigma, torch.full((len(new), 4), UNKNOWN_SIGMA)])
        order = live.ids.argsort()
        live = live[order]
        state = state[order]
        estimates.append(Estimate(live, position[order], sigma[order]))
        continues = torch.tensor([last_frame[k] > index for k in live.ids.tolist()], dtype=torch.bool)
        live = live[continues]
        state = state[continues]
    return estimates


def _merge(forward: Estimate, backward: Estimate) -> Tracks:
    """The two estimates of one frame, weighted by their precision."""
    variance = forward.sigma**2
    other_variance = backward.sigma**2
    weight = other_variance / (variance + other_variance).clamp(min=1e-12)
    position = weight * forward.position + (1 - weight) * backward.position
    tracks = forward.tracks
    return Tracks(box_convert(position, "cxcywh", "xyxy"), tracks.scores, tracks.labels, tracks.ids)


def _replace_rows(tracks: Tracks, observed: Tracks) -> Tracks:
    """`tracks`, sorted by id, with the boxes, scores and labels of those also in `observed` replaced by them."""
    observed = observed[observed.ids.argsort()]
    rows = torch.isin(tracks.ids, observed.ids)
    boxes = tracks.boxes.clone()
    scores = tracks.scores.clone()
    labels = tracks.labels.clone()
    boxes[rows] = observed.boxes
    scores[rows] = observed.scores
    labels[rows] = observed.labels
    return Tracks(boxes, scores, labels, tracks.ids)
