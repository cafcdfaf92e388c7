"""The learned motion model: a recurrent network that corrects the Kalman filter."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from track.checkpoint import WEIGHTS_FOLDER, load, save
from track.geometry import magnification
from track.tracking.motion import (
    KALMAN_SIZE,
    STEPS_PER_SECOND,
    Kalman,
    KalmanState,
    box_scale,
    corners_to_centre,
    move_points,
)

HISTORY = 40  # observations that a state remembers as they were
EMA_RATES = (0.1, 0.1, 0.1, 0.02, 0.02, 0.02)  # of the moving averages, for an observation of score 1
SHIPPED = WEIGHTS_FOLDER / "gru.safetensors"
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}

# names and widths of the columns that the cell and the head read, in order; lengths are relative to the box's size
CELL_FEATURES = {
    "displacement": 4,  # from the last observation, per step
    "innovation": 4,  # from the filter's prediction
    "normalised innovation": 4,  # in standard deviations
    "velocity": 4,  # the filter's
    "log steps": 1,
    "score": 1,
    "log aspect ratio": 1,
}
HEAD_FEATURES = {
    "time": 2,  # log1p(steps), exp(-steps)
    "lag": 4,  # of the filter's prediction behind the last observation, in standard deviations
    "velocity": 4,
    "log sigma": 4,
}
CELL_INPUTS = sum(CELL_FEATURES.values())
HEAD_INPUTS = sum(HEAD_FEATURES.values())


class RecurrentState(NamedTuple):
    """The columns of the state, for N tracks that remember H observations."""

    kalman: Tensor  # (N, KALMAN_SIZE) the filter's state
    ages: Tensor  # (N, H) seconds since each observation, newest first
    boxes: Tensor  # (N, H * 4) centre x, centre y, width and height of each observation, pixels
    averages: Tensor  # (N, 6) moving averages of `_size_and_foot`
    memory: Tensor  # (N, M) of the recurrent cell

    def pack(self) -> Tensor:
        """(N, S) the state that has these columns."""
        return torch.cat(self, 1)


class RecurrentMotion(nn.Module):
    """A recurrent network that corrects the Kalman filter: the motion model of this project.

    The cell reads each observation relative to the box's size and to the time since the previous observation, so that a
    missed frame is simply absent. The head reads the cell's memory at any later time. It moves the filter's prediction
    part of the way back to the last observation and by multiples of the filter's standard deviations, and rescales
    these. The head's last layer starts at zero: an untrained network is the Kalman filter exactly. Cells: GRU of Cho et
    al. (EMNLP 2014), LSTM of Hochreiter and Schmidhuber (1997), and the plain tanh network of Elman (1990).

    State (N, S): the columns of `RecurrentState`.
    """

    def __init__(
        self, cell: str = "gru", hidden: int = 64, dropout: float = 0.0, history_length: int = HISTORY
    ) -> None:
        """history_length: observations that a state remembers, at least 1. The motion model itself reads only the last
        one, association needs all of `HISTORY`. It is not saved with the weights.

        Raises ValueError unless `cell` is gru, lstm or rnn.
        """
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell}")
        self.options = {"cell": cell, "hidden": hidden, "dropout": dropout}
        self.kalman = Kalman()
        self.history_length = history_length
        self.memory_size = hidden * (2 if cell == "lstm" else 1)
        self.feature_size = len(EMA_RATES) + hidden + HEAD_INPUTS
        self.cell = CELLS[cell](CELL_INPUTS, hidden, batch_first=True)
        last = nn.Linear(64, 12)  # stay, shift and stretch of four coordinates, see `project`
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        drop = nn.Dropout(dropout)
        self.head = nn.Sequential(drop, nn.Linear(hidden + HEAD_INPUTS, 64), nn.SiLU(), drop, last)

    def extra_repr(self) -> str:
        """What the weights' shapes do not tell."""
        return f"history_length={self.history_length}"

    def unpack(self, state: Tensor) -> RecurrentState:
        """The columns of a state, as views. Raises RuntimeError if its width is not this model's."""
        history = self.history_length
        return RecurrentState(*state.split([KALMAN_SIZE, history, 4 * history, len(EMA_RATES), self.memory_size], 1))

    def initiate(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """See `Motion`; the history of a new track repeats its first box."""
        position = corners_to_centre(boxes)
        blank = RecurrentState(
            kalman=self.kalman.initiate(boxes, scores),
            ages=boxes.new_zeros(boxes.shape[0], self.history_length),
            boxes=position.repeat(1, self.history_length),
            averages=_size_and_foot(position),
            memory=boxes.new_zeros(boxes.shape[0], self.memory_size),
        )
        return self._observe(blank, position, scores, blank.kalman)

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """See `Motion`."""
        columns = self.unpack(state)
        kalman = self.kalman.predict(columns.kalman, elapsed)
        return columns._replace(kalman=kalman, ages=columns.ages + elapsed[:, None]).pack()

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """See `Motion`."""
        columns = self.unpack(state)
        kalman = self.kalman.update(columns.kalman, boxes, scores)
        return self._observe(columns, corners_to_centre(boxes), scores, kalman)

    def apply_camera_motion(self, state: Tensor, affine: Tensor) -> Tensor:
        """See `Motion`; the cell's memory is relative and does not change."""
        columns = self.unpack(state)
        zoom = magnification(affine)[..., None, None]  # (1, 1) or (N, 1, 1)
        boxes = columns.boxes.unflatten(1, (-1, 4))
        moved = torch.cat([move_points(affine, boxes[..., :2]), boxes[..., 2:] * zoom], 2)
        size, foot = columns.averages.unflatten(1, (2, 3)).split([2, 1], 2)
        x = boxes[:, :1, :1].expand_as(foot)
        foot = move_points(affine, torch.cat([x, foot], 2))[..., 1:]
        return columns._replace(
            kalman=self.kalman.apply_camera_motion(columns.kalman, affine),
            boxes=moved.flatten(1),
            averages=torch.cat([size + zoom.log(), foot], 2).flatten(1),
        ).pack()

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Motion`."""
        columns = self.unpack(state)
        position, sigma = self.kalman.project(columns.kalman)
        last = columns.boxes[:, :4]
        stay, shift, stretch = self.head(self._head_inputs(columns)).chunk(3, 1)
        moved = position + stay * (last - position) + shift * sigma
        return torch.cat([moved[:, :2], moved[:, 2:].clamp(min=1.0)], 1), sigma * stretch.clamp(-4, 4).exp()

    def history(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The last H observations, newest first; a track with fewer repeats its first one.

        Returns boxes (N, H, 4) as centre x, centre y, width, height, pixels, and ages (N, H), seconds.
        """
        columns = self.unpack(state)
        return columns.boxes.unflatten(1, (-1, 4)), columns.ages

    def track_features(self, state: Tensor, position: Tensor) -> Tensor:
        """(N, feature_size) what association reads of each track's state, relative to the track's size.

        position: (N, 4) as `project` returned it. The first `len(EMA_RATES)` columns are the moving averages less the
        same quantities of `position`.
        """
        columns = self.unpack(state)
        height = position[:, 3:].clamp(min=1.0)
        unit = torch.ones_like(height)
        scale = torch.cat([unit, unit, height], 1).repeat(1, 2)  # of the foot's y; the others are logarithms
        averages = (columns.averages - _size_and_foot(position)) / scale
        return torch.cat([averages, self._head_inputs(columns)], 1)

    def _observe(self, columns: RecurrentState, position: Tensor, scores: Tensor, kalman: Tensor) -> Tensor:
        """The state after an observation (N, 4) as centre x, centre y, width, height; kalman: the filter's own state
        after it."""
        rates = scores[:, None] * position.new_tensor(EMA_RATES)
        return RecurrentState(
            kalman=kalman,
            ages=torch.cat([torch.zeros_like(scores[:, None]), columns.ages[:, :-1]], 1),
            boxes=torch.cat([position, columns.boxes[:, :-4]], 1),
            averages=columns.averages + rates * (_size_and_foot(position) - columns.averages),
            memory=self._step_cell(self._cell_inputs(columns, position, scores), columns.memory),
        ).pack()

    def _cell_inputs(self, columns: RecurrentState, observed: Tensor, scores: Tensor) -> Tensor:
        """(N, CELL_INPUTS) an observation (N, 4) as the cell reads it: the columns of `CELL_FEATURES`."""
        kalman = KalmanState.unpack(columns.kalman)
        last = columns.boxes[:, :4]
        size = box_scale(last)
        steps = (columns.ages[:, :1] * STEPS_PER_SECOND).clamp(min=0.2)
        features = [
            10 * (observed - last) / size / steps,
            10 * (observed - kalman.position) / size,
            (observed - kalman.position) / kalman.sigma.clamp(min=1e-3),
            10 * kalman.velocity / size,
            steps.log(),
            scores[:, None],
            (size[:, :1] / size[:, 1:2]).log(),
        ]
        return torch.cat(features, 1).clamp(-5, 5)

    def _head_inputs(self, columns: RecurrentState) -> Tensor:
        """(N, hidden + HEAD_INPUTS) what the head reads: the cell's output and the columns of `HEAD_FEATURES`."""
        kalman = KalmanState.unpack(columns.kalman)
        last = columns.boxes[:, :4]
        size = box_scale(last)
        sigma = kalman.sigma.clamp(min=1e-3)
        steps = columns.ages[:, :1] * STEPS_PER_SECOND
        time = torch.cat([steps.log1p(), (-steps).exp()], 1)
        features = torch.cat(
            [time, (last - kalman.position) / sigma, kalman.velocity / size * 10, (sigma / size).log()], 1
        )
        return torch.cat([columns.memory[:, -self.cell.hidden_size :], features.clamp(-5, 5)], 1)

    def _step_cell(self, features: Tensor, memory: Tensor) -> Tensor:
        """(N, M) the cell's memory after one observation; an LSTM's is its cell state followed by its output."""
        if features.shape[0] == 0:  # which torch's cells refuse
            return memory
        if isinstance(self.cell, nn.LSTM):
            cell_state, output = (part.contiguous() for part in memory[None].chunk(2, 2))
            _, (output, cell_state) = self.cell(features[:, None], (output, cell_state))
            return torch.cat([cell_state, output], 2)[0]
        return self.cell(features[:, None], memory[None].contiguous())[1][0]


def _size_and_foot(position: Tensor) -> Tensor:
    """(N, 6) what changes slowly, to tell objects apart over time: log width, log height and the foot's y, pixels.

    The three columns come twice, for the faster and the slower moving average.
    """
    foot = position[:, 1:2] + position[:, 3:] / 2
    return torch.cat([position[:, 2:].clamp(min=1.0).log(), foot], 1).repeat(1, 2)


def save_motion(network: RecurrentMotion, path: Path) -> Path:
    """Write the motion model alone as safetensors; returns the path."""
    return save(path, {"motion": (network, network.options)})


def load_motion(path: str | Path | None = None, history_length: int = HISTORY) -> RecurrentMotion:
    """The motion model in a file of weights (default: the shipped one), frozen.

    history_length: see `RecurrentMotion`. Raises ValueError if the file has no motion model.
    """
    return load(path or SHIPPED, "motion", partial(RecurrentMotion, history_length=history_length))[0]
