from pathlib import Path

import pytest
import torch

from track.display.draw import Trails, TrajectoryImage, colour_of, draw
from track.evaluation.plots import plot_curves
from track.media.sources import frames
from track.structures import Tracks

IMAGE = torch.full((3, 120, 160), 90, dtype=torch.uint8)
TRACKS = Tracks.from_rows([[40, 50, 70, 100, 0.9, 1, 7]])


def test_a_box_is_drawn_in_its_ids_colour_and_the_input_stays() -> None:
    picture = draw(IMAGE, TRACKS)
    assert tuple(picture[:, 100, 55].tolist()) == colour_of(7)
    assert tuple(picture[:, 75, 55].tolist()) == (90, 90, 90)
    assert (IMAGE == 90).all()


def test_a_caption_at_the_right_edge_is_pushed_inside() -> None:
    tracks = Tracks.from_rows([[150, 60, 158, 100, 0.9, 1, 7]])
    picture = draw(IMAGE, tracks, captions=["person 7"])
    is_ink = (picture == torch.tensor(colour_of(7))[:, None, None]).all(0)
    assert is_ink[48:58].any(0).nonzero().min() < 110  # its box begins far left of the person
    whole = draw(torch.nn.functional.pad(IMAGE, (0, 100)), tracks, captions=["person 7"])
    whole_ink = (whole == torch.tensor(colour_of(7))[:, None, None]).all(0)
    assert is_ink[:59].sum() == pytest.approx(int(whole_ink[:59].sum()), rel=0.1)


def test_neighbouring_ids_have_colours_far_apart() -> None:
    colours = [colour_of(identity) for identity in range(12)]
    distances = [max(abs(a - b) for a, b in zip(colours[i], colours[i + 1], strict=True)) for i in range(11)]
    assert min(distances) > 60


def test_a_trail_follows_the_feet_and_fades_away() -> None:
    trails = Trails(length=5)
    for shift in range(20):
        trails.add(Tracks.from_rows([[40 + 2 * shift, 50, 70 + 2 * shift, 100, 0.9, 1, 7]]))
    assert list(trails.points[7]) == [(55 + 2 * shift, 100) for shift in range(15, 20)]
    for _ in range(6):
        trails.add(Tracks.empty())
    assert trails.points == {}


def test_trajectories_are_drawn_in_their_ids_colour() -> None:
    results = [Tracks.from_rows([[x, 50, x + 20, 100, 0.9, 1, 7]]) for x in range(0, 100, 5)]
    paths = TrajectoryImage()
    for tracks in results:
        paths.add(tracks, IMAGE)
    picture = paths.over(IMAGE)
    near = (picture.int() - torch.tensor(colour_of(7))[:, None, None]).abs().amax(0) < 12
    rows, columns = near.nonzero().T
    assert (rows.min(), rows.max()) == (99, 101)
    assert (columns.min(), columns.max()) == (9, 106)


def test_curves_are_drawn_from_lightnings_csv(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/map\n0,0,3.0,\n0,1,2.0,\n0,1,,0.5\n")
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert next(frames([tmp_path / "curves.png"])).image.float().std() > 5
