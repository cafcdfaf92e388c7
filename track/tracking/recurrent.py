"""The learned motion model: a recurrent network that corrects the Kalman filter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from track.checkpoint import load, save
from track.geometry import magnification
from track.tracking.motion import STEPS_PER_SECOND, Kalman, box_scale

CELL_INPUTS, HEAD_INPUTS = 19, 14  # columns that the recurrent cell and its head read
EMA_RATES = 0.1, 0.1, 0.1, 0.02, 0.02, 0.02  # of the slow averages of `_looks`, an observation of score 1
HISTORY = 40  # observations that are kept as they were
SHIPPED = Path(__file__).parents[1] / "weights" / "gru.safetensors"
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


class RecurrentMotion(nn.Module):
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
        self.history_length = (
            HISTORY  # observations: association reads all of them, training the motion model only the last
        )
        self.memory = hidden * (2 if cell == "lstm" else 1)
        self.feature_size = len(EMA_RATES) + hidden + HEAD_INPUTS
        self.cell = CELLS[cell](CELL_INPUTS, hidden, batch_first=True)
        last = nn.Linear(64, 12)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        drop = nn.Dropout(dropout)
        self.head = nn.Sequential(drop, nn.Linear(hidden + HEAD_INPUTS, 64), nn.SiLU(), drop, last)

    @property
    def parts(self) -> list[int]:
        """How many columns of a state hold what; see above."""
        return [Kalman.size, 1, self.history_length, 4 * self.history_length, len(EMA_RATES), self.memory]

    def initiate(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """See `Motion`."""
        filtered = self.kalman.initiate(boxes, scores)
        last = box_convert(boxes, "xyxy", "cxcywh")
        ages, empty = boxes.new_zeros(len(boxes), 1 + self.history_length), boxes.new_zeros(len(boxes), self.memory)
        blank = torch.cat([filtered, ages, last.repeat(1, self.history_length), _looks(last), empty], 1)
        return self.update(blank, boxes, scores, filtered)

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """See `Motion`."""
        filtered, ages, rest = state.tensor_split([Kalman.size, Kalman.size + 1 + self.history_length], 1)
        return torch.cat([self.kalman.predict(filtered, elapsed), ages + elapsed[:, None], rest], 1)

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor, filtered: Tensor | None = None) -> Tensor:
        """See `Motion`; `filtered` replaces the filter's own update."""
        _, _, ages, past, slow, memory = state.split(self.parts, 1)
        memory = self._read(self._features(state, boxes, scores), memory)
        filtered = self.kalman.update(state, boxes, scores) if filtered is None else filtered
        last = box_convert(boxes, "xyxy", "cxcywh")
        slow = slow + scores[:, None] * slow.new_tensor(EMA_RATES) * (_looks(last) - slow)
        ages, past = torch.cat([ages.new_zeros(len(ages), 2), ages[:, :-1]], 1), torch.cat([last, past[:, :-4]], 1)
        return torch.cat([filtered, ages, past, slow, memory], 1)

    def apply_camera_motion(self, state: Tensor, affine: Tensor) -> Tensor:
        """See `Motion`; the cell's memory is relative and stays."""
        filtered, since, ages, past, slow, memory = state.split(self.parts, 1)
        zoom = magnification(affine)
        boxes = past.unflatten(1, (self.history_length, 4))
        past = torch.cat([boxes[..., :2] @ affine[:, :2].T + affine[:, 2], boxes[..., 2:] * zoom], 2).flatten(1)
        shape, feet = slow.unflatten(1, (2, 3)).tensor_split([2], 2)
        feet = affine[1, 0] * boxes[:, :1, :1] + affine[1, 1] * feet + affine[1, 2]
        slow = torch.cat([shape + zoom.log(), feet], 2).flatten(1)
        return torch.cat([self.kalman.apply_camera_motion(filtered, affine), since, ages, past, slow, memory], 1)

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Motion`."""
        position, sigma = self.kalman.project(state)
        last = self.history(state)[0][:, 0]
        stay, shift, stretch = self.head(self._context(state)).chunk(3, 1)
        moved = position + stay * (last - position) + shift * sigma
        return torch.cat([moved[:, :2], moved[:, 2:].clamp(min=1.0)], 1), sigma * stretch.clamp(-4, 4).exp()

    def history(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The last observations, newest first: boxes (N, HISTORY, 4) as centre x, y, width, height, ages (N, HISTORY) in
        seconds. Of a younger track the first is repeated."""
        _, _, ages, past, _, _ = state.split(self.parts, 1)
        return past.unflatten(1, (self.history_length, 4)), ages

    def track_features(self, state: Tensor, position: Tensor) -> Tensor:
        """(N, feature_size) what is remembered of each track, relative to its size: what association reads. The first six
        columns are the slow averages' distance from `position` (N, 4), what `project` said.
        """
        apart = state.split(self.parts, 1)[4] - _looks(position)
        apart[:, 2::3] /= position[:, 3:].clamp(min=1.0)
        return torch.cat([apart, self._context(state)], 1)

    def _features(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """(N, CELL_INPUTS) an observation as the cell reads it, relative to size and elapsed time."""
        filtered, since, _, past, *_ = state.split(self.parts, 1)
        (position, sigma), velocity, last = self.kalman.project(filtered), filtered[:, 1::5], past[:, :4]
        seen, size = box_convert(boxes, "xyxy", "cxcywh"), box_scale(last)
        steps = (since * STEPS_PER_SECOND).clamp(min=0.2)
        surprise = (seen - position) / sigma.clamp(min=1e-3)
        columns = [10 * (seen - last) / size / steps, 10 * (seen - position) / size, surprise, 10 * velocity / size]
        shape = (size[:, :1] / size[:, 1:2]).log()
        return torch.cat([*columns, steps.log(), scores[:, None], shape], 1).clamp(-5, 5)

    def _context(self, state: Tensor) -> Tensor:
        """(N, hidden + HEAD_INPUTS) what the head reads: the memory, elapsed time and the filter's own prediction."""
        filtered, since, _, past, _, memory = state.split(self.parts, 1)
        (position, sigma), velocity = self.kalman.project(filtered), filtered[:, 1::5]
        last = past[:, :4]
        size = box_scale(last)
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


def save_motion(network: RecurrentMotion, path: Path) -> Path:
    """Write the motion model alone as safetensors; returns the path."""
    return save(path, {"motion": (network, network.options)})


def load_motion(path: str | Path | None = None) -> RecurrentMotion:
    """The motion model in a file of weights (default: the shipped one). ValueError where there is none in it."""
    return load(path or SHIPPED, "motion", RecurrentMotion)[0]
