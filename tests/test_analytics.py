from collections.abc import Iterable
from math import isnan, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch

from track.analytics import Event, SceneAnalytics, crosses, distance_to_line, distance_to_polygon, speed
from track.formats.mot import read_tracks, write_tracks
from track.geometry import foot_points
from track.structures import Tracks

SIZE = (960, 540)
DOWN = (100, 0, 100, 200)  # drawn downwards: its left, for who looks along it, is where x is larger
SQUARE = [(100, 100), (200, 100), (200, 200), (100, 200)]
CATEGORIES = ["__background__", "person", "car"]


def at(*places: tuple[float, float], label: int = 1, first: int = 1) -> Tracks:
    """Tracks 40 wide and 100 high, so that 5 px are in doubt, with feet at the places and ids from `first` on."""
    return Tracks.from_rows([[x - 20, y - 100, x + 20, y, 1, label, first + k] for k, (x, y) in enumerate(places)])


def fold(scene: SceneAnalytics, frames: Iterable[Tracks], step: float = 0.5) -> list[Event]:
    """Every event of the frames, `step` seconds apart from 0 on."""
    events = []
    for number, tracks in enumerate(frames):
        scene.update(tracks, number * step)
        events += scene.events
    return events


def walk(*x: float, y: float = 150) -> list[Tracks]:
    return [at((place, y)) for place in x]


def totals(scene: SceneAnalytics, name: str) -> tuple[int, int]:
    return scene.entries[name].total(), scene.exits[name].total()


def test_feet_are_the_middle_of_the_lower_edge() -> None:
    assert foot_points(torch.tensor([[10.0, 20, 30, 90]])).tolist() == [[20, 90]]
    assert foot_points(torch.zeros(0, 4)).shape == (0, 2)


def test_the_right_of_who_looks_along_a_line_is_positive() -> None:
    points = torch.tensor([[50.0, 7], [500, -3], [0, 0]])
    rightwards = torch.tensor([[0.0, 0], [10, 0]])
    torch.testing.assert_close(distance_to_line(points, rightwards), torch.tensor([7.0, -3, 0]))
    torch.testing.assert_close(distance_to_line(points, rightwards.flip(0)), torch.tensor([-7.0, 3, 0]))
    diagonal = torch.tensor([[0.0, 0], [3, 4]])
    torch.testing.assert_close(distance_to_line(torch.tensor([[5.0, 0], [0, 5]]), diagonal), torch.tensor([-4.0, 3]))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ((5, 5), (5, -5), True),
        ((5, -5), (5, 5), True),
        ((5, 5), (5, 1), False),  # too short
        ((12, 5), (12, -5), False),  # beside the end
        ((9, -1), (12, 5), True),
        ((9, 5), (12, -1), False),  # passes where the line would go on
        ((-3, 0), (13, 0), False),  # along it
        ((5, 5), (5, 5), False),
        ((5, 5), (5, 0), True),  # onto it from the right: the line itself is left
        ((5, 0), (5, -5), False),  # so the rest of the way does not count again
    ],
)
def test_a_way_crosses_the_segment_and_not_the_line_it_lies_on(start: Any, end: Any, expected: bool) -> None:
    ways = (torch.tensor([place], dtype=torch.float64) for place in (start, end))
    assert crosses(*ways, torch.tensor([[0.0, 0], [10, 0]])).tolist() == [expected]


def test_distances_to_a_square_and_a_concave_polygon_are_those_of_hand() -> None:
    square = torch.tensor([[0.0, 0], [10, 0], [10, 10], [0, 10]])
    points = torch.tensor([[5.0, 5], [5, 2], [5, -2], [13, 14], [10, 5]])
    expected = torch.tensor([5.0, 2, -2, -5, 0])
    for corners in (square, square.flip(0), square.roll(1, 0), square[[0, 0, 1, 2, 2, 3]]):
        torch.testing.assert_close(distance_to_polygon(points, corners), expected)
    notched = torch.tensor([[0.0, 0], [10, 0], [10, 10], [5, 4], [0, 10]])  # a notch from below, its tip at (5, 4)
    points = torch.tensor([[5.0, 3], [5, 5], [5, 1], [1, 5], [5, 12]])
    expected = torch.tensor([1.0, -5 / sqrt(61), 1, 1, -40 / sqrt(61)])
    torch.testing.assert_close(distance_to_polygon(points, notched), expected)


def test_what_crossing_edges_enclose_twice_is_outside() -> None:
    angles = torch.tensor([0.0, 2, 4, 1, 3]) * 2 * torch.pi / 5
    star = 10 * torch.stack([angles.cos(), angles.sin()], 1)
    assert (distance_to_polygon(torch.tensor([[0.0, 0], [6, 0]]), star) > 0).tolist() == [False, True]


def test_who_walks_across_and_back_has_left_and_entered_once() -> None:
    scene = SceneAnalytics(SIZE, {"door": DOWN})
    events = fold(scene, walk(60, 80, 120, 140, 110, 90))
    assert events == [Event(1.0, 1, 1, "line", "door", "left"), Event(2.5, 1, 1, "line", "door", "entered")]
    assert totals(scene, "door") == (1, 1)
    fold(mirrored := SceneAnalytics(SIZE, {"door": DOWN[2:] + DOWN[:2]}), walk(80, 120))
    assert totals(mirrored, "door") == (1, 0)


@pytest.mark.parametrize(("last", "counted"), [(104, 0), (106, 1)])
def test_who_stands_on_a_line_and_jitters_is_counted_once_at_most(last: float, counted: int) -> None:
    scene = SceneAnalytics(SIZE, {"door": DOWN})
    fold(scene, walk(80, *[96, 104, 99, 101] * 9, last, *[96, 104, 99, 101] * 9))
    assert totals(scene, "door") == (0, counted)


@pytest.mark.parametrize(("height", "counted"), [(50, 1), (100, 0)])
def test_what_is_in_doubt_grows_with_the_box(height: float, counted: int) -> None:
    scene = SceneAnalytics(SIZE, {"door": DOWN})
    fold(scene, [Tracks.from_rows([[x - 5, 150 - height, x + 5, 150, 1, 1, 7]]) for x in (80, 104)])
    assert totals(scene, "door") == (0, counted)


def test_who_passes_beside_the_end_of_a_line_is_not_counted() -> None:
    scene = SceneAnalytics(SIZE, {"door": DOWN})
    assert fold(scene, [*walk(80, 120, 80, y=220), *walk(80, y=150), *walk(120, y=150)]) != []
    assert totals(scene, "door") == (0, 1)


@pytest.mark.parametrize(("seconds", "counted"), [(1, 1), (59, 1), (61, 0)])
def test_who_was_lost_and_comes_back_on_the_other_side_is_counted_for_a_minute(seconds: int, counted: int) -> None:
    scene = SceneAnalytics(SIZE, {"door": DOWN})
    fold(scene, [*walk(60, 80), *[Tracks.empty()] * (seconds - 1), *walk(120)], step=1.0)
    assert totals(scene, "door") == (0, counted)


def test_a_zone_counts_entries_exits_and_exact_seconds() -> None:
    scene = SceneAnalytics(SIZE, zones={"shop": SQUARE})
    events = fold(scene, walk(80, 110, 150, 190, 190, 199, 203, 220))
    assert [(event.time, event.direction) for event in events] == [(0.5, "entered"), (3.5, "left")]
    assert scene.dwell == {"shop": {1: 2.5}}  # inside from 0.5 s to 3 s, the border included, where he is in doubt
    assert scene.inside == {"shop": set()}


def test_who_is_first_seen_inside_has_not_entered_but_dwells() -> None:
    scene = SceneAnalytics(SIZE, zones={"shop": SQUARE})
    assert fold(scene, [at((150, 150), (150, 50))] * 5) == []
    assert (scene.inside, scene.dwell) == ({"shop": {1}}, {"shop": {1: 2.0}})


@pytest.mark.parametrize(("back", "seconds"), [(150, 5.0), (300, 1.0)])
def test_a_gap_counts_for_who_is_inside_at_both_ends(back: float, seconds: float) -> None:
    scene = SceneAnalytics(SIZE, zones={"shop": SQUARE})
    fold(scene, [*walk(150, 160), *[Tracks.empty()] * 3], step=1.0)
    assert scene.inside == {"shop": set()}
    scene.update(*walk(back), 5.0)
    assert scene.dwell == {"shop": {1: seconds}}


def test_a_uniform_walkers_speed_is_exact_and_a_newcomers_is_not_known() -> None:
    scene = SceneAnalytics(SIZE)
    for k in range(40):  # 3 px and 4 px a frame at 25 frames a second
        scene.update(at((3 * k, 100 + 4 * k)), 1000 + k / 25)
    assert scene.speeds == {1: pytest.approx(125)}
    scene.update(at((0, 0), first=2), 1002)
    assert list(scene.speeds) == [2]
    assert isnan(scene.speeds[2])
    assert isnan(speed([]))
    assert isnan(speed([(0, 1, 2)]))


def test_speed_is_of_the_last_half_second_and_in_metres_by_the_scale() -> None:
    scene = SceneAnalytics(SIZE, scale=0.02)
    places = [0.0] * 60 + [10.0 * k for k in range(1, 61)] + [600.0] * 20
    speeds = []
    for k, x in enumerate(places):
        scene.update(at((x, 100)), k / 30)
        speeds.append(scene.speeds[1])
    assert (speeds[59], speeds[119], speeds[139]) == pytest.approx((0, 6, 0))


def test_speed_is_robust_to_jitter() -> None:
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    scene, off, plain = SceneAnalytics(SIZE), [], []
    for k, (x, y) in enumerate(noise.tolist()):
        scene.update(at((4 * k + x, 100 + y)), k / 30)
        off.append(scene.speeds[1] - 120)
        plain.append(30 * (4 + x - noise[k - 1, 0].item()) - 120)
    off, plain = torch.tensor(off[20:]), torch.tensor(plain[20:])
    assert off.abs().mean() < 0.1 * plain.abs().mean()
    assert off.mean().abs() < 1


def test_a_video_slower_than_half_a_second_has_speeds_too() -> None:
    scene = SceneAnalytics(SIZE)
    fold(scene, walk(0, 30, 60, 90), step=2.0)
    assert scene.speeds == {1: pytest.approx(15)}


def test_the_heatmap_sums_to_the_seconds_present_in_their_cells() -> None:
    scene = SceneAnalytics(SIZE)
    fold(scene, [*[at((5, 5), (955, 600))] * 11, *[at((25, 39))] * 4, Tracks.empty()])
    assert scene.heatmap.shape == (54, 96)
    assert (scene.heatmap[0, 0].item(), scene.heatmap[53, 95].item(), scene.heatmap[3, 2].item()) == (5, 5, 2)
    assert scene.heatmap.sum().item() == 12
    assert SceneAnalytics((100, 31)).heatmap.shape == (30, 96)


def test_distinct_ids_are_counted_for_each_class_and_an_id_under_its_latest() -> None:
    scene = SceneAnalytics(SIZE)
    fold(scene, [at((0, 50), (100, 50)), at((0, 50)), Tracks.cat([at((0, 50)), at((300, 50), label=2, first=9)])])
    assert (scene.counts, scene.visible) == ({1: 2, 2: 1}, {1: 1, 2: 1})
    scene.update(at((0, 50), label=2), 10.0)
    assert (scene.counts, scene.visible) == ({1: 1, 2: 2}, {2: 1})
    scene.update(at((100, 50), label=2, first=2), 100.0)
    assert scene.counts == {2: 3}


def crowd(frames: int = 60) -> list[Tracks]:
    """Walkers to and fro over door and shop, quarter pixels, as a result file keeps them."""
    time = torch.arange(frames)[:, None]
    x = 150 + 120 * torch.cos(time / 9 + torch.arange(8))
    places = (torch.stack([x, (100 + 12 * torch.arange(8)).expand_as(x)], 2) * 4).round() / 4
    return [at(*map(tuple, row)) for row in places.tolist()]


def figures(frames: Iterable[Tracks]) -> tuple[Any, ...]:
    scene = SceneAnalytics(SIZE, {"door": DOWN}, {"shop": SQUARE})
    events = fold(scene, frames, 0.04)
    rest = scene.counts, scene.entries, scene.exits, scene.inside, scene.dwell, scene.speeds
    return events, scene.heatmap.tolist(), *rest, scene.summary(CATEGORIES)


def test_the_order_of_rows_changes_nothing() -> None:
    assert len(figures(crowd())[0]) > 20
    assert figures(tracks[torch.arange(7, -1, -1)] for tracks in crowd()) == figures(crowd())


def test_a_result_file_gives_the_same_figures_as_the_live_tracks(tmp_path: Path) -> None:
    write_tracks(tmp_path / "a.txt", crowd())
    assert figures(read_tracks(tmp_path / "a.txt", 60)) == figures(crowd())


def test_lines_and_zones_come_and_go_while_the_video_runs() -> None:
    scene = SceneAnalytics(SIZE)
    fold(scene, walk(80, 120))
    scene.add_line("door", DOWN)
    scene.add_zone("shop", SQUARE)
    assert (scene.lines["door"].tolist(), scene.zones["shop"].shape) == ([[100, 0], [100, 200]], (4, 2))
    for time, tracks in enumerate(walk(120, 80), 1):
        scene.update(tracks, time)
    assert (totals(scene, "door"), totals(scene, "shop")) == ((1, 0), (0, 1))
    scene.clear()
    scene.update(*walk(120), 3)
    assert (scene.events, scene.entries, scene.dwell, scene.counts) == ([], {}, {}, {1: 1})


def test_what_is_remembered_does_not_grow_with_the_video() -> None:
    scene = SceneAnalytics(SIZE, {"door": DOWN}, {"shop": SQUARE})
    fold(scene, (at((k % 200, 150), first=k // 10) for k in range(4000)), step=0.1)
    assert len(scene._paths) == 61  # an id a second
    assert {len(border.known) for border in scene._borders.values()} == {61}
    assert max(map(len, scene._paths.values())) <= 6
    assert scene.counts == {1: 400}


def test_a_summary_names_classes_lines_and_zones() -> None:
    scene = SceneAnalytics(
        SIZE, {"door": DOWN, "gate": (0, 500, 10, 500)}, {"shop": SQUARE, "yard": [(0, 0), (9, 0), (0, 9)]}
    )
    fold(scene, [at((80, 150)), at((110, 150)), Tracks.cat([at((190, 150)), at((150, 150), label=5, first=2)])])
    assert scene.summary(CATEGORIES).splitlines() == [
        "person: 1 so far, 1 now",
        "class 5: 1 so far, 1 now",
        "line door: 0 entered, 1 left (1 person)",
        "line gate: 0 entered, 0 left",
        "zone shop: 1 entered (1 person), 0 left, 2 inside now, dwell 0.2 s on average, 0.5 s at most",
        "zone yard: 0 entered, 0 left, 0 inside now",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lines": {"door": (1, 2, 3)}}, r"line door: expected four finite numbers x1, y1, x2, y2, got \(1, 2, 3\)"),
        ({"lines": {"door": (1, 2, 3, float("nan"))}}, "line door: expected four finite numbers"),
        ({"lines": {"door": "abcd"}}, "line door: expected four finite numbers"),
        ({"lines": {"door": (1, 2, 1, 2)}}, "line door: expected two different ends"),
        ({"zones": {"shop": SQUARE[:2]}}, "zone shop: expected three or more points"),
        ({"zones": {"shop": [*SQUARE, (1,)]}}, "zone shop: expected three or more points"),
        ({"zones": {"shop": [*SQUARE, (1, float("inf"))]}}, "zone shop: expected three or more points"),
        ({"zones": {"shop": [(0, 0), (5, 5), (9, 9)]}}, "zone shop: expected a polygon with an area"),
        ({"lines": {"a": DOWN}, "zones": {"a": SQUARE}}, "zone a: expected another name"),
        ({"scale": 0}, "scale: expected a positive number of metres in a pixel, got 0"),
        ({"scale": float("nan")}, "scale: expected a positive number"),
    ],
)
def test_what_is_no_line_zone_or_scale_is_refused_in_a_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as refusal:
        SceneAnalytics(SIZE, **options)
    assert "\n" not in str(refusal.value)


def test_time_that_does_not_increase_is_refused() -> None:
    scene = SceneAnalytics(SIZE)
    scene.update(at((1, 2)), 3.0)
    with pytest.raises(ValueError, match=r"time: expected more than the last frame's 3.0 s, got 3.0 s"):
        scene.update(at((1, 2)), 3.0)
