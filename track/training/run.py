"""What every training run has: the learning rate over it, and random numbers that a resumed run draws as well."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler

Item = TypeVar("Item")


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: float = 0.1) -> LambdaLR:
    """A schedule of `steps` optimizer steps, of which the fraction `warmup` rises linearly.

    After the last step the rate stays zero, so that a resumed run may be longer than planned.
    """
    warmup_steps = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)


class RandomState(lightning.Callback):
    """Carries the state of every random generator in checkpoints: a run that is resumed at the end of an epoch is
    bit-equal to one that was not interrupted.

    The state is restored when the next epoch starts; `LazyDataLoader` draws nothing before.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state of the generators of Python, numpy, torch and each GPU, in types that `weights_only` loads."""
        kind, keys, *position = np.random.get_state(legacy=True)
        return {
            "python": random.getstate(),
            "numpy": (str(kind), np.asarray(keys).tolist(), *position),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take in the state of a checkpoint."""
        self._restored = state_dict

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore it, once."""
        state, self._restored = self._restored, None
        if state is None:
            return
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        torch.set_rng_state(state["torch"])
        if len(state["cuda"]) == torch.cuda.device_count():  # otherwise the run goes on with another machine's GPUs
            torch.cuda.set_rng_state_all(state["cuda"])


class SeededSampler(Sampler[tuple[int, int]]):
    """Indices below `count` in random order, each with a seed for its item: what is random is drawn in the process that
    trains, whose state checkpoints carry, and not in workers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order, seeds = torch.randperm(self.count), torch.randint(2**62, (self.count,))
        return zip(order.tolist(), seeds.tolist(), strict=True)


class LazyDataLoader(DataLoader[Item]):
    """A DataLoader whose order and seeds are drawn when its first batch is taken.

    Lightning makes iterators early, and in a resumed run at another moment and in another number.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()
