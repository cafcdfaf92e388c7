"""Which classes of the ground truth are scored, and which results count as each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from track.evaluation.protocol import PROTOCOLS, has_official_name, ignored_regions, protocol_of
from track.formats.annotated import IGNORED_REGION
from track.formats.mot import PEDESTRIAN, distractor_classes
from track.structures import Detections, Tracks

AUTO = "auto"  # classes that both sides have
ANY = "any"  # all classes together
PERSON = ("person", "pedestrian", "people")  # one class, unless the ground truth has several of these
REGION_NAMES = ("ignored regions", "ignored region", "ignored", "ignore", "dontcare", "don't care")
Rows = TypeVar("Rows", bound=Detections)
Names = Mapping[int, str]


@dataclass(frozen=True)
class SequenceTruth:
    """The ground truth of one sequence, one `Tracks` per frame. names: of its labels. protocol: motchallenge, plain."""

    name: str
    frames: list[Tracks]
    names: Names
    protocol: str

    def class_of(self, label: int) -> str:
        """The class of a label: its name if it has one, else its number."""
        return self.names.get(label, str(label)) if self.protocol == "plain" else str(label)

    def class_called(self, name: str) -> str | None:
        """The class of that name, or None: different words for a person are equal if only one of them is used."""
        names = self.names if self.protocol == "plain" else {PEDESTRIAN: PERSON[0]}
        classes = {known: self.class_of(label) for label, known in names.items()}
        words = (name, *PERSON) if name in PERSON else (name,)
        return next((classes[word] for word in words if word in classes), None)

    def is_object(self, frame: Tracks) -> Tensor:
        """(N,) bool, the boxes of one frame that are scored, of whatever class."""
        flagged = frame.scores != 0
        return flagged if self.protocol == "plain" else flagged & (frame.labels == PEDESTRIAN)

    def labels(self) -> set[int]:
        """The labels of all objects."""
        return _labels(frame[self.is_object(frame)] for frame in self.frames)

    def of_class(self, name: str) -> list[Tracks]:
        """The frames with the objects of a class, or of `ANY`, as considered pedestrians, and with ignored regions.

        By `motchallenge`, all other boxes are included too, unflagged: some are distractors.
        """
        labels = torch.tensor([label for label in self.labels() if name in (ANY, self.class_of(label))])
        frames = []
        for frame, is_region in zip(self.frames, ignored_regions(self.frames), strict=True):
            chosen = self.is_object(frame) & torch.isin(frame.labels, labels)
            marked = replace(frame, scores=chosen.float(), labels=torch.where(chosen, PEDESTRIAN, frame.labels))
            frames.append(marked if self.protocol == "motchallenge" else marked[chosen | is_region])
        return frames


@dataclass(frozen=True)
class ClassPairs(Generic[Rows]):
    """What is scored: by class and by sequence, ground truth and predictions, one entry per frame.

    notes: what was decided about classes and is not obvious, in words.
    """

    pairs: dict[str, dict[str, tuple[list[Tracks], list[Rows]]]]
    notes: list[str]


def label_truth(
    truth: Mapping[str, Sequence[Tracks]], names: Mapping[str, Names] | None = None, protocol: str = AUTO
) -> list[SequenceTruth]:
    """Ground truth with the protocol of each sequence, by default judged from names, classes and flags.

    truth: for each sequence, one `Tracks` per frame, whose scores are flags. names: class names by label, for each
    sequence that has some. Raises ValueError for an unknown protocol, or if no box is to be scored.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol}")
    sequences = [_label(name, frames, (names or {}).get(name, {}), protocol) for name, frames in truth.items()]
    found = {one.names.get(k, str(k)) for one in sequences for k in _labels(one.frames) - {IGNORED_REGION}}
    if found and not classes_of(sequences):
        pedestrians = " of class 1 (pedestrian)" * any(one.protocol == "motchallenge" for one in sequences)
        expected = f"expected boxes{pedestrians} with a flag (column 7) other than 0, got none"
        raise ValueError(f"ground_truth: {expected}; its classes: {', '.join(sorted(found))}")
    return sequences


def classes_of(sequences: Sequence[SequenceTruth]) -> list[str]:
    """The classes of all objects, in the order of their labels."""
    labels = [(label, one) for one in sequences for label in one.labels()]
    return list(dict.fromkeys(one.class_of(label) for label, one in sorted(labels, key=lambda pair: pair[0])))


def choose_classes(sequences: Sequence[SequenceTruth], classes: str | int | Sequence[str | int] = AUTO) -> list[str]:
    """The classes to score: all if `auto`, `ANY` alone if `any`, or those of the given names or numbers.

    Raises ValueError, with the classes of the ground truth, for one that it does not have.
    """
    known = classes_of(sequences)
    if classes == ANY or not known:
        return [ANY]
    if classes == AUTO:
        return known
    asked = [classes] if isinstance(classes, str | int) else classes
    chosen = []
    for one in map(_clean, asked):
        called = [sequence.class_called(one) for sequence in sequences]
        numbered = [sequence.class_of(int(one)) for sequence in sequences if one.isdecimal()]
        match = next((name for name in [*called, *numbered] if name in known), None)
        if match is None:
            raise ValueError(f"classes: expected some of the ground truth's ({', '.join(known)}), got {one}")
        chosen.append(match)
    return list(dict.fromkeys(chosen))


def split_classes(
    sequences: Sequence[SequenceTruth],
    predictions: Mapping[str, Sequence[Rows]],
    names: Names | None = None,
    classes: str | int | Sequence[str | int] = AUTO,
) -> ClassPairs[Rows]:
    """The ground truth and predictions of each class that is scored.

    predictions: for each sequence, one entry per frame. names: class names of the predictions' labels, if known.
    classes: as in `choose_classes`. Classes match by name if both sides have names, else by number; predictions
    numbered from 0 match ground truth numbered from 1. Predictions of a single class count as the ground truth's only
    class, unless names differ. Raises ValueError, with the classes of both sides, if none match.
    """
    labels = sorted(_labels(frame for one in sequences for frame in predictions[one.name]))
    matching = _Matching(
        sequences, labels, _clean_names(names or {}), choose_classes(sequences, classes), classes == AUTO
    )
    scored = matching.scored()
    pairs: dict[str, dict[str, tuple[list[Tracks], list[Rows]]]] = {name: {} for name in scored}
    for name in scored:
        for one in sequences:
            rows = torch.tensor(matching.labels_of(name, one, scored), dtype=torch.long)
            chosen = [frame[torch.isin(frame.labels, rows)] for frame in predictions[one.name]]
            pairs[name][one.name] = one.of_class(name), chosen
    return ClassPairs(pairs, matching.notes(scored))


def protocol_notes(sequences: Sequence[SequenceTruth]) -> list[str]:
    """What was decided about the protocol of sequences for which both are plausible, in words."""
    guessed = [one.name for one in sequences if one.protocol == "motchallenge" and not has_official_name(one.name)]
    unnamed = [one for one in sequences if one.protocol == "plain" and not one.names]
    own = [one.name for one in unnamed if not _labels(one.frames).isdisjoint(distractor_classes(one.name))]
    notes = []
    if guessed:
        notes.append(f"MOTChallenge's distractor classes are removed in {_listed(guessed)} (protocol=plain: not)")
    if own:
        notes.append(f"every flagged class is an object in {_listed(own)} (protocol=motchallenge: pedestrians only)")
    return notes


@dataclass(frozen=True)
class _Matching:
    """Labels of predictions against classes of ground truth. chosen: the classes asked for; is_auto: none were."""

    sequences: Sequence[SequenceTruth]
    labels: list[int]
    names: Names
    chosen: list[str]
    is_auto: bool

    def scored(self) -> list[str]:
        """The classes that are scored. Raises ValueError if the predictions have none of them."""
        if self.chosen == [ANY]:
            return [ANY]
        if not self.labels:
            return [ANY] if self.is_auto else self.chosen
        if len(self.labels) == 1 and not self._are_named():
            if len(self.chosen) == 1:
                return self.chosen
            person = self._assumed_person()
            if person is not None:
                return [person]
        common = [name for name in self.chosen if name in self._predicted()]
        if not common:
            found, given = ", ".join(self.chosen), ", ".join(sorted(self._predicted()))
            expected = f"expected results of a class of the ground truth ({found}), got {given}"
            raise ValueError(f"{expected}; classes=any scores all classes as one")
        return common if self.is_auto and len(self.labels) == 1 else self.chosen

    def labels_of(self, name: str, sequence: SequenceTruth, scored: list[str]) -> list[int]:
        """The labels of predictions that count as a class."""
        counts_all = name == ANY or (len(self.labels) == 1 and len(scored) == 1)
        return [label for label in self.labels if counts_all or self._class_of(label, sequence) == name]

    def notes(self, scored: list[str]) -> list[str]:
        """What was decided and is not obvious, in words."""
        if scored == [ANY] or not self.labels:
            return []
        notes = []
        predicted = self._predicted()
        if len(self.labels) == 1 and len(scored) == 1:
            if predicted != set(scored) or not scored[0].isdecimal():
                notes.append(f"all results count as {_title(scored[0])}")
            predicted = set(scored)
        elif self._shift() and any(not self.names or not one.names for one in self.sequences):
            notes.append(f"label {self.labels[0]} of the results is class {self.labels[0] + self._shift()}")
        missing = [name for name in self.chosen if name not in scored]
        if missing:
            notes.append(f"without results, not scored (classes=any: as one): {_listed([*map(_title, missing)])}")
        missed = [name for name in scored if name not in predicted]
        if missed:
            notes.append(f"without results, missed: {_listed([*map(_title, missed)])}")
        unknown = sorted(predicted - set(classes_of(self.sequences)))
        if unknown:
            notes.append(f"without ground truth, not scored: {_listed([*map(_title, unknown)])}")
        return notes

    def _are_named(self) -> bool:
        return bool(self.names) and any(one.names or one.protocol == "motchallenge" for one in self.sequences)

    def _assumed_person(self) -> str | None:
        """The class of people, if the ground truth names one and the predictions have label 1 (or 0) alone, unnamed."""
        if [label + self._shift() for label in self.labels] != [PEDESTRIAN]:
            return None
        return next((name for one in self.sequences if (name := one.class_called(PERSON[0])) in self.chosen), None)

    def _predicted(self) -> set[str]:
        return {self._class_of(label, one) for label in self.labels for one in self.sequences}

    def _class_of(self, label: int, sequence: SequenceTruth) -> str:
        if self.names and (sequence.names or sequence.protocol == "motchallenge"):
            name = self.names.get(label, str(label))
            return sequence.class_called(name) or name
        return sequence.class_of(label + self._shift())

    def _shift(self) -> int:
        """What is added to the predictions' numbers: 1 if they start at 0 and the ground truth's do not, or -1."""
        truth = set().union(*(one.labels() for one in self.sequences))
        given = set(self.labels)
        if 0 in given - truth and len({label + 1 for label in given} & truth) >= len(given & truth):
            return 1
        if 0 in truth - given and len({label - 1 for label in given} & truth) > len(given & truth):
            return -1
        return 0


def _label(name: str, frames: Sequence[Tracks], names: Names, protocol: str) -> SequenceTruth:
    """A sequence with its protocol, and with the boxes of classes that are called ignored regions as such."""
    cleaned = _clean_names(names)
    regions = torch.tensor([label for label, text in cleaned.items() if text in REGION_NAMES], dtype=torch.long)
    marked = []
    for frame in frames:
        is_region = torch.isin(frame.labels, regions)
        labels = torch.where(is_region, IGNORED_REGION, frame.labels)
        marked.append(replace(frame, scores=torch.where(is_region, 0.0, frame.scores), labels=labels))
    decided = protocol_of(name, marked, cleaned) if protocol == AUTO else protocol
    return SequenceTruth(name, marked, cleaned, decided)


def _labels(frames: Iterable[Detections]) -> set[int]:
    return {label for frame in frames for label in frame.labels.unique().tolist()}


def _clean_names(names: Names) -> dict[int, str]:
    return {label: _clean(name) for label, name in names.items() if name.strip()}


def _clean(name: str | int) -> str:
    return str(name).strip().lower()


def _title(name: str) -> str:
    return f"class {name}" if name.isdecimal() else name


def _listed(words: list[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
