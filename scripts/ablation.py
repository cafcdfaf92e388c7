"""Ablation: train and evaluate every variant of the model, and print one table.

python scripts/ablation.py, or make ablation; options are in conf/ablation.yaml. An interrupted run is resumed: what is
in the output folder is not computed again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from track.app.console.cli import command
from track.app.evaluate import print_figures
from track.evaluation.tracking import OVERALL

# Options of `grutrack train` by variant. Weights are kept in a folder of the variant's name.
MOTIONS = {
    "GRU": ["cell=gru"],
    "LSTM": ["cell=lstm"],
    "RNN": ["cell=rnn"],
    "GRU of 32": ["model.hidden=32"],
    "GRU of 128": ["model.hidden=128"],
}
ASSOCIATIONS = {
    "learned association": [],
    "learned, on BYTE's episodes only": ["data.on_policy=false"],
    "learned, no message passing": ["model.rounds=0"],
    "learned, 32 wide": ["model.hidden=32"],
    "learned, 128 wide": ["model.hidden=128"],
}
WEIGHTS = {"motion": "motion.safetensors", "association": "gru.safetensors"}  # by task
METRICS = ("HOTA", "IDF1")


@command("ablation")
def main(cfg: DictConfig) -> None:
    """Train, evaluate, print the table and write it as ablation.csv."""
    output = Path(str(cfg.output_dir))
    rows = {"Kalman, BYTE": evaluate(cfg, output / "kalman", ["tracker=bytetrack"])}
    motions = {name: train(cfg, "motion", output / slug(name), options) for name, options in MOTIONS.items()}
    for name, weights in motions.items():
        rows[f"{name}, BYTE"] = evaluate(cfg, output / slug(name), ["tracker=gru_byte", f"tracker.weights={weights}"])
    for name, options in ASSOCIATIONS.items():
        folder = output / slug(name)
        weights = train(cfg, "association", folder, [f"model.motion={motions['GRU']}", *options])
        rows[f"GRU, {name}"] = evaluate(cfg, folder, ["tracker=gru", f"tracker.weights={weights}"])
    table = pd.DataFrame(rows).T.rename_axis("tracker")
    table.to_csv(output / "ablation.csv", float_format="%.2f")
    print_figures(table)
    print(output / "ablation.csv")


def train(cfg: DictConfig, task: str, folder: Path, options: list[str]) -> Path:
    """The weights of a variant, which is trained unless they exist."""
    file = folder / WEIGHTS[task]
    if not file.is_file():
        run("train", [f"task={task}", *overrides(cfg.train), *overrides(cfg[task]), f"output_dir={folder}", *options])
    return file


def evaluate(cfg: DictConfig, folder: Path, options: list[str]) -> dict[str, float]:
    """HOTA and IDF1 of a tracker on every data set of `cfg.evaluate`, each evaluated unless its figures exist."""
    figures = {}
    for name, dataset in cfg.evaluate.items():
        file = folder / slug(name) / "metrics.csv"
        if not file.is_file():
            run("evaluate", [*overrides(dataset), f"output_dir={file.parent}", *options])
        overall = pd.read_csv(file, index_col="sequence").loc[OVERALL]
        figures |= {f"{name} {metric}": float(overall[metric]) for metric in METRICS}
    return figures


def run(name: str, options: list[str]) -> None:
    """Print and run a command of grutrack in a process of its own. Raises ValueError where it fails."""
    arguments = [sys.executable, "-m", "track", name, *options]
    print(" ".join(arguments), flush=True)
    if subprocess.run(arguments, check=False).returncode:
        raise ValueError(f"{name}: failed, see above; finished variants are kept")


def overrides(settings: DictConfig, prefix: str = "") -> list[str]:
    """Hydra's command-line options for settings: a.b=c, with lists as [a,b]."""
    options = []
    for key, value in settings.items():
        if isinstance(value, DictConfig):
            options += overrides(value, f"{prefix}{key}.")
        else:
            text = f"[{','.join(map(str, value))}]" if OmegaConf.is_list(value) else value
            options.append(f"{prefix}{key}={'null' if text is None else text}")
    return options


def slug(name: str) -> str:
    """The name of a variant's folder."""
    return name.lower().replace(",", "").replace("'", "").replace(" ", "-")


if __name__ == "__main__":
    main()
