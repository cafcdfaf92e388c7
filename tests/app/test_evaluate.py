"""scripts/evaluate.py as it is called: its table, its CSV and its one-line refusals."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from track.evaluation.tracking import COLUMNS, evaluate_tracking
from track.formats.mot import write_tracks
from track.structures import Tracks

REPOSITORY = Path(__file__).parents[1]
LENGTH = 6
TRUTH = [[[x + 4 * i, 10, x + 40 + 4 * i, 90, 1, 1, n] for n, x in enumerate((0, 200), 1)] for i in range(LENGTH)]


@pytest.fixture
def folder(tmp_path):
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
def evaluate(folder, monkeypatch, capsys):
    """The script run in this process on the folder, with options; gives what it printed."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import evaluate as script

    def run(*options):
        base = [f"truth={folder}/truth", f"predictions={folder}/results", f"output_dir={folder}/out"]
        with initialize_config_dir(version_base=None, config_dir=str(REPOSITORY / "conf")):
            script.main(compose("evaluate", [*base, *options]))
        return capsys.readouterr().out

    return run


def test_the_table_and_the_csv_hold_the_same_official_figures(evaluate, folder):
    printed = evaluate()
    table = pd.read_csv(folder / "out/metrics.csv")
    assert tuple(table.columns) == ("sequence", *COLUMNS)
    assert table.sequence.tolist() == ["left", "right", "OVERALL"]
    assert table.IDSW.tolist() == [2, 2, 4]
    assert table.FN.tolist() == [0, 1, 1]
    for name, *row in table.itertuples(index=False):
        shown = [f"{value:.2f}" for value in row[:5]] + [str(value) for value in row[5:]]
        assert [name, *shown] in [line.split() for line in printed.splitlines()]


def test_the_csv_is_what_the_library_says(evaluate, folder):
    evaluate()
    truth = [Tracks.from_rows(rows) for rows in TRUTH]
    switched = [Tracks(f.boxes, f.scores, f.labels, f.ids + 10 * (i > 3)) for i, f in enumerate(truth)]
    expected = evaluate_tracking({"left": (truth, switched)}).loc["left"]
    written = pd.read_csv(folder / "out/metrics.csv", index_col="sequence").loc["left"]
    pd.testing.assert_series_equal(written, expected, rtol=0, atol=1e-6)


def test_motmetrics_prints_and_writes_its_whole_summary(evaluate, folder):
    printed = evaluate("evaluator=motmetrics")
    table = pd.read_csv(folder / "out/metrics-motmetrics.csv", index_col="sequence")
    assert table.num_switches.tolist() == [2, 2, 4]
    assert all(word in printed for word in ("IDF1", "MOTP", "Rcll", "OVERALL"))


def test_results_of_a_half_are_scored_against_that_half(evaluate, folder):
    half = [Tracks.from_rows(rows) for rows in TRUTH[LENGTH // 2 + 1 :]]
    for name in "left", "right":
        write_tracks(folder / f"results/{name}.txt", half)
    evaluate("split=val-half")
    table = pd.read_csv(folder / "out/metrics.csv")
    assert table.HOTA.tolist() == [100, 100, 100]


def test_every_refusal_is_one_line_that_says_what_was_expected(evaluate, folder, capsys):
    broken = folder / "broken"
    broken.mkdir()
    (broken / "left.txt").write_text("1,1,0,0,5,5,1,-1,-1,-1\n1,2,zero,0,5,5,1,-1,-1,-1\n")
    refusals = {
        f"predictions={folder}/nowhere": "left.txt: no such file, expected the results of left",
        f"predictions={broken}": "left.txt, line 2: expected comma-separated numbers",
        "evaluator=mine": "evaluator: expected trackeval, motmetrics or detections, got mine",
        "split=test": "split: expected one of",
        "truth=???": "truth",
        f"output_dir={broken}/left.txt": "output_dir: expected a folder that can be written",
    }
    for option, expected in refusals.items():
        with pytest.raises(SystemExit) as stop:
            evaluate(option)
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 1
        assert len(lines) == 1
        assert expected in lines[0]


def test_the_command_takes_relative_paths_and_exits_with_its_code(folder):
    command = [sys.executable, str(REPOSITORY / "scripts/evaluate.py"), "truth=truth"]
    done = subprocess.run([*command, "predictions=results", "output_dir=out"], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "out/metrics.csv").is_file()
    assert len(list(folder.glob("outputs/evaluate/*/.hydra/config.yaml"))) == 1
    refused = subprocess.run([*command, "predictions=nowhere"], cwd=folder, capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
