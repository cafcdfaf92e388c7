"""Parallel arrays and frames."""

import numpy as np
import pytest
import torch

from track.structures import Detections, Frame, Tracks, class_name

ROWS = Tracks.from_rows([[0, 0, 2, 4, 0.9, 1, 7], [1, 1, 3, 3, 0.4, 3, 2]])


def test_a_mask_selects_the_same_rows_of_every_column() -> None:
    selected = ROWS[ROWS.scores > 0.5]
    assert (selected.ids.tolist(), selected.labels.tolist(), selected.boxes.tolist()) == ([7], [1], [[0, 0, 2, 4]])


def test_cat_keeps_order_and_types() -> None:
    both = Tracks.cat([ROWS[1:], Tracks.empty(), ROWS[:1]])
    assert both.ids.tolist() == [2, 7]
    assert (both.boxes.dtype, both.scores.dtype, both.ids.dtype) == (torch.float32, torch.float32, torch.int64)


def test_empty_has_the_right_shapes() -> None:
    assert Detections.empty().boxes.shape == (0, 4)
    assert len(Tracks.empty()[Tracks.empty().scores > 0.5]) == 0


@pytest.mark.parametrize(
    ("boxes", "scores", "message"),
    [((2, 3), (2,), r"boxes: .*\(N, 4\)"), ((2, 4), (3,), r"scores: .*\(2,\), got \(3,\)")],
)
def test_columns_of_different_lengths_are_refused(
    boxes: tuple[int, ...], scores: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Detections(torch.zeros(boxes), torch.zeros(scores), torch.zeros(2, dtype=torch.long))


def test_columns_of_other_types_are_refused_with_the_expected_type() -> None:
    with pytest.raises(ValueError, match=r"boxes: expected a tensor of torch.float32, got torch.float64"):
        Detections(torch.zeros(1, 4).double(), torch.zeros(1), torch.zeros(1).long())
    with pytest.raises(ValueError, match=r"labels: expected a tensor of torch.int64, got list"):
        Detections(torch.zeros(1, 4), torch.zeros(1), [0])  # type: ignore[arg-type]


def test_a_blank_frame_has_its_size_and_takes_one_byte() -> None:
    frame = Frame.blank(1080, 1920, 0.5, 16)
    assert frame.is_blank
    assert (frame.image.shape, frame.image.dtype, int(frame.image.sum())) == ((3, 1080, 1920), torch.uint8, 0)
    assert frame.image.untyped_storage().nbytes() == 1
    assert not Frame(torch.zeros(3, 4, 6, dtype=torch.uint8), 0.0, 1).is_blank


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (5, 1)])
def test_a_blank_frame_may_have_any_size(height: int, width: int) -> None:
    assert Frame.blank(height, width, 0.0, 1).is_blank
    assert not Frame(torch.zeros(3, height, width, dtype=torch.uint8), 0.0, 1).is_blank


def test_a_grey_image_seen_as_three_channels_is_not_blank() -> None:
    assert not Frame(torch.zeros(1, 4, 6, dtype=torch.uint8).expand(3, 4, 6), 0.0, 1).is_blank


def test_a_label_without_a_name_is_called_by_its_number() -> None:
    assert [class_name(label, ["background", "person"]) for label in (1, 2, -1)] == ["person", "class 2", "class -1"]


BOXES = [[0.0, 0, 10, 20], [30, 0, 40, 20]]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8])
def test_arrays_of_any_numeric_type_become_detections(dtype: type) -> None:
    detections = Detections.from_numpy(
        np.array(BOXES, dtype), np.array([0.5, 1], np.float64), np.array([0, 7], np.int32)
    )
    assert detections.boxes.tolist() == BOXES
    assert (detections.scores.tolist(), detections.labels.tolist()) == ([0.5, 1], [0, 7])


def test_lists_tensors_and_nothing_become_detections() -> None:
    assert Detections.from_numpy(BOXES).scores.tolist() == [1, 1]
    assert Detections.from_numpy(torch.tensor(BOXES).double(), 0.5, 3).labels.tolist() == [3, 3]
    assert len(Detections.from_numpy([])) == len(Detections.from_numpy(np.zeros((0, 4)), [], [])) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2, 3]],), r"boxes: expected shape \(N, 4\), got \(1, 3\)"),
        ((["box"],), "boxes: expected numbers, got list"),
        ((BOXES, [0.5]), r"scores: expected shape \(2,\), got \(1,\)"),
        ((BOXES, 1.0, [0.5, 1]), "labels: expected whole numbers"),
    ],
)
def test_what_is_ambiguous_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detections.from_numpy(*arguments)


def test_a_row_and_an_iteration_are_tables_of_one_row() -> None:
    assert ROWS[0].ids.tolist() == [7]
    assert ROWS[-1].ids.tolist() == [2]
    assert [track.ids.item() for track in ROWS] == [7, 2]
    with pytest.raises(IndexError, match="row 2: expected one of 2"):
        ROWS[2]


def test_supervision_detections_come_in_and_go_out_with_their_data() -> None:
    supervision = pytest.importorskip("supervision")
    given = supervision.Detections(np.array(BOXES), data={"name": np.array(["a", "b"])})
    assert Detections.from_supervision(given).scores.tolist() == [1, 1]
    given.confidence, given.class_id = np.array([0.9, 0.8]), np.array([0, 0])
    tracks = Tracks.cat([Tracks(torch.tensor(BOXES), torch.ones(2), torch.zeros(2).long(), torch.tensor([4, 9]))])
    tracks = Tracks(tracks.boxes, tracks.scores, tracks.labels, tracks.ids, torch.tensor([1, 0]))
    back = tracks.to_supervision(given)
    assert (back.data["name"].tolist(), back.tracker_id.tolist()) == (["b", "a"], [4, 9])
    assert back.confidence.tolist() == [0.8, 0.9]
    assert tracks.to_supervision().tracker_id.tolist() == [4, 9]


def test_tracks_become_a_table_of_pandas() -> None:
    table = ROWS.to_pandas()
    assert list(table.columns) == ["x1", "y1", "x2", "y2", "score", "label", "id", "detection_row"]
    assert table.loc[0, ["x2", "id", "detection_row"]].tolist() == [2, 7, -1]
    assert len(Detections.empty().to_pandas()) == 0
