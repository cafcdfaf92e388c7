"""MOTChallenge files: round trips, splits, and malformed rows."""

import os
from pathlib import Path

import pytest
import torch

from track.formats.mot import (
    considered_pedestrians,
    distractor_classes,
    find_sequences,
    image_files,
    read_affines,
    read_detections,
    read_tracks,
    write_detections,
    write_tracks,
)
from track.structures import Detections, Tracks

INI = "[Sequence]\nname=a\nimDir=img1\nframeRate=25\nseqLength={length}\nimWidth=640\nimHeight=480\nimExt=.jpg\n"


def make_sequence(root: Path, name: str = "a", length: int = 5, **files: str) -> Path:
    folder = root / name
    for file, text in {"seqinfo.ini": INI.format(length=length), **files}.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    return folder


def put(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "rows.txt"
    file.write_text(text)
    return file


def test_boxes_become_zero_based_corners_and_rows_may_be_unsorted(tmp_path: Path) -> None:
    frames = read_detections(put(tmp_path, "2,-1,11,21,4,6,0.5,-1,-1,-1\n\n1,-1,1,1,10,20,0.25,-1,-1,-1\n"), 3)
    assert [len(frame) for frame in frames] == [1, 1, 0]
    assert frames[0].boxes.tolist() == [[0, 0, 10, 20]]
    assert frames[1].boxes.tolist() == [[10, 20, 14, 26]]
    assert frames[1].scores.tolist() == [0.5]


def test_results_survive_a_round_trip(tmp_path: Path) -> None:
    frames = [Tracks.from_rows([[1.25, 2, 8.5, 9, 0.5, 1, 0], [0, 0, 3, 3, 1, 1, 12]]), Tracks.empty()]
    write_tracks(tmp_path / "deep" / "a.txt", frames)
    back = read_tracks(tmp_path / "deep" / "a.txt", 2)
    assert back[0].ids.tolist() == [0, 12]
    torch.testing.assert_close(back[0].boxes, frames[0].boxes)
    assert len(back[1]) == 0


def test_detections_survive_a_round_trip(tmp_path: Path) -> None:
    write_detections(tmp_path / "d.txt", [Detections.from_rows([[1, 2, 3, 4, 0.125, 9]])])
    back = read_detections(tmp_path / "d.txt", 1)[0]
    assert (back.boxes.tolist(), back.scores.tolist(), back.labels.tolist()) == ([[1, 2, 3, 4]], [0.125], [9])


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_result_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_tracks(tmp_path / "a.txt", [Tracks.empty()])
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    ("row", "flag", "label"),
    [
        ("1,4,1,1,5,5,0,7,0.4", 0, 7),  # MOT17: consider flag, class, visibility
        ("1, 4, 1, 1, 5, 5, 1, 1, 1", 1, 1),  # SportsMOT: spaces
        ("1,4,1,1,5,5,1,-1,-1,-1", 1, 1),  # MOT15: ten columns, world coordinates
    ],
)
def test_each_data_sets_ground_truth_is_read(tmp_path: Path, row: str, flag: int, label: int) -> None:
    truth = read_tracks(put(tmp_path, row), 1, truth=True)[0]
    assert (truth.ids.tolist(), truth.scores.tolist(), truth.labels.tolist()) == ([4], [flag], [label])


def test_an_empty_file_is_a_video_without_objects(tmp_path: Path) -> None:
    assert [len(frame) for frame in read_tracks(put(tmp_path, ""), 4)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,1,1,5,5,1\n2,1,1,1,5\n", "line 2: expected 7 columns as before, got 5"),
        ("1,1,1\n", "line 1: expected at least 6 columns, got 3"),
        ("1,1,1,1,5,5,1\n1,2,nan,1,5,5,1\n", "line 2: expected finite numbers"),
        ("1,1,1,1,-5,5,1\n", "line 1: expected a width and height that are not negative"),
        ("9,1,1,1,5,5,1\n", "line 1: expected a frame number from 1 to 3"),
        ("0,1,1,1,5,5,1\n", "line 1: expected a frame number from 1 to 3"),
        ("1.5,1,1,1,5,5,1\n", "line 1: expected a frame number from 1 to 3"),
        ("1,1,1,1,5,5,1\n2,1,1,1,5,5,1\n\n2,1,2,2,5,5,1\n", "line 4: expected each id once in a frame"),
        ("1,1.5,1,1,5,5,1\n", "line 1: expected a whole number as id"),
        ("1,1,1,1,five,5,1\n", "line 1: expected comma-separated numbers, got"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_tracks(put(tmp_path, text), 3)


def test_frames_without_an_affine_have_the_identity(tmp_path: Path) -> None:
    affines = read_affines(put(tmp_path, "2,1,0,3.5,0,1,-2\n"), 3)
    assert affines[1].tolist() == [[1, 0, 3.5], [0, 1, -2]]
    assert affines[2].tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(("split", "ids"), [("all", [1, 2, 3, 4, 5]), ("train-half", [1, 2, 3]), ("val-half", [4, 5])])
def test_splits_cut_and_renumber_frames(tmp_path: Path, split: str, ids: list[int]) -> None:
    rows = "".join(f"{frame},{frame},1,1,5,5,1,1,1\n" for frame in range(1, 6))
    make_sequence(tmp_path, **{"gt/gt.txt": rows})
    sequence = find_sequences(tmp_path, split)[0]
    assert [frame.ids.item() for frame in sequence.truth()] == ids
    assert len(sequence) == len(ids)


def test_a_stride_and_a_drop_rate_leave_out_frames_and_keep_their_times(tmp_path: Path) -> None:
    make_sequence(tmp_path, length=100)
    (sequence,) = find_sequences(tmp_path, stride=3)
    assert list(sequence.frame_numbers) == list(range(1, 101, 3))
    assert sequence.times[:3] == pytest.approx([0, 3 / 25, 6 / 25])
    (sequence,) = find_sequences(tmp_path, drop_rate=0.4)
    assert 50 <= len(sequence) <= 70
    assert find_sequences(tmp_path, drop_rate=0.4) == [sequence]
    assert len(find_sequences(tmp_path, "val-half", stride=1000, drop_rate=0.99)[0]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride: expected at least 1, got 0"),
        ({"drop_rate": 1.0}, "drop_rate: expected 0 or more, below 1, got 1.0"),
        ({"split": "test"}, "split: expected one of all, train-half, val-half, got test"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    make_sequence(tmp_path)
    with pytest.raises(ValueError, match=message):
        find_sequences(tmp_path, **options)


def test_the_affines_of_left_out_frames_are_composed(tmp_path: Path) -> None:
    make_sequence(tmp_path, **{"gmc.txt": "2,1,0,3,0,1,1\n3,2,0,0,0,2,0\n5,1,0,7,0,1,0\n"})
    (sequence,) = find_sequences(tmp_path, stride=2)  # frames 1, 3 and 5
    assert sequence.affines().tolist() == [
        [[1, 0, 0], [0, 1, 0]],
        [[2, 0, 6], [0, 2, 2]],
        [[1, 0, 7], [0, 1, 0]],
    ]


def test_considered_pedestrians_are_of_class_1_and_flagged() -> None:
    truth = Tracks.from_rows(
        [[0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 1, 2], [0, 0, 1, 1, 1, 7, 3], [0, 0, 1, 1, 1, 1, 4]]
    )
    assert considered_pedestrians(truth).ids.tolist() == [1, 4]
    assert distractor_classes("MOT17-02") == (2, 7, 8, 12)
    assert distractor_classes("MOT20-01") == (2, 6, 7, 8, 12)


def test_a_root_without_sequences_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sequences below it"):
        find_sequences(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        find_sequences(tmp_path / "absent")


def test_sequences_are_chosen_by_name(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        make_sequence(tmp_path, name)
    assert [s.name for s in find_sequences(tmp_path, names=["c", "a"])] == ["a", "c"]
    with pytest.raises(ValueError, match="no sequence is called d, expected some of a, b, c"):
        find_sequences(tmp_path, names=["a", "d"])


def test_a_sequence_names_the_file_that_is_missing(tmp_path: Path) -> None:
    make_sequence(tmp_path)
    with pytest.raises(ValueError, match=r"a/gt/gt.txt: no such file"):
        find_sequences(tmp_path)[0].truth()


def test_images_are_in_numerical_order(tmp_path: Path) -> None:
    for name in ("1.jpg", "10.jpg", "2.PNG", "notes.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in image_files(tmp_path)] == ["1.jpg", "2.PNG", "10.jpg"]


def test_a_repeated_affine_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "gmc.txt"
    file.write_text("2,1,0,5,0,1,0\n3,1,0,5,0,1,0\n2,1,0,6,0,1,0\n")
    with pytest.raises(ValueError, match=r"gmc.txt, line 3: expected each frame once"):
        read_affines(file, 5)


def test_a_video_linked_from_elsewhere_is_refused(tmp_path: Path) -> None:
    make_sequence(tmp_path)
    (tmp_path / "elsewhere.mp4").touch()
    (tmp_path / "a" / "v.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(ValueError, match="leaves the sequence's folder"):
        find_sequences(tmp_path)[0].video()


def test_a_path_that_leaves_the_sequence_is_refused(tmp_path: Path) -> None:
    make_sequence(tmp_path)
    (tmp_path / "secret.txt").write_text("1,1,1,1,1,1,1\n")
    with pytest.raises(ValueError, match="leaves the sequence's folder"):
        find_sequences(tmp_path)[0].detections("../secret.txt")


@pytest.mark.parametrize("broken", ["seqLength=0", "seqLength=many", "seqLength=nan", "seqLength=5.5"])
def test_a_malformed_seqinfo_names_its_key(tmp_path: Path, broken: str) -> None:
    make_sequence(tmp_path, **{"seqinfo.ini": INI.format(length=5).replace("seqLength=5", broken)})
    with pytest.raises(ValueError, match=r"seqinfo.ini: seqLength: expected a whole number of at least 1"):
        find_sequences(tmp_path)


def test_an_error_while_writing_leaves_the_old_results(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield Tracks.empty()
        raise RuntimeError

    write_tracks(tmp_path / "a.txt", [Tracks.from_rows([[0, 0, 1, 1, 1, 1, 1]])])
    with pytest.raises(RuntimeError):
        write_tracks(tmp_path / "a.txt", broken())
    assert len(read_tracks(tmp_path / "a.txt", 1)[0]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
