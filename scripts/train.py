"""Train the motion model or the detector: python scripts/train.py task=motion|detector data.root=DIR."""

import logging
import warnings
from pathlib import Path

import hydra
import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from refuse import refusing

from track.plot import plot_curves


@hydra.main(version_base=None, config_path="../conf", config_name="train")
@refusing
def main(cfg: DictConfig) -> None:
    """Fit what the task's config builds, export the best weights, draw the curves."""
    train(cfg)


def train(cfg: DictConfig) -> None:
    """Train by a composed config; prints where weights and curves are."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|torch")
    lightning.seed_everything(cfg.seed, verbose=False)
    output = Path(cfg.output_dir)
    checkpoint = resume_from(cfg.ckpt_path, output)
    data, model = instantiate(cfg.data, _convert_="all"), instantiate(cfg.model, _convert_="all")
    trainer = instantiate(cfg.trainer)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    best = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    model.load_state_dict(best["state_dict"])
    print(f"weights: {model.export(output)}")
    plot_curves(output / "metrics.csv", output / "curves.png")
    print(f"curves:  {output / 'curves.png'}")


def resume_from(ckpt_path: str | None, output: Path) -> str | None:
    """The checkpoint to go on from; "last" is the newest last.ckpt in or beside the run's folder."""
    if ckpt_path is None:
        return None
    if ckpt_path != "last":
        if not Path(ckpt_path).is_file():
            raise ValueError(f"{ckpt_path}: no such checkpoint")
        return ckpt_path
    found = [*output.glob("last.ckpt"), *output.parent.glob("*/last.ckpt")]
    if not found:
        raise ValueError(f"ckpt_path=last: no last.ckpt in {output} or beside it")
    return str(max(found, key=lambda file: file.stat().st_mtime))


if __name__ == "__main__":
    main()
