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
        shown = [f"{value:.2f}" for value in row[:5]] + [str(value) for value in row[5:]]
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


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("predictions=nowhere", "left.txt: no such file, expected the results of left"),
        ("predictions=broken", "left.txt, line 2: expected comma-separated numbers"),
        ("evaluator=mine", "evaluator: expected one of trackeval, motmetrics, got mine"),
        ("metrics=mine", "metrics: expected one of tracking, detection, got mine"),
        ("split=test", "split: expected one of"),
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
