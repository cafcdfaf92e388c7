"""grutrack evaluate: its tables, its CSV and its one-line refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import Call, Finished
from tests.evaluation.test_plots import LINE_COLOURS, horizontal_line, pixels_of
from track.display.draw import colour_of
from track.evaluation.tracking import METRICS, evaluate_tracking
from track.formats.mot import read_tracks, write_tracks
from track.structures import Tracks

Evaluate = Callable[..., Finished]
LENGTH = 6
TRUTH = [[[x + 4 * i, 10, x + 40 + 4 * i, 90, 1, 1, n] for n, x in enumerate((0, 200), 1)] for i in range(LENGTH)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sequences of two objects under `truth`, and results with a switch and a miss under `results`."""
    truth = [Tracks.from_rows(rows) for rows in TRUTH]
    results = [Tracks(f.boxes, f.scores, f.labels, f.ids + 10 * (i > 3)) for i, f in enumerate(truth)]
    for name in "left", "right":
        write_tracks(tmp_path / f"truth/{name}/gt/gt.txt", truth)
        size = f"frameRate=10\nseqLength={LENGTH}\nimWidth=640\nimHeight=480\n"
        (tmp_path / f"truth/{name}/seqinfo.ini").write_text(f"[Sequence]\nname={name}\n{size}")
        write_tracks(tmp_path / f"results/{name}.txt", results if name == "left" else [truth[0][:1], *results[1:]])
    return tmp_path


@pytest.fixture
def evaluate(folder: Path, call: Call) -> Evaluate:
    """The command on that folder, with more options."""

    def run(*options: str) -> Finished:
        given = {"ground_truth": "truth", "predictions": "results", "output_dir": "out"}
        given |= dict(one.split("=", 1) for one in options)
        return call("evaluate", *(f"{key}={value}" for key, value in given.items()))

    return run


def test_the_table_and_the_csv_hold_the_same_official_figures(evaluate: Evaluate, folder: Path) -> None:
    printed = evaluate().out
    table = pd.read_csv(folder / "out/metrics.csv")
    assert tuple(table.columns) == ("sequence", *METRICS)
    assert table.sequence.tolist() == ["left", "right", "OVERALL"]
    assert table.IDSW.tolist() == [2, 2, 4]
    assert table.FN.tolist() == [0, 1, 1]
    for name, *row in table.itertuples(index=False):
        shown = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in row]
        assert [name, *shown] in [line.split() for line in printed.splitlines()]


def test_the_csv_is_what_the_library_says(evaluate: Evaluate, folder: Path) -> None:
    evaluate()
    truth = [Tracks.from_rows(rows) for rows in TRUTH]
    switched = [Tracks(f.boxes, f.scores, f.labels, f.ids + 10 * (i > 3)) for i, f in enumerate(truth)]
    expected = evaluate_tracking({"left": (truth, switched)}).loc["left"]
    written = pd.read_csv(folder / "out/metrics.csv", index_col="sequence").loc["left"]
    pd.testing.assert_series_equal(written, expected, rtol=0, atol=1e-6)


def test_motmetrics_prints_and_writes_its_whole_summary(evaluate: Evaluate, folder: Path) -> None:
    printed = evaluate("evaluator=motmetrics").out
    table = pd.read_csv(folder / "out/metrics-motmetrics.csv", index_col="sequence")
    assert table.num_switches.tolist() == [2, 2, 4]
    assert all(word in printed for word in ("IDF1", "MOTP", "Rcll", "OVERALL"))


def test_results_of_a_half_are_scored_against_that_half(evaluate: Evaluate, folder: Path) -> None:
    half = [Tracks.from_rows(rows) for rows in TRUTH[LENGTH // 2 + 1 :]]
    for name in "left", "right":
        write_tracks(folder / f"results/{name}.txt", half)
    evaluate("split=val-half")
    table = pd.read_csv(folder / "out/metrics.csv")
    assert table.HOTA.tolist() == [100, 100, 100]


def test_results_of_other_frames_are_refused(streets: Path, call: Call) -> None:
    half = "split=val-half", "detections=det/det.txt", "camera=none", "output_dir=half"
    assert call("predict", f"source={streets}", *half).code == 0
    refused = call("evaluate", f"ground_truth={streets}", "predictions=half")
    assert refused.code == 1
    assert refused.err == "error: half: holds results of split=val-half, expected those of split=all\n"
    assert call("evaluate", f"ground_truth={streets}", "predictions=half", "split=val-half").code == 0
    mixed = call("predict", f"source={streets}", *half[1:])
    assert mixed.err == refused.err


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("predictions=nowhere", "left.txt: no such file, expected the results of left"),
        ("predictions=broken", "left.txt, line 2: expected comma-separated numbers"),
        ("evaluator=mine", "evaluator: expected one of trackeval, motmetrics, got mine"),
        ("metrics=mine", "metrics: expected one of tracking, detection, got mine"),
        ("split=test", "split: expected one of"),
        ("classes=[]", "classes: expected at least one, or auto, or any"),
        ("ground_truth=absent", "absent: no such folder"),
        ("ground_truth=???", "ground_truth: expected a value, see --help"),
        ("output_dir=broken/left.txt", "output_dir: expected a folder that can be written"),
    ],
)
def test_every_refusal_is_one_line_that_says_what_was_expected(
    evaluate: Evaluate, folder: Path, option: str, expected: str
) -> None:
    (folder / "broken").mkdir()
    (folder / "broken/left.txt").write_text("1,1,0,0,5,5,1,-1,-1,-1\n1,2,zero,0,5,5,1,-1,-1,-1\n")
    refused = evaluate(option)
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert expected in refused.err


def write_class_scene(folder: Path, truth: str, results: str, labels: str = "") -> None:
    """A sequence `own` and its results, from rows with `FRAME` in place of the frame number, and gt/labels.txt."""
    for file, rows in (("own/own/gt/gt.txt", truth), ("results/own.txt", results)):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("".join(rows.replace("FRAME", str(number)) for number in range(1, LENGTH + 1)))
    size = f"frameRate=10\nseqLength={LENGTH}\nimWidth=640\nimHeight=480\n"
    (folder / "own/own/seqinfo.ini").write_text(f"[Sequence]\nname=own\n{size}")
    if labels:
        (folder / "own/own/gt/labels.txt").write_text(labels)


THREE_CLASSES = "".join(f"FRAME,{k},{100 * k},100,40,100,1,{k},1\n" for k in (1, 2, 3))
THREE_RESULTS = "".join(f"FRAME,{k + 5},{100 * k},100,40,100,0.9,{k - 1},-1,-1\n" for k in (1, 2, 3))
REGION = "FRAME,0,0,0,200,100,0,0,0,0\n"


@pytest.mark.parametrize("label", [2, 7, 8, 12])
def test_classes_of_cvat_are_scored_without_the_distractor_rule(evaluate: Evaluate, folder: Path, label: int) -> None:
    names = "car\nperson\n" if label == 2 else ""
    truth, results = f"FRAME,1,399,182,121,229,1,{label},1.0\n", "FRAME,4,399,182,121,229,0.9,-1,-1,-1\n"
    write_class_scene(folder, truth, results, names)
    done = evaluate("ground_truth=own")
    assert done.code == 0, done.err
    assert pd.read_csv(folder / "out/metrics.csv").HOTA.tolist() == [100, 100]
    counted = "person" if names else f"class {label}"
    lines = [line for line in done.out.splitlines() if line.startswith("scored: ")]
    assert [line.endswith(f"all results count as {counted}") for line in lines] == [True]


def test_several_classes_have_a_row_each_and_their_mean(evaluate: Evaluate, folder: Path) -> None:
    write_class_scene(folder, THREE_CLASSES, THREE_RESULTS)
    done = evaluate("ground_truth=own", "plots=true")
    table = pd.read_csv(folder / "out/metrics.csv", index_col="sequence")
    assert table.index.tolist() == ["own", "class 1", "class 2", "class 3", "MEAN", "OVERALL"]
    assert table.HOTA.tolist() == table.MOTA.tolist() == [100] * 6
    assert "label 0 of the results is class 1" in done.out
    assert (folder / "out/own class 2.png").is_file()
    evaluate("ground_truth=own", "evaluator=motmetrics")
    summary = pd.read_csv(folder / "out/metrics-motmetrics.csv", index_col="sequence")
    assert summary.index.tolist() == ["own class 1", "own class 2", "own class 3", "OVERALL"]
    assert summary.mota.tolist() == [1] * 4


def test_names_of_result_classes_are_read_beside_the_results(evaluate: Evaluate, folder: Path) -> None:
    write_class_scene(folder, THREE_CLASSES, THREE_RESULTS.replace(",0,-1,-1", ",4,-1,-1"), "car\nvan\nbus\n")
    (folder / "results/labels.txt").write_text("van\nbus\nbee\ncar\n")
    evaluate("ground_truth=own")
    table = pd.read_csv(folder / "out/metrics.csv", index_col="sequence")
    assert table.HOTA[["class car", "class van", "class bus"]].tolist() == [100] * 3


def test_predictions_in_ignored_regions_do_not_count(evaluate: Evaluate, folder: Path) -> None:
    truth = REGION + REGION + "FRAME,1,500,300,40,80,1,1,0,0\n"
    write_class_scene(folder, truth, "FRAME,1,500,300,40,80,0.9\nFRAME,2,20,10,40,80,0.9\n")
    evaluate("ground_truth=own")
    table = pd.read_csv(folder / "out/metrics.csv")
    assert table.HOTA.tolist() == table.MOTA.tolist() == [100, 100]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["classes=bus"], "classes: expected some of the ground truth's (car, van), got bus"),
        (["protocol=motchallenge"], "expected boxes of class 1 (pedestrian) with a flag (column 7) other than 0"),
        (["protocol=mot"], "protocol: expected one of auto, motchallenge, plain, got mot"),
        ([], "expected results of a class of the ground truth (car, van), got bee"),
    ],
)
def test_a_class_that_is_missing_is_refused_with_those_that_exist(
    evaluate: Evaluate, folder: Path, options: list[str], expected: str
) -> None:
    rows = "".join(f"FRAME,{k},{100 * k},100,40,100,1,{k},1\n" for k in (2, 3))
    write_class_scene(folder, rows, THREE_RESULTS.splitlines(keepends=True)[0], "bee\ncar\nvan\n")
    (folder / "results/own.txt").write_text("1,1,0,0,5,5,0.9,-1,-1,-1\n")
    refused = evaluate("ground_truth=own", *options)
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert expected in refused.err


@pytest.mark.data
def test_tud_campus_as_exported_by_cvat_has_the_score_of_the_original(
    evaluate: Evaluate, folder: Path, track_data: Path
) -> None:
    source = track_data / "MOT15/train/TUD-Campus"
    rows = [line.split(",")[:6] for line in (source / "gt/gt.txt").read_text().split()]
    for name, file, end in (("cvat", "cvat/TUD-Campus", "1,2,1.0"), ("mot", "mot/TUD-Campus", "1,-1,-1,-1")):
        (folder / file / "gt").mkdir(parents=True)
        (folder / file / "gt/gt.txt").write_text("".join(f"{','.join(row)},{end}\n" for row in rows))
        (folder / file / "seqinfo.ini").write_text((source / "seqinfo.ini").read_text())
        if name == "cvat":
            (folder / file / "gt/labels.txt").write_text("car\nperson\n")
    detections = [line for line in (source / "det/frcnn.txt").read_text().split() if float(line.split(",")[6]) > 0.9]
    (folder / "results/TUD-Campus.txt").write_text(  # numbered within each frame
        "".join(f"{one.split(',')[0]},{k},{','.join(one.split(',')[2:7])}\n" for k, one in enumerate(detections))
    )
    tables = []
    for root in ("cvat", "mot", str(source.parent)):
        evaluate(f"ground_truth={root}", "sequences=[TUD-Campus]")
        tables.append(pd.read_csv(folder / "out/metrics.csv"))
    pd.testing.assert_frame_equal(tables[0], tables[2])
    pd.testing.assert_frame_equal(tables[1], tables[2])
    assert tables[0].DetA[0] > 40


def test_detections_alone_are_scored(streets: Path, tmp_path: Path, call: Call) -> None:
    done = call(
        "evaluate",
        f"ground_truth={streets}",
        "detections=det/det.txt",
        "metrics=detection",
        "plots=true",
        "output_dir=out",
    )
    assert done.code == 0, done.err
    rows = dict(line.split(",", 1) for line in (tmp_path / "out/metrics-detections.csv").read_text().splitlines())
    assert rows["sequence"] == "AP,AP50,recall,precision"
    assert [float(value) for value in rows["OVERALL"].split(",")] == pytest.approx([100] * 4, abs=0.01)
    plot = tmp_path / "out/metrics-detections.png"
    _, left, right = horizontal_line(plot, LINE_COLOURS[1])  # precision 1 at every recall, drawn over the first line
    assert right - left > 400
    assert len(pixels_of(plot, LINE_COLOURS[0])) > 0  # in the legend
    assert len(pixels_of(plot, LINE_COLOURS[2])) == 0


def test_without_predictions_evaluate_tracks_first_and_plots_identities(
    streets: Path, tmp_path: Path, call: Call
) -> None:
    options = "detections=det/det.txt", "tracker=bytetrack", "sequences=street-04-00", "plots=true", "output_dir=out"
    done = call("evaluate", f"ground_truth={streets}", *options)
    assert done.code == 0, done.err
    assert (tmp_path / "out/street-04-00.txt").is_file()
    assert pd.read_csv(tmp_path / "out/metrics.csv").MOTA.tolist()[0] > 85
    results = torch.cat([frame.ids for frame in read_tracks(tmp_path / "out/street-04-00.txt", 25)])
    ids, counts = results.unique(return_counts=True)
    longest = int(ids[counts.argmax()])
    assert len(pixels_of(tmp_path / "out/street-04-00.png", colour_of(longest), tolerance=1)) > 1000


def test_a_detector_is_built_once(streets: Path, detector: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from track.detection import detector as module

    built: list[object] = []
    original = module.Detector._optimize
    monkeypatch.setattr(module.Detector, "_optimize", lambda self: built.append(self) or original(self))
    options = f"ground_truth={streets}", "sequences=[street-04-00]", detector, "camera=none", "output_dir=out"
    for metrics in ("detection", "tracking"):
        assert call("evaluate", *options, f"metrics={metrics}").code == 0
    assert len(built) == 2


def test_the_process_exits_with_the_code(folder: Path) -> None:
    command = [sys.executable, "-m", "track", "evaluate", "ground_truth=truth"]
    done = subprocess.run([*command, "predictions=results", "output_dir=out"], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "out/metrics.csv").is_file()
    assert len(list(folder.glob("outputs/evaluate/*/.hydra/config.yaml"))) == 1
    refused = subprocess.run([*command, "predictions=nowhere"], cwd=folder, capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
