"""The whole pipeline, small and without a download: what `make demo` runs.

Draws street videos, trains the detector and the GRU on them, tracks held-out ones from pixels, scores them, writes a
video and a picture; then tracks the two real sequences that the motmetrics package carries, with both trackers.
"""

import shutil
import time
from pathlib import Path

import motmetrics
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console

from track.app.demo import demo
from track.app.evaluate import print_figures, read_results, write_figures
from track.app.predict import predict
from track.app.train import train
from track.datasets.streets import make_dataset
from track.evaluation.tracking import Pairs, evaluate_tracking
from track.formats.mot import find_sequences

HOME = Path(__file__).parent.parent
OUT = HOME / "outputs" / "walkthrough"
INI = "[Sequence]\nname={0}\nframeRate=25\nseqLength={1}\nimWidth=640\nimHeight=480\n"
SMALL = ["model.name=small_fcos", "model.weights=null", "model.learning_rate=4e-3", "data.batch_size=8"]
SHORT = ["trainer.max_epochs=7", "trainer.check_val_every_n_epoch=7", "data.every=3", "data.val_fraction=0.1"]
BORDERS = ["lines={door: [160,240,160,140]}", "zones={queue: [[210,180],[310,180],[310,235],[210,235]]}"]
MOTION = ["trainer.max_epochs=40", "trainer.check_val_every_n_epoch=40"]


def main() -> None:
    """Five steps, each through the same functions as its command."""
    began = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    say("1/5 draw street videos: 24 to train on, 3 held out")
    make_dataset(OUT / "streets" / "train", sequences=24, frames=60, seed=0)
    make_dataset(OUT / "streets" / "test", sequences=3, frames=150, seed=7)
    say("2/5 train the detector on their pixels, then the GRU on their trajectories")
    data = f"data.root={OUT / 'streets' / 'train'}"
    train(config("train", "detector", "task=detector", data, *SMALL, *SHORT))
    train(config("train", "motion", "task=motion", data, *MOTION))
    trained = [
        f"detector.checkpoint={OUT / 'detector' / 'detector.safetensors'}",
        f"tracker.weights={OUT / 'motion' / 'motion.safetensors'}",
    ]
    say("3/5 track the held-out videos from pixels and score them")
    source = f"source={OUT / 'streets' / 'test'}"
    pixels(predict(config("predict", "tracks", source, *trained)))
    say("4/5 draw a video of one, with a line and a zone to count people")
    first = find_sequences(OUT / "streets" / "test")[0]
    video = f"output={OUT / 'tracks.mp4'}"
    demo(config("demo", "demo", f"source={first.path / 'img1'}", video, *BORDERS, *trained))
    say("5/5 track two real sequences (TUD-Campus, TUD-Stadtmitte) with both trackers")
    real = real_sequences(OUT / "real")
    for tracker in ("kalman", "gru"):
        found = predict(config("predict", tracker, f"source={real}", "detections=det/det.txt", f"tracker={tracker}"))
        say(f"    tracker={tracker}")
        print_figures(evaluate_tracking(pairs(real, found)))
    farewell(time.perf_counter() - began)


def config(name: str, folder: str, *overrides: str) -> DictConfig:
    """A command's config, its output below OUT."""
    with initialize_config_dir(str(HOME / "conf"), version_base=None):
        return compose(name, [*overrides, f"output_dir={OUT / folder}"])


def pixels(predictions: Path) -> None:
    """Print and keep the scores of the held-out videos."""
    figures = evaluate_tracking(pairs(OUT / "streets" / "test", predictions))
    print_figures(figures)
    write_figures(figures, OUT / "metrics.csv")


def real_sequences(root: Path) -> Path:
    """Sequences of the ground truth and hypothesis boxes in motmetrics' package, the latter as detections."""
    for name, length in (("TUD-Campus", 71), ("TUD-Stadtmitte", 179)):
        source, folder = Path(motmetrics.__file__).parent / "data" / name, root / name
        (folder / "gt").mkdir(parents=True)
        (folder / "det").mkdir()
        (folder / "seqinfo.ini").write_text(INI.format(name, length))
        shutil.copy(source / "gt.txt", folder / "gt" / "gt.txt")
        rows = [row.split(",") for row in (source / "test.txt").read_text().split()]
        (folder / "det" / "det.txt").write_text("".join(",".join([r[0], "-1", *r[2:6], "1"]) + "\n" for r in rows))
    return root


def pairs(root: Path, folder: Path) -> Pairs:
    """Ground truth and results of every sequence below root."""
    return {s.name: (s.truth(), read_results(folder, s)) for s in find_sequences(root)}


def farewell(seconds: float) -> None:
    """Where everything is, and what to try next."""
    say(f"\ndone in {seconds:.0f} s; everything is in {OUT}")
    print(
        "  tracks.mp4          the first held-out video with its tracks, plays in a browser\n"
        "  demo/               where everybody went (trajectories.png, heatmap.png), who crossed the line (events)\n"
        "  metrics.csv         the scores of the held-out videos\n"
        "  tracks/*.txt        the tracks, in MOTChallenge format\n"
        "  detector/, motion/  weights, curves.png, metrics.csv of the two trainings\n"
        "next:\n"
        "  .venv/bin/python scripts/demo.py source=YOUR_VIDEO.mp4 output=out.mp4 detector=fcos_mobilenet_v2\n"
        "  .venv/bin/python scripts/predict.py source=MOT17/train detections=det/yolox.txt output_dir=results\n"
        "  .venv/bin/python scripts/evaluate.py truth=MOT17/train predictions=results"
    )


def say(text: str) -> None:
    """A heading."""
    Console().print(text, style="bold", highlight=False)


if __name__ == "__main__":
    main()
