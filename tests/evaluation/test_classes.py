"""Classes of ground truth and of results: which are scored, and how those of both sides match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import pytest

from track.evaluation.classes import ClassPairs, choose_classes, classes_of, label_truth, protocol_notes, split_classes
from track.evaluation.detection import detection_pairs, evaluate_detection_classes, evaluate_detections, join_classes
from track.evaluation.tracking import MEAN, OVERALL, evaluate_classes, evaluate_tracking
from track.structures import Tracks

Classes = str | int | Sequence[str | int]
FRAMES = 6
CVAT = {1: "car", 2: "person"}


def video(*labels: int, flag: float = 1, first: int = 0) -> list[Tracks]:
    """One object for each label in every frame, side by side from place `first` on."""
    places = enumerate(labels, first)
    return [Tracks.from_rows([[100 * k, 0, 100 * k + 40, 80, flag, label, k + 1] for k, label in places])] * FRAMES


def both(a: list[Tracks], b: list[Tracks]) -> list[Tracks]:
    return [Tracks.cat(pair) for pair in zip(a, b, strict=True)]


def split(
    truth: list[Tracks],
    results: list[Tracks],
    names: Mapping[int, str] | None = None,
    result_names: Mapping[int, str] | None = None,
    classes: Classes = "auto",
) -> ClassPairs[Tracks]:
    labelled = label_truth({"one": truth}, {"one": names or {}})
    return split_classes(labelled, {"one": results}, result_names, classes)


def hota(scored: ClassPairs[Tracks]) -> dict[str, float]:
    """HOTA of each class."""
    return {name: evaluate_tracking(pairs).loc[OVERALL, "HOTA"] for name, pairs in scored.pairs.items()}


@pytest.mark.parametrize(
    ("truth", "results", "note"),
    [
        ([1, 2, 3], [1, 2, 3], None),
        ([1, 2, 3], [0, 1, 2], "label 0 of the results is class 1"),
        ([0, 1, 2], [1, 2, 3], "label 1 of the results is class 0"),
        ([1, 3], [0, 2], "label 0 of the results is class 1"),
        ([0, 1], [0, 1], None),
        ([10**7, 5], [10**7, 5], None),
    ],
)
def test_each_class_is_matched_by_number(truth: list[int], results: list[int], note: str | None) -> None:
    scored = split(video(*truth), video(*results))
    assert hota(scored) == {str(label): 100 for label in sorted(truth)}
    assert scored.notes == ([note] if note else [])


def test_classes_are_matched_by_name_where_both_sides_have_names() -> None:
    coco = {1: "Person", 3: "car"}
    assert hota(split(video(1, 2), video(3, 1), CVAT, coco)) == {"car": 100, "person": 100}
    assert hota(split(video(1, 2), video(1, 2), CVAT, coco)) == {"car": 0, "person": 0}


@pytest.mark.parametrize("label", [1, 2, 7, 8, 12])
def test_a_single_class_on_both_sides_matches_whatever_its_number(label: int) -> None:
    assert hota(split(video(label), video(1))) == {str(label): 100}
    assert hota(split(video(label), video(0), {label: "bee"})) == {"bee": 100}


def test_single_classes_of_different_names_are_refused_with_both_names() -> None:
    with pytest.raises(ValueError, match=r"a class of the ground truth \(car\), got person; classes=any"):
        split(video(1), video(1), {1: "car"}, {1: "person"})
    assert hota(split(video(1), video(1), {1: "pedestrian"}, {1: "person"})) == {"pedestrian": 100}
    assert hota(split(video(1), video(1), {1: "car"}, {1: "person"}, "any")) == {"any": 100}


def test_results_of_one_unnamed_class_are_people_where_the_ground_truth_names_them() -> None:
    truth = video(1, 2)  # a car and a person
    person = [frame[frame.ids == 2] for frame in video(1, 1)]
    from_zero = [Tracks(frame.boxes, frame.scores, 0 * frame.labels, frame.ids) for frame in person]
    assert hota(split(truth, from_zero, CVAT)) == {"person": 100}
    scored = split(truth, person, CVAT)
    assert hota(scored) == {"person": 100}
    assert scored.notes == ["all results count as person", "without results, not scored (classes=any: as one): car"]


def test_results_of_one_class_are_scored_on_that_class_alone() -> None:
    scored = split(video(1, 3), video(1))
    assert hota(scored) == {"1": 100}
    assert scored.notes == ["without results, not scored (classes=any: as one): class 3"]
    with pytest.raises(ValueError, match=r"\(2, 3\), got 1"):
        split(video(2, 3), video(1))


def test_a_class_that_several_results_lack_is_missed_and_one_without_ground_truth_is_not_scored() -> None:
    scored = split(video(1, 2, 3), video(1, 2, 4))
    assert hota(scored) == {"1": 100, "2": 100, "3": 0}
    assert scored.notes == ["without results, missed: class 3", "without ground truth, not scored: class 4"]


def test_classes_can_be_asked_for_by_name_and_number() -> None:
    assert hota(split(video(1, 2, 3), video(1, 2, 1), CVAT, classes="Person")) == {"person": 100}
    assert hota(split(video(1, 2, 3), video(1, 2, 3), CVAT, classes=["car", 3])) == {"car": 100, "3": 100}
    assert hota(split(video(1, 2, 3), video(1, 1, 1), classes="any")) == {"any": 100}
    assert hota(split(video(1, 2), video(1), CVAT, classes="car")) == {"car": 100}


def test_an_unknown_class_is_refused_before_there_are_results() -> None:
    labelled = label_truth({"one": video(1, 2)}, {"one": CVAT})
    assert classes_of(labelled) == ["car", "person"]
    with pytest.raises(ValueError, match=r"classes: expected some of the ground truth's \(car, person\), got bus"):
        choose_classes(labelled, ["bus"])


def test_ground_truth_without_the_wanted_class_is_refused_with_its_classes() -> None:
    with pytest.raises(ValueError, match=r"boxes of class 1 \(pedestrian\) with a flag .* its classes: 2, 7"):
        label_truth({"one": video(2, 7)}, protocol="motchallenge")
    with pytest.raises(ValueError, match=r"expected boxes with a flag .* its classes: car, person"):
        label_truth({"one": video(1, 2, flag=0)}, {"one": CVAT})
    assert classes_of(label_truth({"one": video()})) == []


def test_motchallenge_scores_pedestrians_only_and_other_classes_of_results_not_at_all() -> None:
    truth = both(video(1), video(8, 3, flag=0, first=1))
    labelled = label_truth({"MOT17-02": truth})
    coco = {1: "person", 2: "bicycle", 3: "car"}
    for names, labels in (({}, (1, 1, 3)), (coco, (1, 1, 3)), ({1: "car", 2: "person"}, (2, 2, 1))):
        scored = split_classes(labelled, {"MOT17-02": video(*labels)}, names)
        figures = evaluate_tracking(scored.pairs["1"]).loc["MOT17-02"]
        assert figures[["HOTA", "FP", "FN"]].tolist() == [100, 0, 0]
    with pytest.raises(ValueError, match=r"\(1\), got car"):
        split_classes(labelled, {"MOT17-02": video(3)}, coco)


def test_a_sequence_of_motchallenge_without_distractors_is_of_the_same_class_as_the_others() -> None:
    truth = {"MOT17-02": both(video(1), video(8, flag=0, first=1)), "dancetrack0004": video(1)}
    labelled = label_truth(truth)
    assert [one.protocol for one in labelled] == ["motchallenge", "plain"]
    scored = split_classes(labelled, {"MOT17-02": video(1, 1), "dancetrack0004": video(1)}, {1: "person"})
    assert hota(scored) == {"1": 100}
    assert scored.notes == protocol_notes(labelled) == []


def test_sequences_may_number_their_classes_differently() -> None:
    labelled = label_truth({"a": video(1, 2), "b": video(1, 2)}, {"a": CVAT, "b": {1: "person", 2: "car"}})
    by_name = split_classes(labelled, {"a": video(1, 2), "b": video(2, 1)}, CVAT)
    assert {name: list(pairs) for name, pairs in by_name.pairs.items()} == {"car": ["a", "b"], "person": ["a", "b"]}
    assert hota(by_name) == {"car": 100, "person": 100}


def test_ignored_regions_stay_with_every_class_by_number_or_by_name() -> None:
    region = [Tracks.from_rows([[180, 0, 400, 100, 0, 0, 0]])] * FRAMES
    named = [Tracks.from_rows([[180, 0, 400, 100, 1, 3, 9]])] * FRAMES
    for ignored, names in ((region, CVAT), (named, CVAT | {3: "ignored region"})):
        scored = split(both(video(1, 2), ignored), both(video(1, 2), video(1, 2, first=2)), names, CVAT)
        assert hota(scored) == {"car": 100, "person": 100}


def test_empty_results_miss_every_class() -> None:
    scored = split(video(1, 2), [Tracks.empty()] * FRAMES)
    assert evaluate_tracking(scored.pairs["any"]).loc["one", ["FN", "ML"]].tolist() == [2 * FRAMES, 2]


def test_what_was_judged_is_noted_unless_the_name_says_it() -> None:
    copy = both(video(1), video(8, flag=0, first=1))
    assert protocol_notes(label_truth({"MOT17-02": copy})) == []
    assert "distractor classes are removed in street" in protocol_notes(label_truth({"street": copy}))[0]
    assert "every flagged class is an object in street" in protocol_notes(label_truth({"street": video(1, 8)}))[0]
    assert protocol_notes(label_truth({"street": video(1, 3)})) == []


def test_the_table_has_a_row_per_class_their_mean_and_all_together() -> None:
    missing = [frame[frame.ids < 2] if k < 3 else frame for k, frame in enumerate(video(1, 2))]
    labelled = label_truth({"a": video(1, 2), "b": video(1)})
    scored = split_classes(labelled, {"a": missing, "b": video(1)})
    table = evaluate_classes(scored.pairs)
    assert table.index.tolist() == ["a", "b", "class 1", "class 2", MEAN, OVERALL]
    assert table.MOTA.tolist() == [75, 100, 100, 50, 75, pytest.approx(100 * 15 / 18)]
    assert table.FN.tolist() == [3, 0, 0, 3, 3, 3]
    assert table.FN.dtype == int
    assert table.IDs.tolist() == [1] * 6


def test_one_class_alone_has_the_figures_of_an_ordinary_table() -> None:
    truth, results = video(1, 1, 1), video(1, 1)
    ordinary = evaluate_tracking({"one": (truth, results)})
    as_class = evaluate_classes({"1": {"one": (truth, results)}})
    for row in ("one", "class 1", MEAN, OVERALL):
        pd.testing.assert_series_equal(as_class.loc[row], ordinary.loc[OVERALL], check_names=False, check_dtype=False)


def test_average_precision_of_several_classes_has_a_row_for_each() -> None:
    scored = split(video(1, 2), both(video(0), video(1, first=2)))  # the second class is detected at a wrong place
    classes = detection_pairs(scored.pairs)
    table = evaluate_detection_classes(classes)
    assert table.index.tolist() == ["one", "class 1", "class 2", OVERALL]
    assert table.AP50.tolist() == pytest.approx([50, 100, 0, 50], abs=0.01)
    assert table.recall.tolist() == pytest.approx([50, 100, 0, 50])
    pd.testing.assert_frame_equal(table.loc[["one", OVERALL]], evaluate_detections(join_classes(classes)))


def test_detections_of_own_classes_and_in_ignored_regions_are_scored_rightly() -> None:
    region = [Tracks.from_rows([[180, 0, 400, 100, 0, 0, 0]])] * FRAMES
    scored = split(both(video(8), region), video(1, 1, 1, 1))
    table = evaluate_detections(join_classes(detection_pairs(scored.pairs)))
    assert table.loc["one", "recall"] == 100
    assert table.loc["one", "precision"] == pytest.approx(50)  # of 4, 2 are in the region
