"""Trajectories: matched detections, augmentation, and sequences held out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert

from track.formats.mot import find_sequences
from track.training.trajectories import Trajectory, TrajectoryDataModule, TrajectoryDataset, read_trajectories


def straight(frames: int = 60, speed: float = 3.0) -> Trajectory:
    """A 20 by 40 box that moves to the right, detected exactly except in frames 10 to 12."""
    truth = np.stack([np.array([100 + speed * f, 100, 20, 40.0]) for f in range(frames)])
    detected = truth.copy()
    detected[10:13] = np.nan
    return Trajectory(truth, detected, np.full(frames, 0.9), np.tile(np.eye(3), (frames, 1, 1)), 30.0)


def write_sequence(root: Path) -> Path:
    """One sequence of 12 frames: a detected person (id 1), an undetected one (id 2), a car, a false positive."""
    folder = root / "a"
    for sub in ("gt", "det"):
        (folder / sub).mkdir(parents=True)
    (folder / "seqinfo.ini").write_text(
        "[Sequence]\nname=a\nframeRate=10\nseqLength=12\nimWidth=640\nimHeight=480\nimExt=.jpg\n"
    )
    rows = [
        f"{f},{i},{x},101,20,40,1,{label},1\n"
        for f in range(1, 13)
        for i, x, label in ((1, 11, 1), (2, 201, 1), (3, 401, 3))
    ]
    (folder / "gt" / "gt.txt").write_text("".join(rows))
    (folder / "det" / "d.txt").write_text(
        "".join(f"{f},-1,12,101,20,40,0.8\n{f},-1,301,1,9,9,0.9\n" for f in range(1, 13))
    )
    return root


def test_each_pedestrian_is_matched_to_the_detections_that_overlap_it(tmp_path: Path) -> None:
    one, other = read_trajectories(find_sequences(write_sequence(tmp_path))[0], "det/d.txt")
    assert one.truth[0].tolist() == [20, 120, 20, 40]
    assert one.detected[:, 0].tolist() == [21] * 12
    assert one.scores.tolist() == pytest.approx([0.8] * 12)
    assert np.isnan(other.detected).all()
    assert other.frame_rate == 10


@pytest.mark.parametrize(("in_sample", "unchanged"), [(False, (40, 70)), (True, (2, 20))])
def test_half_the_windows_have_unchanged_detections_but_a_tenth_of_in_sample_ones(
    in_sample: bool, unchanged: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    data = TrajectoryDataset([replace(straight(400), in_sample=in_sample)], observations=12)
    exact = 0
    for index in range(100):
        item = data[index % len(data)]
        known = (item["valid"] > 0) & item["targets"][:, 0, 0].isfinite()
        exact += bool((item["boxes"] - item["targets"][:, 0])[known].abs().max() < 1e-3)
    assert unchanged[0] <= exact <= unchanged[1]


def test_augmentation_keeps_observations_on_their_object() -> None:
    torch.manual_seed(0)
    data = TrajectoryDataset([straight(400)], observations=12)
    for index in range(len(data)):
        item = data[index]
        rows = (item["valid"] > 0) & item["targets"][:, 0, 0].isfinite()
        offset = box_convert(item["boxes"] - item["targets"][:, 0], "xyxy", "cxcywh")[rows]
        assert offset[:, :2].abs().max() < 5 * 0.06 * 40


def test_held_out_sequences_are_the_named_ones_or_every_sixth_or_the_last_of_few(tmp_path: Path) -> None:
    for name in "abcdefg":
        write_sequence(tmp_path / name)
        (tmp_path / name / "a").rename(tmp_path / name / f"s{name}")

    def held_out(root: Path, names: list[str] | None = None) -> list[str]:
        data = TrajectoryDataModule(str(root), detections="det/d.txt", held_out=names)
        data.setup("fit")
        return [sequence.name for sequence in data.held_out_sequences]

    assert held_out(tmp_path) == ["sf"]
    assert held_out(tmp_path, ["sa", "sg"]) == ["sa", "sg"]
    with pytest.raises(ValueError, match="expected sequences to train on and others to validate on"):
        held_out(tmp_path / "a")


def test_an_option_for_only_some_of_the_roots_is_refused() -> None:
    with pytest.raises(ValueError, match="split: expected one, or one for each of 2 roots, got 3"):
        TrajectoryDataModule(["a", "b"], ["all", "all", "all"])
    with pytest.raises(ValueError, match="in_sample: expected one, or one for each of 2 roots, got 1"):
        TrajectoryDataModule(["a", "b"], in_sample=[True])
