"""What the shipped weights give on real data, so that no change moves it unseen."""

import pytest
import torch

from track.metrics import OVERALL, score
from track.mot import Sequence, find_sequences
from track.structures import Tracks
from track.tracker import Tracker


def follow(sequence: Sequence, camera: bool = False) -> list[Tracks]:
    tracker = Tracker()
    cameras: list[torch.Tensor | None] = list(sequence.camera()) if camera else [None] * len(sequence)
    frames = zip(sequence.detections("det/yolox.txt"), sequence.times, cameras, strict=True)
    return [tracker.update(seen, time, moved) for seen, time, moved in frames]


@pytest.mark.data
def test_golden_metrics_of_mot17(track_data):
    sequences = find_sequences(track_data / "MOT17/train", "val-half")
    figures = score({s.name: (s.truth(), follow(s)) for s in sequences}).loc[OVERALL]
    assert [figures[name] for name in ("HOTA", "IDF1", "MOTA")] == pytest.approx([69.22, 81.31, 77.35], abs=0.3)
    assert figures["IDSW"] == pytest.approx(181, abs=10)


@pytest.mark.data
@pytest.mark.parametrize(
    ("camera", "every", "hota"),
    [(True, 1, 67.49), (False, 6, 64.73)],
)
def test_golden_metrics_of_a_moving_camera_and_of_a_slow_one(track_data, camera, every, hota):
    sequence = next(s for s in find_sequences(track_data / "MOT17/train", "val-half", every) if s.name == "MOT17-11")
    figures = score({sequence.name: (sequence.truth(), follow(sequence, camera))}).loc[OVERALL]
    assert figures["HOTA"] == pytest.approx(hota, abs=0.5)
