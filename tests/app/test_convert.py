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


def test_results_of_a_detector_are_converted_with_their_class_names_and_cut_ones_are_not(
    tmp_path: Path, call: Call
) -> None:
    row = "1,3,10.00,10.00,20.00,20.00,0.5000,{label},-1,-1\n"
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a.txt").write_text(row.format(label=2))
    (tmp_path / "results/b.partial.txt").write_text(row.format(label=1))
    (tmp_path / "results/labels.txt").write_text("person\ncar\n")
    done = call("convert", "source=results", "output=out", "format=csv")
    assert done.code == 0, done.err
    assert "a: 1 frames, 1 boxes, classes: car" in done.out
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.csv"]


def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_written(tmp_path: Path, call: Call) -> None:
    (tmp_path / "source").mkdir()
    for name in ("0000", "0001"):
        (tmp_path / f"source/{name}.txt").write_text(ROWS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/0001").write_text("a file")
    refused = call("convert", "source=source", "output=out", "format=mot", "overwrite=true")
    assert refused.code == 1
    assert "a file or folder of another kind is in its place" in refused.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["0001"]


def test_the_same_conversion_gives_the_same_zip(tmp_path: Path, call: Call) -> None:
    (tmp_path / "0000.txt").write_text(ROWS)
    assert [call("convert", "source=0000.txt", "output=out", "format=cvat").code for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("through", ["mot", "cvat", "csv", "coco", "visdrone"])
def test_several_ignored_regions_in_a_frame_survive_every_format(through: str, tmp_path: Path, call: Call) -> None:
    region = "{f} -1 DontCare -1 -1 -10 {x} 20 {y} 60 -1 -1 -1 -1000 -1000 -1000 -10\n"
    car = "{f} 3 Car 0 0 0 10 20 30 40 1 1 1 1 1 1 1\n"
    rows = "".join(
        car.format(f=f) + region.format(f=f, x=100, y=140) + region.format(f=f, x=200, y=240) for f in range(3)
    )
    (tmp_path / "kitti").mkdir()
    (tmp_path / "kitti/a.txt").write_text(rows)
    assert call("convert", "source=kitti", "output=one", f"format={through}").code == 0
    done = call("convert", "source=one", "output=two", "format=mot")
    assert done.code == 0, done.err
    truth = read_sequence(tmp_path / "two/a" if (tmp_path / "two/a").is_dir() else next((tmp_path / "two").iterdir()))
    assert [len(frame) for frame in truth.truth()] == [3, 3, 3]


def test_a_frame_rate_survives_rounded_times(tmp_path: Path, call: Call) -> None:
    row = "{n},5,10.00,20.00,30.00,40.00,0.9000,-1,-1,-1\n"
    (tmp_path / "a.txt").write_text("".join(row.format(n=n) for n in range(1, 8)))
    for source, name in (("a.txt", "csv"), ("csv", "mot")):
        assert call("convert", f"source={source}", f"output={name}", f"format={name}").code == 0
    assert read_sequence(tmp_path / "mot/a").frame_rate == 30.0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "a.csv: expected a row per box, found none"),
        ("a.csv", "frame,id,class,x1,y1,x2,y2\n", "a.csv: expected a row per box, found none"),
        (
            "a.csv",
            "frame;id;class;x1;y1;x2;y2\n1;1;car;1;2;3;4\n",
            "separated by commas: no frame in frame;id;class;x1;y",
        ),
        (
            "a.csv",
            "frame,id,class,left\n1,1,car,1\n",
            "a.csv, line 2: expected the columns frame, id, class, x1, y1, x2",
        ),
        ("a.jsonl", "\n", "a.jsonl: expected a row per box, found none"),
        ("a.jsonl", '{"frame": 1}\n', "line 1: expected the columns frame, id, class, x1, y1, x2, y2: no id in frame"),
    ],
)
def test_a_table_without_the_columns_is_refused_by_what_it_lacks(
    name: str, text: str, message: str, tmp_path: Path, call: Call
) -> None:
    (tmp_path / name).write_text(text)
    done = call("convert", f"source={name}", "format=mot", "output=out")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert message in done.err


def test_classes_that_visdrone_does_not_have_are_named(tmp_path: Path, call: Call) -> None:
    rows = "1,1,dog,1,2,30,40\n1,2,Car,1,2,30,40\n1,3,cat,1,2,30,40\n"
    (tmp_path / "a.csv").write_text("frame,id,class,x1,y1,x2,y2\n" + rows)
    done = call("convert", "source=a.csv", "format=visdrone", "output=out")
    assert done.code == 0, done.err
    assert "note: VisDrone has no class cat, dog: written as others\n" in done.out
    written = [row.split(",") for row in (tmp_path / "out/annotations/a.txt").read_text().splitlines()]
    assert [row[7] for row in written] == ["11", "4", "11"]
    assert "note" not in call("convert", "source=out", "format=kitti", "output=again").out
