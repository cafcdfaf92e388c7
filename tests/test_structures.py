"""Parallel arrays and frames."""

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
