"""MOTChallenge files: round trips, splits, and malformed rows."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from track.formats.mot import (
    MotSequence,
    considered_pedestrians,
    distractor_classes,
    find_sequences,
    image_files,
    image_numbers,
    is_ignored_region,
    read_affines,
    read_detections,
    read_sequence,
    read_tracks,
    sequence_folders,
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


def test_boxes_and_affines_beyond_reason_are_named_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "det.txt"
    file.write_text("1,-1,10,10,20,40,0.9\n2,-1,10,3e38,20,40,0.9\n")
    with pytest.raises(ValueError, match=r"det.txt, line 2: expected a box within 1e\+07 pixels"):
        read_detections(file, 2)
    file.write_text("1,1,0,0,0,1,0\n2,0,0,5,0,0,5\n")
    with pytest.raises(ValueError, match=r"det.txt, line 2: expected an affine that can be inverted"):
        read_affines(file, 2)


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


def put_images(folder: Path, numbers: list[int]) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (64, 48)).save(folder / f"{number:06d}.jpg")


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ("1,-1,103,100,40,100,0.9,0\n1,-1,203,100,40,100,0.9,1\n1,-1,303,100,40,100,0.9,2\n", [0, 1, 2]),
        ("1,-1,340.8,79.5,87.7,244.3,0.998\n", [1]),
        ("1,-1,340.8,79.5,87.7,244.3,0.998,-1,-1,-1\n", [1]),
        ("1,-1,340.8,79.5,87.7,244.3,0.998,4.387,2.78,0\n", [1]),  # MOT15's world coordinates
        ("1,-1,340.8,79.5,87.7,244.3,0.998,4,2,0\n", [1]),  # the same in whole metres
        ("1,-1,1,1,5,5,0.9,2,-1,-1\n1,-1,9,1,5,5,0.9,-1,-1,-1\n", [2, 1]),  # this program's files
        ("1,-1,1,1,5,5,0.9,10000000\n", [10_000_000]),
    ],
)
def test_labels_are_the_classes_in_column_8_and_never_coordinates(tmp_path: Path, rows: str, labels: list[int]) -> None:
    assert read_detections(put(tmp_path, rows), 1)[0].labels.tolist() == labels
    results = "".join(f"{row.replace(',-1', f',{k}', 1)}\n" for k, row in enumerate(rows.splitlines()))
    assert read_tracks(put(tmp_path, results), 1)[0].labels.tolist() == labels


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ("1,1,399,182,121,229,1,2,1.0", 2),  # CVAT
        ("1,1,399,182,121,229,1,2,1.0,-1", 2),
        ("1,1,399,182,121,229,1,4,0,1", 4),  # VisDrone: class, truncation, occlusion
        ("1,9,499,158,31.03,75.17,1,-4.1554,-7.3591,0", 1),  # MOT15
        ("1,9,499,158,31.03,75.17,1,4.1554,0.3591,0", 1),
    ],
)
def test_ground_truth_of_nine_or_ten_columns_may_have_a_class(tmp_path: Path, row: str, label: int) -> None:
    assert read_tracks(put(tmp_path, row), 1, truth=True)[0].labels.tolist() == [label]


@pytest.mark.parametrize("label", ["1.5", "-2", "1e300"])
def test_a_class_that_is_no_whole_number_is_refused_with_its_line(tmp_path: Path, label: str) -> None:
    with pytest.raises(ValueError, match=r"rows.txt, line 2: expected a class in column 8"):
        read_detections(put(tmp_path, f"1,-1,1,1,5,5,1,1\n1,-1,1,1,5,5,1,{label}\n"), 1)


def test_results_keep_their_classes_and_label_1_is_written_as_before(tmp_path: Path) -> None:
    write_tracks(tmp_path / "a.txt", [Tracks.from_rows([[0, 0, 1, 1, 1, k, k] for k in (0, 1, 3)])])
    assert [row.split(",")[7:] for row in (tmp_path / "a.txt").read_text().splitlines()] == [
        ["0", "-1", "-1"],
        ["-1", "-1", "-1"],
        ["3", "-1", "-1"],
    ]
    assert read_tracks(tmp_path / "a.txt", 1)[0].labels.tolist() == [0, 1, 3]


def test_regions_to_be_ignored_are_rows_of_class_0_that_may_share_an_id(tmp_path: Path) -> None:
    rows = "1,0,0,0,200,100,0,0,0,0\n1,0,300,0,200,100,0,0,0,0\n1,5,10,10,20,40,1,1,0,0\n"
    (truth,) = read_tracks(put(tmp_path, rows), 1, truth=True)
    assert is_ignored_region(truth).tolist() == [True, True, False]
    assert considered_pedestrians(truth).ids.tolist() == [5]


def test_cvats_export_is_a_sequence_with_label_names(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    (folder / "gt").mkdir(parents=True)
    (folder / "gt/labels.txt").write_text("car\nperson\n")
    (folder / "gt/gt.txt").write_text("1,1,399,182,121,229,1,2,1.0\n7,1,399,182,121,229,1,2,1.0\n")
    (sequence,) = find_sequences(tmp_path)
    assert (sequence.name, len(sequence), sequence.frame_rate, sequence.has_seqinfo) == ("export", 7, 30.0, False)
    assert (sequence.width, sequence.height) == (519, 410)
    assert sequence.label_names() == {1: "car", 2: "person"}
    assert sequence.truth()[6].labels.tolist() == [2]
    assert find_sequences(folder) == [sequence]


def test_a_sequence_without_labels_txt_has_no_label_names(tmp_path: Path) -> None:
    assert read_sequence(make_sequence(tmp_path)).label_names() is None


def test_images_without_seqinfo_are_a_sequence_of_their_number_and_size(tmp_path: Path) -> None:
    put_images(tmp_path / "a" / "img1", [1, 2, 3])
    (sequence,) = find_sequences(tmp_path)
    assert (len(sequence), sequence.frame_rate, sequence.width, sequence.height) == (3, 30.0, 64, 48)
    assert [file.name for file in sequence.images() or []] == ["000001.jpg", "000002.jpg", "000003.jpg"]


def test_a_video_beside_ground_truth_gives_length_rate_and_size(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    make_sequence(tmp_path, **{"gt/gt.txt": "2,1,1,1,5,5,1,1,1\n"})
    (tmp_path / "a" / "seqinfo.ini").unlink()
    with av.open(str(tmp_path / "a" / "film.mkv"), "w") as container:  # mkv does not state its number of frames
        stream = container.add_stream("mpeg4", 12)
        stream.width, stream.height = 64, 48
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    sequence = read_sequence(tmp_path / "a")
    assert (len(sequence), sequence.frame_rate, sequence.width, sequence.height) == (9, 12.0, 64, 48)
    assert [len(frame) for frame in sequence.truth()] == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_the_number_in_an_images_name_is_the_frames_if_there_are_gaps(tmp_path: Path) -> None:
    numbers = [*range(1, 10), *range(20, 41)]
    put_images(tmp_path / "a" / "img1", numbers)
    (sequence,) = find_sequences(tmp_path)
    assert len(sequence) == 40
    files = sequence.images() or []
    assert [number for number, file in enumerate(files, 1) if file.is_file()] == numbers
    assert files[19].name == "000020.jpg"
    assert image_numbers(image_files(tmp_path / "a" / "img1")) == numbers


@pytest.mark.parametrize(
    "names",
    [
        ["0.jpg", "1.jpg"],
        ["100.jpg", "101.jpg"],
        ["a.jpg", "b.jpg"],
        ["0.jpg", "7.jpg"],
        ["20260101.jpg", "20260203.jpg"],
    ],
)
def test_images_without_gaps_or_from_0_are_numbered_in_order(names: list[str]) -> None:
    assert image_numbers([Path(name) for name in names]) == [1, 2]


def test_gaps_beyond_the_stated_length_are_refused(tmp_path: Path) -> None:
    make_sequence(tmp_path, length=3)
    put_images(tmp_path / "a" / "img1", [1, 2, 9])
    with pytest.raises(ValueError, match=r"img1: images are numbered up to 9 with gaps, expected seqLength=9"):
        read_sequence(tmp_path / "a").images()


def test_images_that_end_before_the_sequence_are_refused(tmp_path: Path) -> None:
    make_sequence(tmp_path, length=5)
    put_images(tmp_path / "a" / "img1", [1, 2, 3])
    with pytest.raises(ValueError, match=r"img1: expected 5 frames as seqinfo.ini says, found 3"):
        read_sequence(tmp_path / "a").images()


@pytest.mark.parametrize("key", ["seqLength", "imWidth"])
def test_a_number_in_seqinfo_that_would_size_memory_is_refused(tmp_path: Path, key: str) -> None:
    ini = INI.format(length=5).replace(f"{key}=", f"{key}=9999999")
    with pytest.raises(ValueError, match=rf"seqinfo.ini: {key}: expected at most"):
        read_sequence(make_sequence(tmp_path, **{"seqinfo.ini": ini}))


def test_a_frame_number_that_would_size_memory_is_refused(tmp_path: Path) -> None:
    make_sequence(tmp_path, **{"gt/gt.txt": "99999999999,1,1,1,5,5,1,1,1\n"})
    (tmp_path / "a" / "seqinfo.ini").unlink()
    with pytest.raises(ValueError, match=r"gt.txt, line 1: expected a frame number from 1 to"):
        read_sequence(tmp_path / "a")


def test_a_sequence_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected seqinfo.ini, img1/, a video, gt/gt.txt or det/"):
        read_sequence(tmp_path)


def test_real_sequences_are_read_as_before(track_data: Path) -> None:
    sequence = read_sequence(track_data / "MOT15/train/TUD-Campus")
    assert isinstance(sequence, MotSequence)
    assert {label for frame in sequence.truth() for label in frame.labels.tolist()} == {1}
    (kitti,) = find_sequences(track_data / "KITTI", names=["0000"])
    assert {label for frame in kitti.detections("det/permatrack.txt") for label in frame.labels.tolist()} == {1, 2, 3}


@pytest.mark.parametrize(("videos", "count"), [(["a.mp4"], 1), (["a.mp4", "b.mp4"], 0)])
def test_detections_beside_one_video_are_a_sequence(tmp_path: Path, videos: list[str], count: int) -> None:
    (tmp_path / "det").mkdir()
    for file in ("det/det.txt", *videos):
        (tmp_path / file).touch()
    assert len(sequence_folders(tmp_path)) == count
