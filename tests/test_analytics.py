"""Analytics: crossings, dwell times, speeds and heatmaps of paths computed by hand; malformed regions."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch

from track.analytics import Event, EventFile, SceneAnalytics, crosses, distance_to_line, distance_to_polygon, speed
from track.formats.mot import read_tracks, write_tracks
from track.geometry import foot_points, identity_affine
from track.structures import Detections, Frame, Observation, TrackedFrame, Tracks

SIZE = (960, 540)
DOWN = (100, 0, 100, 200)  # drawn downwards: its left side is where x is larger
SQUARE = [(100, 100), (200, 100), (200, 200), (100, 200)]
NAMES = ["__background__", "person", "car"]


def at(*places: tuple[float, float], label: int = 1, first: int = 1) -> Tracks:
    """Tracks 40 wide and 100 high, uncertain within 5 px, with foot points at the places and ids from `first` on."""
    return Tracks.from_rows([[x - 20, y - 100, x + 20, y, 1, label, first + k] for k, (x, y) in enumerate(places)])


def run(analytics: SceneAnalytics, frames: Iterable[Tracks], step: float = 0.5) -> list[Event]:
    """Every event of the frames, `step` seconds apart from 0 on."""
    events = []
    for number, tracks in enumerate(frames):
        analytics.update(tracks, number * step)
        events += analytics.events
    return events


def walk(*x: float, y: float = 150) -> list[Tracks]:
    return [at((place, y)) for place in x]


def totals(analytics: SceneAnalytics, name: str) -> tuple[int, int]:
    return analytics.entries[name].total(), analytics.exits[name].total()


def test_foot_points_are_the_middle_of_the_lower_edge() -> None:
    assert foot_points(torch.tensor([[10.0, 20, 30, 90]])).tolist() == [[20, 90]]
    assert foot_points(torch.zeros(0, 4)).shape == (0, 2)


def test_the_distance_to_a_line_is_positive_on_its_right() -> None:
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
        ((9, 5), (12, -1), False),  # crosses the extension of the line
        ((-3, 0), (13, 0), False),  # along it
        ((5, 5), (5, 5), False),
        ((5, 5), (5, 0), True),  # onto it from the right: the line belongs to its left
        ((5, 0), (5, -5), False),  # so the rest of the path does not count again
    ],
)
def test_a_path_crosses_the_segment_and_not_its_extension(start: Any, end: Any, expected: bool) -> None:
    ends = (torch.tensor([place], dtype=torch.float64) for place in (start, end))
    assert crosses(*ends, torch.tensor([[0.0, 0], [10, 0]])).tolist() == [expected]


def test_distances_to_a_square_and_a_concave_polygon_are_those_computed_by_hand() -> None:
    square = torch.tensor([[0.0, 0], [10, 0], [10, 10], [0, 10]])
    points = torch.tensor([[5.0, 5], [5, 2], [5, -2], [13, 14], [10, 5]])
    expected = torch.tensor([5.0, 2, -2, -5, 0])
    for corners in (square, square.flip(0), square.roll(1, 0), square[[0, 0, 1, 2, 2, 3]]):
        torch.testing.assert_close(distance_to_polygon(points, corners), expected)
    notched = torch.tensor([[0.0, 0], [10, 0], [10, 10], [5, 4], [0, 10]])  # a notch from below, its tip at (5, 4)
    points = torch.tensor([[5.0, 3], [5, 5], [5, 1], [1, 5], [5, 12]])
    expected = torch.tensor([1.0, -5 / sqrt(61), 1, 1, -40 / sqrt(61)])
    torch.testing.assert_close(distance_to_polygon(points, notched), expected)


def test_a_doubly_enclosed_part_of_a_self_intersecting_polygon_is_outside() -> None:
    angles = torch.tensor([0.0, 2, 4, 1, 3]) * 2 * torch.pi / 5
    star = 10 * torch.stack([angles.cos(), angles.sin()], 1)
    assert (distance_to_polygon(torch.tensor([[0.0, 0], [6, 0]]), star) > 0).tolist() == [False, True]


def test_walking_across_a_line_and_back_is_one_exit_and_one_entry() -> None:
    analytics = SceneAnalytics(SIZE, {"door": DOWN})
    events = run(analytics, walk(60, 80, 120, 140, 110, 90))
    assert events == [Event(1.0, 1, 1, "line", "door", "left"), Event(2.5, 1, 1, "line", "door", "entered")]
    assert totals(analytics, "door") == (1, 1)
    run(mirrored := SceneAnalytics(SIZE, {"door": DOWN[2:] + DOWN[:2]}), walk(80, 120))
    assert totals(mirrored, "door") == (1, 0)


@pytest.mark.parametrize(("last", "counted"), [(104, 0), (106, 1)])
def test_a_track_that_jitters_on_a_line_is_counted_at_most_once(last: float, counted: int) -> None:
    analytics = SceneAnalytics(SIZE, {"door": DOWN})
    run(analytics, walk(80, *[96, 104, 99, 101] * 9, last, *[96, 104, 99, 101] * 9))
    assert totals(analytics, "door") == (0, counted)


@pytest.mark.parametrize(("height", "counted"), [(50, 1), (100, 0)])
def test_the_uncertain_margin_grows_with_the_box(height: float, counted: int) -> None:
    analytics = SceneAnalytics(SIZE, {"door": DOWN})
    run(analytics, [Tracks.from_rows([[x - 5, 150 - height, x + 5, 150, 1, 1, 7]]) for x in (80, 104)])
    assert totals(analytics, "door") == (0, counted)


def test_a_track_that_passes_beside_the_end_of_a_line_is_not_counted() -> None:
    analytics = SceneAnalytics(SIZE, {"door": DOWN})
    assert run(analytics, [*walk(80, 120, 80, y=220), *walk(80, y=150), *walk(120, y=150)]) != []
    assert totals(analytics, "door") == (0, 1)


@pytest.mark.parametrize(("seconds", "counted"), [(1, 1), (59, 1), (61, 0)])
def test_a_track_lost_on_one_side_and_found_on_the_other_is_counted_within_a_minute(seconds: int, counted: int) -> None:
    analytics = SceneAnalytics(SIZE, {"door": DOWN})
    run(analytics, [*walk(60, 80), *[Tracks.empty()] * (seconds - 1), *walk(120)], step=1.0)
    assert totals(analytics, "door") == (0, counted)


def test_a_zone_counts_entries_exits_and_exact_seconds() -> None:
    analytics = SceneAnalytics(SIZE, zones={"shop": SQUARE})
    events = run(analytics, walk(80, 110, 150, 190, 190, 199, 203, 220))
    assert [(event.time, event.direction) for event in events] == [(0.5, "entered"), (3.5, "left")]
    assert analytics.dwell == {"shop": {1: 2.5}}  # inside from 0.5 s to 3 s, uncertain near the border
    assert analytics.inside == {"shop": set()}


def test_a_track_that_appears_inside_has_not_entered_but_dwells() -> None:
    analytics = SceneAnalytics(SIZE, zones={"shop": SQUARE})
    assert run(analytics, [at((150, 150), (150, 50))] * 5) == []
    assert (analytics.inside, analytics.dwell) == ({"shop": {1}}, {"shop": {1: 2.0}})


@pytest.mark.parametrize(("back", "seconds"), [(150, 5.0), (300, 1.0)])
def test_a_gap_counts_as_dwell_if_both_its_ends_are_inside(back: float, seconds: float) -> None:
    analytics = SceneAnalytics(SIZE, zones={"shop": SQUARE})
    run(analytics, [*walk(150, 160), *[Tracks.empty()] * 3], step=1.0)
    assert analytics.inside == {"shop": set()}
    analytics.update(*walk(back), 5.0)
    assert analytics.dwell == {"shop": {1: seconds}}


def test_a_uniform_speed_is_exact_and_that_of_a_new_track_is_nan() -> None:
    analytics = SceneAnalytics(SIZE)
    for k in range(40):  # 3 px and 4 px per frame at 25 frames per second
        analytics.update(at((3 * k, 100 + 4 * k)), 1000 + k / 25)
    assert analytics.speeds == {1: pytest.approx(125)}
    analytics.update(at((0, 0), first=2), 1002)
    assert list(analytics.speeds) == [2]
    assert isnan(analytics.speeds[2])
    assert isnan(speed([]))
    assert isnan(speed([(0, 1, 2)]))


def test_speed_is_that_of_the_last_half_second_in_metres_by_the_scale() -> None:
    analytics = SceneAnalytics(SIZE, metres_per_pixel=0.02)
    places = [0.0] * 60 + [10.0 * k for k in range(1, 61)] + [600.0] * 20
    speeds = []
    for k, x in enumerate(places):
        analytics.update(at((x, 100)), k / 30)
        speeds.append(analytics.speeds[1])
    assert (speeds[59], speeds[119], speeds[139]) == pytest.approx((0, 6, 0))


def test_speed_is_robust_to_jitter() -> None:
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    analytics, errors, naive_errors = SceneAnalytics(SIZE), [], []
    for k, (x, y) in enumerate(noise.tolist()):
        analytics.update(at((4 * k + x, 100 + y)), k / 30)
        errors.append(analytics.speeds[1] - 120)
        naive_errors.append(30 * (4 + x - noise[k - 1, 0].item()) - 120)
    error, naive_error = torch.tensor(errors[20:]), torch.tensor(naive_errors[20:])
    assert error.abs().mean() < 0.1 * naive_error.abs().mean()
    assert error.mean().abs() < 1


def test_frames_further_apart_than_half_a_second_have_speeds_too() -> None:
    analytics = SceneAnalytics(SIZE)
    run(analytics, walk(0, 30, 60, 90), step=2.0)
    assert analytics.speeds == {1: pytest.approx(15)}


def test_the_heatmap_sums_to_the_seconds_present_in_their_cells() -> None:
    analytics = SceneAnalytics(SIZE)
    run(analytics, [*[at((5, 5), (955, 600))] * 11, *[at((25, 39))] * 4, Tracks.empty()])
    assert analytics.heatmap.shape == (54, 96)
    assert (analytics.heatmap[0, 0].item(), analytics.heatmap[53, 95].item(), analytics.heatmap[3, 2].item()) == (
        5,
        5,
        2,
    )
    assert analytics.heatmap.sum().item() == 12
    assert SceneAnalytics((100, 31)).heatmap.shape == (30, 96)


def test_distinct_ids_are_counted_per_class_each_under_its_latest() -> None:
    analytics = SceneAnalytics(SIZE)
    run(analytics, [at((0, 50), (100, 50)), at((0, 50)), Tracks.cat([at((0, 50)), at((300, 50), label=2, first=9)])])
    assert (analytics.counts, analytics.visible) == ({1: 2, 2: 1}, {1: 1, 2: 1})
    analytics.update(at((0, 50), label=2), 10.0)
    assert (analytics.counts, analytics.visible) == ({1: 1, 2: 2}, {2: 1})
    analytics.update(at((100, 50), label=2, first=2), 100.0)
    assert analytics.counts == {2: 3}


def crowd(frames: int = 60) -> list[Tracks]:
    """Walkers to and fro across the door and the shop, in quarter pixels, which a result file keeps exactly."""
    time = torch.arange(frames)[:, None]
    x = 150 + 120 * torch.cos(time / 9 + torch.arange(8))
    places = (torch.stack([x, (100 + 12 * torch.arange(8)).expand_as(x)], 2) * 4).round() / 4
    return [at(*map(tuple, row)) for row in places.tolist()]


def figures(frames: Iterable[Tracks]) -> tuple[Any, ...]:
    analytics = SceneAnalytics(SIZE, {"door": DOWN}, {"shop": SQUARE})
    events = run(analytics, frames, 0.04)
    rest = analytics.counts, analytics.entries, analytics.exits, analytics.inside, analytics.dwell, analytics.speeds
    return events, analytics.heatmap.tolist(), *rest, analytics.summary(NAMES)


def test_the_order_of_rows_changes_nothing() -> None:
    assert len(figures(crowd())[0]) > 20
    assert figures(tracks[torch.arange(7, -1, -1)] for tracks in crowd()) == figures(crowd())


def test_a_result_file_gives_the_same_figures_as_the_live_tracks(tmp_path: Path) -> None:
    write_tracks(tmp_path / "a.txt", crowd())
    assert figures(read_tracks(tmp_path / "a.txt", 60)) == figures(crowd())


def test_lines_and_zones_come_and_go_while_the_video_runs() -> None:
    analytics = SceneAnalytics(SIZE)
    run(analytics, walk(80, 120))
    analytics.add_line("door", DOWN)
    analytics.add_zone("shop", SQUARE)
    assert (analytics.lines["door"].tolist(), analytics.zones["shop"].shape) == ([[100, 0], [100, 200]], (4, 2))
    for time, tracks in enumerate(walk(120, 80), 1):
        analytics.update(tracks, time)
    assert (totals(analytics, "door"), totals(analytics, "shop")) == ((1, 0), (0, 1))
    analytics.clear()
    analytics.update(*walk(120), 3)
    assert (analytics.events, analytics.entries, analytics.dwell, analytics.counts) == ([], {}, {}, {1: 1})


def test_memory_grows_with_the_ids_and_not_with_the_frames() -> None:
    analytics = SceneAnalytics(SIZE, {"door": DOWN}, {"shop": SQUARE})
    run(analytics, (at((k % 200, 150), first=k // 10) for k in range(4000)), step=0.1)
    assert len(analytics._paths) == 61  # one id per second
    assert {len(region.positions) for region in analytics._regions.values()} == {61}
    assert max(map(len, analytics._paths.values())) <= 6
    assert analytics.counts == {1: 400}
    assert len(analytics._labels) == 400
    assert len(analytics.dwell["shop"]) <= 400
    assert len(analytics.events) <= 2  # of the last frame: one per line and zone

    long = SceneAnalytics(SIZE, {"door": DOWN}, {"shop": SQUARE})
    run(long, (at((80 + k % 60, 150)) for k in range(800)), step=0.1)  # one id only
    assert (len(long._paths), len(long._labels), len(long.dwell["shop"]), len(long.events)) == (1, 1, 1, 0)
    assert len(long._paths[1]) <= 6
    assert {len(region.positions) for region in long._regions.values()} == {1}


def test_a_summary_names_classes_lines_and_zones() -> None:
    analytics = SceneAnalytics(
        SIZE, {"door": DOWN, "gate": (0, 500, 10, 500)}, {"shop": SQUARE, "yard": [(0, 0), (9, 0), (0, 9)]}
    )
    run(analytics, [at((80, 150)), at((110, 150)), Tracks.cat([at((190, 150)), at((150, 150), label=5, first=2)])])
    assert analytics.summary(NAMES).splitlines() == [
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
        ({"metres_per_pixel": 0}, "metres_per_pixel: expected a positive number, got 0"),
        ({"metres_per_pixel": float("nan")}, "metres_per_pixel: expected a positive number"),
    ],
)
def test_a_malformed_line_zone_or_scale_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as refusal:
        SceneAnalytics(SIZE, **options)
    assert "\n" not in str(refusal.value)


def test_time_that_does_not_increase_is_refused() -> None:
    analytics = SceneAnalytics(SIZE)
    analytics.update(at((1, 2)), 3.0)
    with pytest.raises(ValueError, match=r"time: expected more than the last frame's 3.0 s, got 3.0 s"):
        analytics.update(at((1, 2)), 3.0)


def tracked(tracks: Tracks, time: float, number: int = 1) -> TrackedFrame:
    observation = Observation(number, time, Detections.empty(), identity_affine())
    return TrackedFrame(Frame.blank(54, 96, time, number), observation, tracks)


def test_the_first_frame_written_sets_the_size_of_the_heatmap() -> None:
    analytics = SceneAnalytics()
    assert analytics.heatmap.shape == (0, 0)
    for number, tracks in enumerate([*[at((5, 5))] * 3, at((95, 53))]):
        analytics.write(tracked(tracks, number / 2))
    assert analytics.heatmap.shape == (54, 96)
    assert (analytics.heatmap[5, 5].item(), analytics.heatmap[53, 95].item()) == (1.0, 0.5)


def write_events(path: Path, analytics: SceneAnalytics, videos: Iterable[Tracks]) -> None:
    file = EventFile(path, analytics, NAMES)
    for number, tracks in enumerate(videos):
        result = tracked(tracks, number / 2)
        analytics.write(result)
        file.write(result)


def test_each_frames_events_are_appended_to_the_file(tmp_path: Path) -> None:
    analytics = SceneAnalytics(SIZE, {"door": DOWN}, {"shop": SQUARE})
    write_events(tmp_path / "new/events.csv", analytics, [*walk(80, 110), *[at((110, 150), label=5)] * 3, *walk(80)])
    assert (tmp_path / "new/events.csv").read_text().splitlines() == [
        "time,id,class,kind,name,direction",
        "0.500,1,person,line,door,left",
        "0.500,1,person,zone,shop,entered",
        "2.500,1,person,line,door,entered",
        "2.500,1,person,zone,shop,left",
    ]


def test_an_event_of_a_class_without_a_name_has_its_number(tmp_path: Path) -> None:
    analytics = SceneAnalytics(SIZE, {"door": DOWN})
    write_events(tmp_path / "events.csv", analytics, [at((80, 150), label=5), at((110, 150), label=5)])
    assert (tmp_path / "events.csv").read_text().splitlines()[1] == "0.500,1,class 5,line,door,left"


def test_the_event_file_has_a_header_from_the_first_frame_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("of an earlier run")
    write_events(tmp_path / "events.csv", SceneAnalytics(SIZE, {"door": DOWN}), walk(80))
    assert (tmp_path / "events.csv").read_text().splitlines() == ["time,id,class,kind,name,direction"]


def test_without_lines_and_zones_there_is_no_event_file(tmp_path: Path) -> None:
    write_events(tmp_path / "events.csv", SceneAnalytics(SIZE), walk(80, 120))
    assert list(tmp_path.iterdir()) == []


def test_an_event_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.csv").mkdir()
    with pytest.raises(ValueError, match=r"events\.csv: expected a file that can be written \(Is a directory\)"):
        write_events(tmp_path / "events.csv", SceneAnalytics(SIZE, {"door": DOWN}), walk(80))
