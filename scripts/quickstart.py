"""The whole pipeline, small and without a download: what `make demo` runs.

Draws street videos, trains the detector and the motion model on them, tracks held-out ones from pixels, scores them and
writes a video; then tracks the two real sequences that the motmetrics package carries, with both trackers.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import motmetrics
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from rich.console import Console

from track.app.console.options import CONFIGS
from track.app.demo import demo
from track.app.evaluate import print_figures, read_results, write_figures
from track.app.predict import predict
from track.app.train import train
from track.datasets.streets import make_dataset
from track.evaluation.tracking import evaluate_tracking
from track.formats.mot import find_sequences, write_info

OUTPUT = Path(__file__).parents[1] / "outputs" / "quickstart"
DETECTOR = [
    *("task=detector", "model.name=small_fcos", "model.weights=null", "model.learning_rate=4e-3"),
    *("data.batch_size=8", "data.stride=3", "data.val_fraction=0.1"),
    *("trainer.max_epochs=7", "trainer.check_val_every_n_epoch=7"),
]
MOTION = ["task=motion", "trainer.max_epochs=40", "trainer.check_val_every_n_epoch=40"]
REGIONS = ["lines={door: [160,240,160,140]}", "zones={queue: [[210,180],[310,180],[310,235],[210,235]]}"]
TUD = {"TUD-Campus": 71, "TUD-Stadtmitte": 179}  # frames


def main() -> None:
    """Five steps, each through the functions of its command."""
    start = time.perf_counter()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    print_step("1/5 draw street videos: 24 to train on, 3 held out")
    make_dataset(OUTPUT / "streets" / "train", sequences=24, frames=60, seed=0)
    held_out = make_dataset(OUTPUT / "streets" / "test", sequences=3, frames=150, seed=7)
    print_step("2/5 train the detector on their pixels, then the motion model on their trajectories")
    root = f"data.root={OUTPUT / 'streets' / 'train'}"
    train(config("train", "detector", root, *DETECTOR))
    train(config("train", "motion", root, *MOTION))
    trained = [
        f"detector.checkpoint={OUTPUT / 'detector' / 'detector.safetensors'}",
        f"tracker.weights={OUTPUT / 'motion' / 'motion.safetensors'}",
    ]
    print_step("3/5 track the held-out videos from pixels and score them")
    score(held_out, predict(config("predict", "tracks", f"source={held_out}", *trained)), OUTPUT / "metrics.csv")
    print_step("4/5 write a video of one, with a line and a zone to count people at")
    first = find_sequences(held_out)[0]
    demo(config("demo", "demo", f"source={first.path}", f"output={OUTPUT / 'tracks.mp4'}", *REGIONS, *trained))
    print_step("5/5 track two real sequences (TUD-Campus, TUD-Stadtmitte) with both trackers")
    real = real_sequences(OUTPUT / "real")
    for tracker in ("bytetrack", "gru"):
        options = f"source={real}", "detections=det/det.txt", f"tracker={tracker}"
        results = predict(config("predict", tracker, *options))
        print_step(f"    tracker={tracker}")
        score(real, results, results / "metrics.csv")
    print_step(f"\ndone in {time.perf_counter() - start:.0f} s; everything is in {OUTPUT}")
    print(WHAT_IS_THERE)


def config(name: str, folder: str, *options: str) -> DictConfig:
    """A command's config, its output below OUTPUT."""
    with initialize_config_module(CONFIGS, version_base=None):
        return compose(name, [*options, f"output_dir={OUTPUT / folder}"])


def score(root: Path, results: Path, file: Path) -> None:
    """Print and write the scores of every sequence below root."""
    pairs = {s.name: (s.truth(), read_results(results, s)) for s in find_sequences(root)}
    figures = evaluate_tracking(pairs)
    print_figures(figures)
    write_figures(figures, file)


def real_sequences(root: Path) -> Path:
    """Sequences of the ground truth and hypothesis boxes in motmetrics' package, the latter as detections."""
    for name, length in TUD.items():
        source, folder = Path(motmetrics.__file__).parent / "data" / name, root / name
        (folder / "gt").mkdir(parents=True)
        (folder / "det").mkdir()
        write_info(folder, frame_rate=25, length=length, width=640, height=480)
        shutil.copy(source / "gt.txt", folder / "gt" / "gt.txt")
        rows = [row.split(",") for row in (source / "test.txt").read_text().split()]
        detections = (",".join([row[0], "-1", *row[2:6], "1"]) + "\n" for row in rows)
        (folder / "det" / "det.txt").write_text("".join(detections))
    return root


WHAT_IS_THERE = """\
  tracks.mp4          the first held-out video with its tracks, plays in a browser
  demo/               trajectories.png, heatmap.png, and the line crossings (events.csv)
  metrics.csv         the scores of the held-out videos
  tracks/*.txt        their tracks, in MOTChallenge format
  detector/, motion/  weights, curves.png and metrics.csv of the two trainings
next:
  .venv/bin/grutrack demo source=YOUR_VIDEO.mp4 output=out.mp4 detector.name=fcos_mobilenet_v2_fpn
  .venv/bin/grutrack predict source=MOT17/train detections=det/yolox.txt output_dir=results
  .venv/bin/grutrack evaluate ground_truth=MOT17/train predictions=results"""


def print_step(text: str) -> None:
    """A heading."""
    Console().print(text, style="bold", highlight=False)


if __name__ == "__main__":
    main()
