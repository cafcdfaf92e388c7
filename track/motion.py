"""Where a track will be: motion models, stateless, for all tracks at once.

A state is one float32 tensor with a row a track, so that birth is concatenation and death is a mask. Models take and
return it, and training calls the same functions as tracking.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from track.checkpoint import load, save

STEPS_PER_SECOND = 30.0  # noise is stated per step of 1/30 s, the frame rate that trackers are tuned at
FEATURES, CONTEXT = 19, 14  # columns that the recurrent cell and its head read
SLOW_RATES = 0.1, 0.1, 0.1, 0.02, 0.02, 0.02  # of the slow averages of `_looks`, an observation of score 1
PAST = 40  # observations that are kept as they were
SHIPPED = Path(__file__).parent / "weights" / "gru.safetensors"


class Motion(Protocol):
    """What a tracker asks of a motion model. N tracks, states (N, S)."""

    def start(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """States of new tracks from their first boxes (N, 4) xyxy and scores (N,)."""
        ...

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """States moved on by `elapsed` (N,) seconds, without an observation."""
        ...

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """States after an observation: boxes (N, 4) xyxy and scores (N,)."""
        ...

    def warp(self, state: Tensor, camera: Tensor) -> Tensor:
        """States in the pixels of the next frame; camera is a (2, 3) affine from the previous one's."""
        ...

    def locate(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Where the state has the boxes now: (N, 4) centre x, centre y, width, height and their deviations, pixels."""
        ...


class Kalman:
    """Constant velocity of centre, width and height, each filtered on its own: the baseline of every tracker here.

    The noise is proportional to the box's size as in Wojke et al., "Simple Online and Realtime Tracking with a Deep
    Association Metric" (ICIP 2017), on width and height as in Aharon et al., "BoT-SORT" (2022). Because noise and
    dynamics do not mix the four coordinates, the 8x8 filter falls apart into four of 2x2, which are computed in closed
    form. Process noise is that of a velocity in Brownian motion, so that two short steps equal one long one.

    State (N, 4 * 5): per coordinate (x, y, w, h) position, velocity a step, and var(p), cov(p, v), var(v).
    """

    size = 20

    def __init__(self, position_noise: float = 1 / 20, velocity_noise: float = 1 / 160) -> None:
        """Standard deviations as fractions of the box's size, a step of 1/30 s."""
        self.position_noise, self.velocity_noise = position_noise, velocity_noise

    def start(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """A standing track, uncertain of its velocity; see `Motion`."""
        position = box_convert(boxes, "xyxy", "cxcywh")
        size = _size(position)
        zero = torch.zeros_like(position)
        variances = (2 * self.position_noise * size) ** 2, zero, (10 * self.velocity_noise * size) ** 2
        return torch.stack([position, zero, *variances], 2).flatten(1)

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """See `Motion`."""
        p, v, pp, pv, vv = state[:, : self.size].unflatten(1, (4, 5)).unbind(2)
        steps = elapsed[:, None] * STEPS_PER_SECOND
        size = _size(p)
        q = (self.velocity_noise * size) ** 2
        pp = pp + 2 * steps * pv + steps**2 * vv + steps * (self.position_noise * size) ** 2 + steps**3 / 3 * q
        pv = pv + steps * vv + steps**2 / 2 * q
        return torch.stack([p + steps * v, v, pp, pv, vv + steps * q], 2).flatten(1)

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """See `Motion`."""
        p, v, pp, pv, vv = state[:, : self.size].unflatten(1, (4, 5)).unbind(2)
        noise = (self.position_noise * _size(p)) ** 2
        innovation = box_convert(boxes, "xyxy", "cxcywh") - p
        gain_p, gain_v = pp / (pp + noise), pv / (pp + noise)
        columns = (
            p + gain_p * innovation,
            v + gain_v * innovation,
            pp * (1 - gain_p),
            pv * (1 - gain_p),
            vv - gain_v * pv,
        )
        return torch.stack(columns, 2).flatten(1)

    def warp(self, state: Tensor, camera: Tensor) -> Tensor:
        """See `Motion`; sizes and uncertainty follow the affine's mean magnification, its small rotation is ignored."""
        table = state[:, : self.size].unflatten(1, (4, 5)).clone()
        zoom = torch.linalg.det(camera[:, :2]).abs().sqrt()
        table[:, :2, :2] = torch.einsum("ij,njk->nik", camera[:, :2], table[:, :2, :2])
        table[:, :2, 0] += camera[:, 2]
        table[:, 2:, :2] *= zoom
        table[:, :, 2:] *= zoom**2
        return table.flatten(1)

    def locate(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Motion`."""
        return state[:, 0 : self.size : 5], state[:, 2 : self.size : 5].clamp(min=0).sqrt()


def _size(position: Tensor) -> Tensor:
    """(N, 4) the width and height that each of centre x, centre y, width and height is measured in, pixels."""
    return position[:, [2, 3, 2, 3]].clamp(min=1.0)


CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


class Recurrent(nn.Module):
    """A recurrent network that corrects the Kalman filter: the motion model of this project.

    It reads every observation relative to the box's size and to the time since the one before, so that a missed frame
    is simply absent. Its head reads the memory at any later time and moves the filter's prediction, part of the way
    back to the last observation and by so many of the filter's standard deviations, which it also rescales. The head's
    last layer starts at zero: an untrained network is the Kalman filter exactly. Cells: GRU of Cho et al. (EMNLP 2014),
    LSTM of Hochreiter and Schmidhuber (1997), and the plain tanh network of Elman (1990).

    State (N, S), the columns of `parts`: the filter's 20, seconds since the last observation, the ages of the last
    `kept` and their (x, y, w, h), slow averages of log width, log height and the feet's y, and the cell's memory.
    """

    def __init__(self, cell: str = "gru", hidden: int = 64, dropout: float = 0.0) -> None:
        """ValueError where `cell` is not gru, lstm or rnn."""
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell}")
        self.options = {"cell": cell, "hidden": hidden, "dropout": dropout}
        self.kalman = Kalman()
        self.kept = PAST  # observations: association reads all of them, training the motion model only the last
        self.memory = hidden * (2 if cell == "lstm" else 1)
        self.described = len(SLOW_RATES) + hidden + CONTEXT
        self.cell = CELLS[cell](FEATURES, hidden, batch_first=True)
        last = nn.Linear(64, 12)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        drop = nn.Dropout(dropout)
        self.head = nn.Sequential(drop, nn.Linear(hidden + CONTEXT, 64), nn.SiLU(), drop, last)

    @property
    def parts(self) -> list[int]:
        """How many columns of a state hold what; see above."""
        return [Kalman.size, 1, self.kept, 4 * self.kept, len(SLOW_RATES), self.memory]

    def start(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """See `Motion`."""
        filtered = self.kalman.start(boxes, scores)
        last = box_convert(boxes, "xyxy", "cxcywh")
        ages, empty = boxes.new_zeros(len(boxes), 1 + self.kept), boxes.new_zeros(len(boxes), self.memory)
        blank = torch.cat([filtered, ages, last.repeat(1, self.kept), _looks(last), empty], 1)
        return self.update(blank, boxes, scores, filtered)

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """See `Motion`."""
        filtered, ages, rest = state.tensor_split([Kalman.size, Kalman.size + 1 + self.kept], 1)
        return torch.cat([self.kalman.predict(filtered, elapsed), ages + elapsed[:, None], rest], 1)

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor, filtered: Tensor | None = None) -> Tensor:
        """See `Motion`; `filtered` replaces the filter's own update."""
        _, _, ages, past, slow, memory = state.split(self.parts, 1)
        memory = self._read(self._features(state, boxes, scores), memory)
        filtered = self.kalman.update(state, boxes, scores) if filtered is None else filtered
        last = box_convert(boxes, "xyxy", "cxcywh")
        slow = slow + scores[:, None] * slow.new_tensor(SLOW_RATES) * (_looks(last) - slow)
        ages, past = torch.cat([ages.new_zeros(len(ages), 2), ages[:, :-1]], 1), torch.cat([last, past[:, :-4]], 1)
        return torch.cat([filtered, ages, past, slow, memory], 1)

    def warp(self, state: Tensor, camera: Tensor) -> Tensor:
        """See `Motion`; the cell's memory is relative and stays."""
        filtered, since, ages, past, slow, memory = state.split(self.parts, 1)
        zoom = torch.linalg.det(camera[:, :2]).abs().sqrt()
        boxes = past.unflatten(1, (self.kept, 4))
        past = torch.cat([boxes[..., :2] @ camera[:, :2].T + camera[:, 2], boxes[..., 2:] * zoom], 2).flatten(1)
        shape, feet = slow.unflatten(1, (2, 3)).tensor_split([2], 2)
        feet = camera[1, 0] * boxes[:, :1, :1] + camera[1, 1] * feet + camera[1, 2]
        slow = torch.cat([shape + zoom.log(), feet], 2).flatten(1)
        return torch.cat([self.kalman.warp(filtered, camera), since, ages, past, slow, memory], 1)

    def locate(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Motion`."""
        position, sigma = self.kalman.locate(state)
        last = self.past(state)[0][:, 0]
        stay, shift, stretch = self.head(self._context(state)).chunk(3, 1)
        moved = position + stay * (last - position) + shift * sigma
        return torch.cat([moved[:, :2], moved[:, 2:].clamp(min=1.0)], 1), sigma * stretch.clamp(-4, 4).exp()

    def past(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The last observations, newest first: boxes (N, PAST, 4) as centre x, y, width, height, ages (N, PAST) in
        seconds. Of a younger track the first is repeated."""
        _, _, ages, past, _, _ = state.split(self.parts, 1)
        return past.unflatten(1, (self.kept, 4)), ages

    def describe(self, state: Tensor, position: Tensor) -> Tensor:
        """(N, described) what is remembered of each track, relative to its size: what association reads. The first six
        columns are the slow averages' distance from `position` (N, 4), what `locate` said.
        """
        apart = state.split(self.parts, 1)[4] - _looks(position)
        apart[:, 2::3] /= position[:, 3:].clamp(min=1.0)
        return torch.cat([apart, self._context(state)], 1)

    def _features(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """(N, FEATURES) an observation as the cell reads it, relative to size and elapsed time."""
        filtered, since, _, past, *_ = state.split(self.parts, 1)
        (position, sigma), velocity, last = self.kalman.locate(filtered), filtered[:, 1::5], past[:, :4]
        seen, size = box_convert(boxes, "xyxy", "cxcywh"), _size(last)
        steps = (since * STEPS_PER_SECOND).clamp(min=0.2)
        surprise = (seen - position) / sigma.clamp(min=1e-3)
        columns = [10 * (seen - last) / size / steps, 10 * (seen - position) / size, surprise, 10 * velocity / size]
        shape = (size[:, :1] / size[:, 1:2]).log()
        return torch.cat([*columns, steps.log(), scores[:, None], shape], 1).clamp(-5, 5)

    def _context(self, state: Tensor) -> Tensor:
        """(N, hidden + CONTEXT) what the head reads: the memory, elapsed time and the filter's own prediction."""
        filtered, since, _, past, _, memory = state.split(self.parts, 1)
        (position, sigma), velocity = self.kalman.locate(filtered), filtered[:, 1::5]
        last = past[:, :4]
        size = _size(last)
        sigma = sigma.clamp(min=1e-3)
        steps = since * STEPS_PER_SECOND
        time = torch.cat([steps.log1p(), (-steps).exp()], 1)
        context = torch.cat([time, (last - position) / sigma, velocity / size * 10, (sigma / size).log()], 1)
        return torch.cat([memory[:, -self.cell.hidden_size :], context.clamp(-5, 5)], 1)

    def _read(self, features: Tensor, memory: Tensor) -> Tensor:
        """(N, H) the cell's memory after one observation."""
        if not len(features):
            return memory
        if isinstance(self.cell, nn.LSTM):
            long, short = (part.contiguous() for part in memory[None].chunk(2, 2))
            _, (short, long) = self.cell(features[:, None], (short, long))
            return torch.cat([long, short], 2)[0]
        return self.cell(features[:, None], memory[None].contiguous())[1][0]


def _looks(position: Tensor) -> Tensor:
    """(N, 6) what tells people apart for long: log width, log height and the feet's y, pixels; all of it twice."""
    feet = position[:, 1:2] + position[:, 3:] / 2
    return torch.cat([position[:, 2:].clamp(min=1.0).log(), feet], 1).repeat(1, 2)


def save_motion(network: Recurrent, path: Path) -> Path:
    """Write the motion model alone as safetensors; returns the path."""
    return save(path, {"motion": (network, network.options)})


def load_motion(path: str | Path | None = None) -> Recurrent:
    """The motion model in a file of weights (default: the shipped one). ValueError where there is none in it."""
    return load(path or SHIPPED, "motion", Recurrent)[0]
