"""grutrack convert: the source's format is found and printed, files are written, mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Call
from tests.formats.test_annotated import make_video
from tests.formats.test_kitti import ROWS
from track.formats.cvat import CVAT
from track.formats.mot import read_sequence


def test_kitti_labels_become_a_motchallenge_folder(tmp_path: Path, call: Call) -> None:
    (tmp_path / "0000.txt").write_text(ROWS)
    done = call("convert", "source=0000.txt", "output=data", "format=mot")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "source: KITTI tracking",
        "0000: 3 frames, 5 boxes, classes: Van, Tractor",
        "written: data/0000/gt/gt.txt (MOTChallenge)",
    ]
    sequence = read_sequence(tmp_path / "data" / "0000")
    assert (len(sequence), sequence.frame_rate) == (3, 10.0)


def test_results_can_be_corrected_in_cvat_and_come_back(tmp_path: Path, call: Call) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.txt").write_text("1,3,10,10,20,20,0.5,-1,-1,-1\n2,3,11,10,20,20,0.5,-1,-1,-1\n")
    assert call("convert", "source=results", "output=cvat", "format=cvat").code == 0
    done = call("convert", "source=cvat/a.zip", "output=data", "format=mot")
    assert done.out.startswith("source: CVAT MOT 1.1\n")
    assert read_sequence(tmp_path / "data" / "a").truth()[1].ids.tolist() == [3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["source=absent"], "error: source: absent: no such file or folder"),
        (["source=notes.md"], "error: source: notes.md: expected annotations or results as CVAT MOT 1.1, COCO"),
        (["source=a.zip", "format=yolo"], "error: format: expected one of coco, csv, cvat, jsonl, kitti, mot, parquet"),
        (["source=twice.json"], "error: source: twice.json: two videos are called a, expected each name once"),
        (["source=dots.json"], "error: '..': expected a video's name without folders"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], message: str, tmp_path: Path, call: Call) -> None:
    (tmp_path / "notes.md").write_text("# notes\n")
    CVAT.write(tmp_path, [make_video("a")])
    for file, names in (("twice.json", ["a", "a"]), ("dots.json", [".."])):
        videos = [{"id": number, "name": name} for number, name in enumerate(names)]
        table = {"videos": videos, "images": [], "annotations": [], "categories": []}
        (tmp_path / file).write_text(json.dumps(table))
    done = call("convert", *options)
    assert done.code == 1
    assert done.err.startswith(message)
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(
    ("source", "output"), [("data", "data"), ("data/a", "data"), ("data", "data/a"), ("link", "data")]
)
def test_an_output_that_could_replace_its_source_is_refused(
    source: str, output: str, tmp_path: Path, call: Call
) -> None:
    CVAT.write(tmp_path, [make_video("a")])
    assert call("convert", "source=a.zip", "output=data", "format=mot").code == 0
    (tmp_path / "link").symlink_to(tmp_path / "data")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    refused = call("convert", f"source={source}", f"output={output}", "format=mot")
    assert refused.code == 1
    assert "expected a folder or file apart from the source" in refused.err
    after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and "outputs" not in file.parts}
    assert after == {file: content for file, content in before.items() if "outputs" not in file.parts}


def test_files_of_other_content_are_replaced_only_if_asked_and_then_all_or_none(tmp_path: Path, call: Call) -> None:
    (tmp_path / "0000.txt").write_text(ROWS)
    options = "convert", "source=0000.txt", "output=data", "format=mot"
    assert [call(*options).code for _ in range(2)] == [0, 0]
    truth, info = tmp_path / "data/0000/gt/gt.txt", tmp_path / "data/0000/seqinfo.ini"
    written = truth.read_text()
    truth.write_text("corrected by hand")
    info.unlink()
    refused = call(*options)
    assert refused.code == 1
    assert refused.err == "error: output: data/0000/gt/gt.txt: exists with other content; overwrite=true replaces it\n"
    assert truth.read_text() == "corrected by hand"
    assert not info.exists()
    assert call(*options, "overwrite=true").code == 0
    assert truth.read_text() == written
    assert {file.name for file in (tmp_path / "data").iterdir()} == {"0000"}
