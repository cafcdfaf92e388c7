"""CVAT's MOT 1.1: the zip as CVAT exports it, hostile zips, and MOTChallenge folders."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.formats.test_annotated import make_video
from track.formats import cvat
from track.formats.cvat import CVAT, MOT
from track.formats.mot import read_sequence

TRUTH = "1,1,399,182,121,229,1,2,1.0\n2,1,400,182,121,229,1,2,0.5\n2,2,10,10,20,20,0,1,1.0\n"


def make_zip(file: Path, **members: str) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file


def test_an_export_is_read_with_its_labels(tmp_path: Path) -> None:
    file = make_zip(tmp_path / "task.zip", **{"gt/gt.txt": TRUTH, "gt/labels.txt": "car\nperson\n"})
    assert CVAT.matches(file)
    (video,) = CVAT.read(file)
    assert (video.name, video.label_names) == ("task", {1: "car", 2: "person"})
    assert [frame.labels.tolist() for frame in video.frames] == [[2], [2, 1]]
    assert video.frames[1].scores.tolist() == [1, 0]
    assert video.frames[0].boxes.tolist() == [[398, 181, 519, 410]]


def test_the_images_in_an_export_say_how_long_it_is(tmp_path: Path) -> None:
    members = {"a/gt/gt.txt": TRUTH, "a/img1/000001.jpg": "", "a/img1/000009.jpg": ""}
    (video,) = CVAT.read(make_zip(tmp_path / "task.zip", **members))
    assert (video.name, len(video.frames)) == ("a", 9)


def test_what_is_written_for_cvat_has_classes_from_1_and_can_be_trained_on(tmp_path: Path) -> None:
    (file,) = CVAT.write(tmp_path, [make_video()])
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["gt/gt.txt", "gt/labels.txt"]
        assert archive.read("gt/labels.txt") == b"car\npedestrian\nignored region\n"
        archive.extractall(tmp_path / "task")
    sequence = read_sequence(tmp_path / "task")
    assert sequence.truth()[0].labels.tolist() == [2, 1, 3]
    assert sequence.truth()[0].scores.tolist() == [1, 1, 0]


def test_members_that_leave_the_folder_touch_nothing(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    file = make_zip(tmp_path / "inside" / "t.zip", **{"../gt/gt.txt": TRUTH, "../../evil.txt": "x"})
    with pytest.raises(ValueError, match="expected a video's name without folders"):
        CVAT.read(file)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["inside", "t.zip"]


def test_a_member_that_inflates_without_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cvat, "EXPANSION_ALLOWANCE", 2**10)
    file = make_zip(tmp_path / "bomb.zip", **{"gt/gt.txt": "\n" * 2**20})
    with pytest.raises(ValueError, match=r"gt/gt.txt unpacks to more than 20 times the zip's size"):
        CVAT.read(file)


def test_a_bad_row_in_a_zip_is_named(tmp_path: Path) -> None:
    file = make_zip(tmp_path / "task.zip", **{"gt/gt.txt": "1,1,399,182,nan,229,1,2,1.0\n"})
    with pytest.raises(ValueError, match=r"task.zip/gt/gt.txt, line 1: expected finite numbers"):
        CVAT.read(file)


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    file = make_zip(tmp_path / "task.zip", **{"gt/gt.txt": TRUTH * 99})
    content = bytearray(file.read_bytes())
    content[60:90] = bytes(30)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"task.zip: expected a whole zip"):
        CVAT.read(file)


def test_result_files_are_read_as_videos(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,3,10,10,20,20,0.5,-1,-1,-1\n4,3,10,10,20,20,0.5,2,-1,-1\n")
    assert MOT.matches(tmp_path)
    (video,) = MOT.read(tmp_path)
    assert (video.name, len(video.frames), video.labels()) == ("a", 4, [1, 2])


def test_a_written_folder_is_a_sequence_with_rate_size_and_labels(tmp_path: Path) -> None:
    MOT.write(tmp_path, [make_video(region=False)])
    sequence = read_sequence(tmp_path / "street")
    assert (sequence.frame_rate, sequence.width, sequence.height, len(sequence)) == (30.0, 320, 240, 3)
    assert sequence.label_names() == {1: "car", 2: "pedestrian"}
