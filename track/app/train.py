"""grutrack train: the motion model, the association or a detector."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from omegaconf import DictConfig
from pandas.errors import EmptyDataError
from torch.multiprocessing.spawn import ProcessRaisedException

from track.app.console.cli import command, instantiate, reason_of
from track.app.console.outputs import check_outputs
from track.checkpoint import atomic_write
from track.evaluation.plots import plot_curves

CURVES = "metrics.csv"
EARLIER_CURVES = "metrics-earlier.csv"  # while a resumed run goes on; CSVLogger deletes the file of before
MODEL_FILES = ("weights", "checkpoint", "motion", "backbone")  # options of a model that may name a file
SEVERAL_PROCESSES = "ddp_spawn_find_unused_parameters_true"  # spawned: Lightning cannot start this program again


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their final names and renames them: Lightning's pass through the temporary folder, and
    where that is on another device, they are not replaced at once."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, or leave the old one."""
        with atomic_write(Path(path)) as temporary:
            content = BytesIO()
            torch.save(checkpoint, content)  # to a file, it answers a full disk with an error of its own
            temporary.write_bytes(content.getbuffer())


@command("train")
def main(cfg: DictConfig) -> None:
    """Fit what the task's config builds, export the best weights, draw the curves."""
    train(cfg)


def train(cfg: DictConfig) -> None:
    """Train by a composed config; prints where weights and curves are."""
    for name in ("lightning.pytorch", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch")
    lightning.seed_everything(cfg.seed, verbose=False)
    output = Path(str(cfg.output_dir))
    checkpoint = resume_from(cfg.ckpt_path, output)
    curves, earlier = output / CURVES, earlier_curves(checkpoint)
    data, model = instantiate(cfg.data), instantiate(cfg.model)
    strategy = {} if cfg.trainer.devices == 1 else {"strategy": SEVERAL_PROCESSES}
    check_outputs([output / model.exported], [cfg.model.get(key) for key in MODEL_FILES], overwrite=True)
    trainer = instantiate(cfg.trainer, plugins=[AtomicCheckpoints()], **strategy)
    if trainer.world_size > getattr(data, "max_devices", math.inf):
        raise ValueError(f"trainer.devices: expected at most {data.max_devices} with this task")
    (output / EARLIER_CURVES).unlink(missing_ok=True)
    if len(earlier):
        write_csv(earlier, output / EARLIER_CURVES)
    interrupt: BaseException | None = None
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C and SIGTERM
        interrupt = stop.__context__ or KeyboardInterrupt()
    except ProcessRaisedException as error:  # its last line is another process's error
        raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error
    finally:  # Lightning started the file again
        join_curves(output)
    best = trainer.checkpoint_callback.best_model_path
    if best:
        model.load_state_dict(torch.load(best, weights_only=True)["state_dict"])
    elif interrupt is None:
        raise ValueError("no checkpoint was saved: train longer, or set monitor=null if nothing is held out")
    if best or trainer.global_step:
        print(f"weights: {model.export(output)}")
    if interrupt is not None:
        raise interrupt
    if not curves.is_file():
        return  # fewer steps than trainer.log_every_n_steps, and nothing was held out
    plot_curves(curves, output / "curves.png")
    print(f"curves:  {output / 'curves.png'}")


def earlier_curves(checkpoint: str | None) -> pd.DataFrame:
    """The curves up to the epoch of a checkpoint, of the run that wrote it; empty without a checkpoint."""
    if checkpoint is None:
        return pd.DataFrame()
    last_epoch = torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"]
    curves = read_curves(Path(checkpoint).parent)
    return curves if curves.empty else curves[curves["epoch"] <= last_epoch]


def read_curves(folder: Path) -> pd.DataFrame:
    """The curves in a folder, those before it was last resumed too; empty if there are none."""
    tables = []
    for name in (EARLIER_CURVES, CURVES):
        with suppress(OSError, EmptyDataError):
            tables.append(pd.read_csv(folder / name, float_precision="round_trip"))
    return pd.concat(tables, ignore_index=True).drop_duplicates() if tables else pd.DataFrame()


def join_curves(folder: Path) -> None:
    """Put the curves before and after a resumption into one file."""
    if (folder / EARLIER_CURVES).is_file():
        write_csv(read_curves(folder), folder / CURVES)
        (folder / EARLIER_CURVES).unlink()


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table, or leave the old file."""
    with atomic_write(file) as temporary:
        table.to_csv(temporary, index=False)


def resume_from(ckpt_path: str | None, output: Path) -> str | None:
    """The checkpoint to resume from; "last": output_dir's last.ckpt, else the newest of a sibling run."""
    if ckpt_path is None:
        return None
    if ckpt_path == "last":
        found = list(output.glob("last.ckpt")) or list(output.parent.glob("*/last.ckpt"))
        if not found:
            raise ValueError(f"ckpt_path=last: no last.ckpt in {output} or beside it")
        ckpt_path = str(max(found, key=lambda file: file.stat().st_mtime))
    try:
        torch.load(ckpt_path, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = reason_of(error)
        raise ValueError(f"{ckpt_path}: expected a checkpoint as grutrack train writes it ({reason})") from error
    return ckpt_path
