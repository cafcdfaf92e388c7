"""What each part is worth: python scripts/ablation.py, or make ablation. Trains every variant, prints one table."""

import subprocess
import sys
from pathlib import Path

import hydra
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from track.app.cli import refusing
from track.app.evaluate import print_figures
from track.evaluation.tracking import OVERALL

SCRIPTS = Path(__file__).parent
MOTIONS = {
    "GRU": ["cell=gru"],
    "LSTM": ["cell=lstm"],
    "RNN": ["cell=rnn"],
    "GRU of 32": ["model.hidden=32"],
    "GRU of 128": ["model.hidden=128"],
}
NETWORKS = {
    "learned association": [],
    "learned, on BYTE's episodes alone": ["data.on_policy=false"],
    "learned, no message passing": ["model.rounds=0"],
    "learned, 32 wide": ["model.hidden=32"],
    "learned, 128 wide": ["model.hidden=128"],
}


@hydra.main(version_base=None, config_path="../conf", config_name="ablation")
@refusing
def main(cfg: DictConfig) -> None:
    """Train, judge, print the table and write it as ablation.csv."""
    output = Path(str(cfg.output_dir))
    rows = {"Kalman, BYTE": judge(cfg, output / "kalman", ["tracker=kalman"])}
    motions = {name: trained(cfg, "motion", output / slug(name), options) for name, options in MOTIONS.items()}
    for name, weights in motions.items():
        rows[f"{name}, BYTE"] = judge(cfg, output / slug(name), ["tracker=byte", f"tracker.weights={weights}"])
    for name, options in NETWORKS.items():
        weights = trained(cfg, "association", output / slug(name), [f"model.motion={motions['GRU']}", *options])
        rows[f"GRU, {name}"] = judge(cfg, output / slug(name), ["tracker=gru", f"tracker.weights={weights}"])
    table = pd.DataFrame(rows).T.rename_axis("tracker")
    table.to_csv(output / "ablation.csv", float_format="%.2f")
    print_figures(table)
    print(output / "ablation.csv")


def trained(cfg: DictConfig, task: str, folder: Path, options: list[str]) -> Path:
    """The weights of a variant, which is trained unless it lies there."""
    file = folder / ("motion.safetensors" if task == "motion" else "gru.safetensors")
    if not file.is_file():
        call("train", [f"task={task}", *overrides(cfg.train), *overrides(cfg[task]), f"output_dir={folder}", *options])
    return file


def judge(cfg: DictConfig, folder: Path, options: list[str]) -> dict[str, float]:
    """HOTA and IDF1 of a tracker on everything it is judged by."""
    figures = {}
    for name, where in cfg.judge.items():
        file = folder / slug(name) / "metrics.csv"
        if not file.is_file():
            call("evaluate", [*overrides(where), f"output_dir={file.parent}", *options])
        row = pd.read_csv(file, index_col="sequence").loc[OVERALL]
        figures |= {f"{name} {metric}": float(row[metric]) for metric in ("HOTA", "IDF1")}
    return figures


def call(script: str, options: list[str]) -> None:
    """Run one of the commands, and show it. ValueError where it fails."""
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *options]
    print(" ".join(command), flush=True)
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"{script}: failed, see above; what was finished before is kept")


def overrides(settings: DictConfig, prefix: str = "") -> list[str]:
    """Hydra's command line for settings: a.b=c, and lists as [a,b]."""
    result = []
    for key, value in settings.items():
        if isinstance(value, DictConfig):
            result += overrides(value, f"{prefix}{key}.")
        else:
            text = f"[{','.join(map(str, value))}]" if OmegaConf.is_list(value) else value
            result.append(f"{prefix}{key}={'null' if text is None else text}")
    return result


def slug(name: str) -> str:
    """A folder's name."""
    return name.lower().replace(",", "").replace("'", "").replace(" ", "-")


if __name__ == "__main__":
    main()
