"""The commands as a user calls them: their configs composed, their functions run, their refusals read."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from track.datasets.streets import make_dataset
from track.detection.detector import build, save_detector
from track.formats.mot import find_sequences, read_tracks, write_detections
from track.media.sources import frames
from track.media.video_writer import VideoWriter

ROOT = Path(__file__).parent.parent


def call(script: str, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *overrides]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn sequences with their ground truth as detections."""
    root = make_dataset(tmp_path_factory.mktemp("streets"), 2, 25, seed=4)
    for sequence in find_sequences(root):
        write_detections(sequence.path / "det" / "det.txt", sequence.truth())
    return root


def test_predict_then_evaluate_scores_perfect_detections_highly(streets: Path, tmp_path: Path) -> None:
    done = call(
        "predict", f"source={streets}", "detections=det/det.txt", "tracker=kalman", "output_dir=out", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    scored = call("evaluate", f"truth={streets}", "predictions=out", "output_dir=score", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    rows = dict(line.split(",", 1) for line in (tmp_path / "score" / "metrics.csv").read_text().splitlines())
    assert rows["sequence"] == "HOTA,DetA,AssA,MOTA,IDF1,IDSW,FP,FN,Frag,MT,ML"
    assert list(rows) == ["sequence", "street-04-00", "street-04-01", "OVERALL"]
    assert float(rows["OVERALL"].split(",")[3]) > 85


def test_training_motion_writes_weights_that_predict_uses(streets: Path, tmp_path: Path) -> None:
    done = call(
        "train", "task=motion", f"data.root={streets}", "data.held_out=[street-04-01]", "data.detections=det/det.txt",
        "trainer.max_epochs=2", "trainer.limit_train_batches=2", "data.batch_size=4", "output_dir=run",
        "model.learning_rate=0", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "weights: run/motion.safetensors" in done.stdout
    kept = {name: torch.load(tmp_path / f"run/{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert kept == {"best": 0, "last": 1}
    assert "val/mota" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    before = (tmp_path / "run" / "metrics.csv").read_text()
    weights = "tracker.weights=run/motion.safetensors"
    tracked = call("predict", f"source={streets}", "detections=det/det.txt", weights, "output_dir=out", cwd=tmp_path)
    assert tracked.returncode == 0, tracked.stderr
    resumed = call(
        "train", "task=motion", f"data.root={streets}", "data.held_out=[street-04-01]", "data.detections=det/det.txt",
        "trainer.max_epochs=3", "trainer.limit_train_batches=2", "data.batch_size=4", "output_dir=run",
        "ckpt_path=last", cwd=tmp_path,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    epochs = [line.split(",")[0] for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == sorted(epochs)
    assert set(epochs) == {"0", "1", "2"}
    assert epochs.count("1") == before.count("\n1,")
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_training_association_writes_weights_that_predict_uses(streets: Path, tmp_path: Path) -> None:
    small = ["data.episodes=2", "data.batches=3", "data.batch_size=4", "trainer.max_epochs=2", "model.hidden=8"]
    done = call(
        "train", "task=association", f"data.root={streets}", "data.held_out=[street-04-01]",
        "data.detections=[det/det.txt]", *small, "output_dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "weights: run/gru.safetensors" in done.stdout
    assert (tmp_path / "run" / "reliability.png").stat().st_size > 5000
    figures = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert "val/hota" in figures[0]
    weights = "tracker.weights=run/gru.safetensors"
    tracked = call("predict", f"source={streets}", "detections=det/det.txt", weights, "output_dir=out", cwd=tmp_path)
    assert tracked.returncode == 0, tracked.stderr
    again = call(
        "train", "task=association", f"data.root={streets}", "data.held_out=[]", "monitor=null",
        "model.checkpoint=run/gru.safetensors", *small, "output_dir=again", cwd=tmp_path,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "weights: again/gru.safetensors" in again.stdout


def test_a_bad_sequence_stops_with_one_line_and_leaves_what_was_written(streets: Path, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "data", 2, 5, seed=4)
    for sequence, text in zip(find_sequences(root), ("1,-1,10,10,20,40,0.9\n", "1,-1,10,10,20,nan,0.9\n"), strict=True):
        (sequence.path / "det").mkdir()
        (sequence.path / "det" / "det.txt").write_text(text)
    done = call("predict", f"source={root}", "detections=det/det.txt", "tracker=kalman", "output_dir=out", cwd=tmp_path)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()
    assert len(error) == 1
    assert error[0].endswith("street-04-01/det/det.txt, line 1: expected finite numbers")
    assert len(read_tracks(tmp_path / "out" / "street-04-00.txt", 5)[0]) == 1


def test_a_rerun_that_is_refused_leaves_the_old_results(streets: Path, tmp_path: Path) -> None:
    arguments = "predict", f"source={streets}", "tracker=kalman", "output_dir=out"
    assert call(*arguments, "detections=det/det.txt", cwd=tmp_path).returncode == 0
    before = (tmp_path / "out" / "street-04-00.txt").read_bytes()
    failed = call(*arguments, "detections=det/mistyped.txt", cwd=tmp_path)
    assert failed.returncode == 1
    assert "street-04-00/det/mistyped.txt: no such file" in failed.stderr
    assert (tmp_path / "out" / "street-04-00.txt").read_bytes() == before


def test_a_video_that_stops_early_keeps_the_rows_before(streets: Path, tmp_path: Path) -> None:
    network, categories = build("small_fcos", None)
    save_detector(network, "small_fcos", categories, tmp_path / "d.safetensors")
    film = tmp_path / "a.mp4"
    with VideoWriter(film, 15) as video:
        for _ in range(4):
            for frame in frames(find_sequences(streets)[0].path / "img1"):
                video.write(frame.image)
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 2 // 3])
    every = "detector.min_score=0", "tracker.min_score=0", "tracker.association.new_track_score=0", "tracker.min_hits=1"
    options = "detector.checkpoint=d.safetensors", "tracker=kalman", *every, "output_dir=out"
    done = call("predict", "source=a.mp4", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*a.mp4: stopped after frame \d+, expected 100", done.stderr.strip())
    last = max(int(line.split(",")[0]) for line in (tmp_path / "out" / "a.txt").read_text().splitlines())
    assert f"frame {last}," in done.stderr


@pytest.mark.parametrize(
    ("script", "overrides", "message"),
    [
        ("predict", ["source=absent", "detections=det/det.txt"], "absent: no such folder"),
        ("predict", ["source=.", "detections=det/det.txt"], ".: no sequences below it"),
        ("predict", ["source=.", "detector.name=nonsense"], "detector.name: nonsense is unknown, nearest: "),
        (
            "predict",
            ["source=.", "detections=x.txt", "camera=maybe"],
            "camera: expected one of auto, none, file, estimate, got maybe",
        ),
        ("predict", ["source=.", "detector.name=small_fcos"], "small_fcos has no official weights: give a checkpoint"),
        ("evaluate", ["truth=absent"], "absent: no such folder"),
        ("train", ["task=motion"], "Missing mandatory value: data.root"),
        ("train", ["data.root=.", "ckpt_path=absent.ckpt"], "absent.ckpt: expected a checkpoint as scripts/train.py"),
        ("train", ["data.root=.", "trainer.accelerator=nonsense"], "nonsense"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_1(
    tmp_path: Path, script: str, overrides: list[str], message: str
) -> None:
    done = call(script, *overrides, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr


def detector_file(folder: Path) -> str:
    torch.manual_seed(0)
    network, categories = build("small_fcos", None)
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    return f"detector.checkpoint={save_detector(network, 'small_fcos', categories, folder / 'd.safetensors')}"


def test_detections_are_kept_and_used_again_while_nothing_changed(streets: Path, tmp_path: Path) -> None:
    options = [
        f"source={streets}",
        "sequences=[street-04-00]",
        detector_file(tmp_path),
        "output_dir=out",
        "camera=none",
    ]
    first = call("predict", *options, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "earlier run" not in first.stdout
    results, file = tmp_path / "out/street-04-00.txt", tmp_path / "out/street-04-00/det/small_fcos.txt"
    tracked, seen = results.read_text(), file.read_text()
    assert len(seen.splitlines()) > 25
    again = call("predict", *options, cwd=tmp_path)
    assert "street-04-00: the detections of an earlier run" in again.stdout
    assert results.read_text() == tracked
    other = call("predict", *options, "detector.min_score=0.55", cwd=tmp_path)
    assert "earlier run" not in other.stdout
    assert file.read_text() != seen


def test_a_picture_that_cannot_be_read_stops_or_is_passed_over(streets: Path, tmp_path: Path) -> None:
    shutil.copytree(streets / "street-04-00", tmp_path / "street-04-00")
    (tmp_path / "street-04-00/img1/000005.jpg").write_bytes(b"")
    options = [f"source={tmp_path / 'street-04-00'}", detector_file(tmp_path), "output_dir=out"]
    stopped = call("predict", *options, cwd=tmp_path)
    assert stopped.returncode == 1
    assert re.fullmatch(r"error: .*000005.jpg: expected an image that can be read\n", stopped.stderr)
    passed = call("predict", *options, "on_error=skip", cwd=tmp_path)
    assert passed.returncode == 0, passed.stderr
    assert re.search(r"passed over: 1, the first: .*000005.jpg: expected an image", passed.stdout)
    frames_seen = {int(row.split(",")[0]) for row in (tmp_path / "out/street-04-00/det/small_fcos.txt").open()}
    assert frames_seen == set(range(1, 26)) - {5}


def test_evaluate_judges_detections(streets: Path, tmp_path: Path) -> None:
    options = ["detections=det/det.txt", "evaluator=detections", "plots=true", "output_dir=out"]
    done = call("evaluate", f"truth={streets}", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(",", 1) for line in (tmp_path / "out/metrics-detections.csv").read_text().splitlines())
    assert rows["sequence"] == "AP,AP50,recall,precision"
    assert [float(value) for value in rows["OVERALL"].split(",")] == pytest.approx([100] * 4, abs=0.01)
    assert (tmp_path / "out/metrics-detections.png").stat().st_size > 5000


def test_benchmark_says_how_fast_and_whether_the_boxes_are_the_same(streets: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackers")
    options = ["detections=null", "frames=6", "repeats=1", "output_dir=out", detector_file(tmp_path)]
    done = call("benchmark", f"source={streets / 'street-04-00/img1'}", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again, boxes = map(int, re.search(r"scores within 0.01: (\d+) of (\d+)", done.stdout).groups())  # type: ignore[union-attr]
    assert 0.9 * boxes < again <= boxes  # of random weights, in which many scores are nearly equal
    ratios = re.findall(r"(?:ByteTrack \(trackers\)|this project) +[\d.]+ +([\d.]+)", done.stdout)
    assert ratios[0] == "1.00"
    assert 0 < float(ratios[1]) < 20
    assert re.search(r"^tracking [\d.]+ ms, drawing [\d.]+ ms, writing [\d.]+ ms$", done.stdout, re.MULTILINE)
