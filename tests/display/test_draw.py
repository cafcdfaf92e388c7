"""Drawings, read back from their pixels: boxes, trails, lines and zones, text and heatmaps."""

from __future__ import annotations

import pytest
import torch

from track.display.draw import Trails, TrajectoryImage, colour_of, draw, draw_heat, draw_regions, draw_text
from track.structures import Tracks

IMAGE = torch.full((3, 120, 160), 90, dtype=torch.uint8)
TRACKS = Tracks.from_rows([[40, 50, 70, 100, 0.9, 1, 7]])


def test_a_box_is_drawn_in_its_ids_colour_and_the_input_is_unchanged() -> None:
    image = draw(IMAGE, TRACKS)
    assert tuple(image[:, 100, 55].tolist()) == colour_of(7)
    assert tuple(image[:, 75, 55].tolist()) == (90, 90, 90)
    assert (IMAGE == 90).all()


def test_a_caption_at_the_right_edge_is_moved_inside() -> None:
    tracks = Tracks.from_rows([[150, 60, 158, 100, 0.9, 1, 7]])
    image = draw(IMAGE, tracks, captions=["person 7"])
    is_coloured = (image == torch.tensor(colour_of(7))[:, None, None]).all(0)
    assert is_coloured[48:58].any(0).nonzero().min() < 110  # the caption begins far left of the box
    whole = draw(torch.nn.functional.pad(IMAGE, (0, 100)), tracks, captions=["person 7"])
    whole_coloured = (whole == torch.tensor(colour_of(7))[:, None, None]).all(0)
    assert is_coloured[:59].sum() == pytest.approx(int(whole_coloured[:59].sum()), rel=0.1)


def test_consecutive_ids_have_distinct_colours() -> None:
    colours = [colour_of(identity) for identity in range(12)]
    distances = [max(abs(a - b) for a, b in zip(colours[i], colours[i + 1], strict=True)) for i in range(11)]
    assert min(distances) > 60


def test_a_trail_holds_the_last_foot_points_and_is_forgotten_with_its_track() -> None:
    trails = Trails(length=5)
    for shift in range(20):
        trails.add(Tracks.from_rows([[40 + 2 * shift, 50, 70 + 2 * shift, 100, 0.9, 1, 7]]))
    assert list(trails.points[7]) == [(55 + 2 * shift, 100) for shift in range(15, 20)]
    for _ in range(6):
        trails.add(Tracks.empty())
    assert trails.points == {}


def test_trajectories_are_drawn_in_their_ids_colour() -> None:
    results = [Tracks.from_rows([[x, 50, x + 20, 100, 0.9, 1, 7]]) for x in range(0, 100, 5)]
    trajectories = TrajectoryImage()
    for tracks in results:
        trajectories.add(tracks, IMAGE)
    image = trajectories.over(IMAGE)
    near = (image.int() - torch.tensor(colour_of(7))[:, None, None]).abs().amax(0) < 12
    rows, columns = near.nonzero().T
    assert (rows.min(), rows.max()) == (99, 101)
    assert (columns.min(), columns.max()) == (9, 106)


def test_trails_and_trajectories_do_not_grow_with_the_video() -> None:
    trails, trajectories = Trails(length=5), TrajectoryImage()
    for identity in range(500):
        tracks = Tracks.from_rows([[40, 50, 70, 100, 0.9, 1, identity]])
        trails.add(tracks)
        trajectories.add(tracks, IMAGE)
    assert sorted(trails.points) == sorted(trails._absent) == [494, 495, 496, 497, 498, 499]
    assert list(trajectories._feet) == [499]


@pytest.mark.parametrize(("line", "tip"), [([[80, 110], [80, 10]], (100, 60)), ([[80, 10], [80, 110]], (60, 60))])
def test_a_lines_arrow_points_to_its_right(line: list[list[int]], tip: tuple[int, int]) -> None:
    image = draw_regions(IMAGE, {"door": torch.tensor(line, dtype=torch.float64)})
    x, y = tip
    assert (image[:, y, x] >= 240).all()
    assert (image[:, y, 160 - x] == 90).all()
    assert (image[:, 30, 80] >= 240).all()  # on the line


def test_a_zone_is_drawn_closed() -> None:
    corners = torch.tensor([[40.0, 60], [120, 60], [120, 100], [40, 100]])
    image = draw_regions(IMAGE, {"hall": corners})
    assert (image[:, 80, 40] >= 240).all()  # the edge from the last corner to the first
    assert (image[:, 80, 80] == 90).all()


def test_without_regions_or_text_the_image_itself_is_returned() -> None:
    assert draw_regions(IMAGE, {}) is IMAGE
    assert draw_text(IMAGE, []) is IMAGE


def test_text_is_drawn_in_the_lower_left_corner() -> None:
    image = draw_text(IMAGE, ["one", "two"])
    changed = (image != IMAGE).any(0).nonzero()
    assert changed.amin(0).tolist() == [87, 0]  # two lines of 18 pixels, less the space above the first
    assert changed[:, 0].max() == 119


def test_heat_is_red_at_the_maximum_and_the_image_is_dimmed_elsewhere() -> None:
    heatmap = torch.zeros(12, 16, dtype=torch.float64)
    heatmap[6, 8] = 3.0
    image = draw_heat(IMAGE, heatmap)
    red, green, blue = image[:, 65, 85].tolist()
    assert red > 2 * max(green, blue)
    assert tuple(image[:, 5, 5].tolist()) == (63, 63, 63)


@pytest.mark.parametrize("far", [200.0, 1e4, 1e7, 3e9, 3e38])
def test_a_box_that_leaves_the_image_is_drawn_as_far_as_it_is_inside(far: float) -> None:
    image = draw(IMAGE, Tracks.from_rows([[-far, 40, 100, far, 0.9, 1, 7]]), captions=[""])
    is_coloured = (image == torch.tensor(colour_of(7))[:, None, None]).all(0)
    assert is_coloured[40, :101].all()
    assert is_coloured[40:, 100].all()
    is_coloured[39:42, :102] = False  # the upper edge, 2 pixels wide as OpenCV draws them
    is_coloured[39:, 99:102] = False  # the right edge
    assert not is_coloured[44:].any()  # below the caption's height


@pytest.mark.parametrize("box", [[170, 50, 1e7, 100], [-1e7, 50, -1, 100], [40, 130, 70, 1e7], [40, -1e7, 70, -3]])
def test_a_box_outside_the_image_has_no_caption(box: list[float]) -> None:
    assert torch.equal(draw(IMAGE, Tracks.from_rows([[*box, 0.9, 1, 7]])), IMAGE)


def test_trails_and_trajectories_from_far_outside_are_straight() -> None:
    trails, trajectories = Trails(), TrajectoryImage()
    for x1, y1, x2, y2 in ([-1e7, 0, -1e7, 60], [0, 0, 1e7, 60], [float("nan")] * 4, [3e38] * 4):
        tracks = Tracks.from_rows([[x1, y1, x2, y2, 0.9, 1, 7]])
        trails.add(tracks)
        trajectories.add(tracks, IMAGE)
    drawn = [draw(IMAGE, Tracks.empty(), trails), trajectories.over(torch.zeros_like(IMAGE))]
    for image, background in zip(drawn, (90, 0), strict=True):
        assert (image[:, 60, 20:140] != background).any(0).all()  # from -1e7 to 5e6, both at 60


def test_a_line_to_count_at_may_end_outside_the_image() -> None:
    image = draw_regions(IMAGE, {"": torch.tensor([[-1e9, 60.0], [1e7, 60.0]])})
    assert (image[:, 60, 10:] >= 200).all()  # right of the caption
