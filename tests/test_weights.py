"""What the shipped weights give on real data, so that no change moves it unseen."""

import pytest
import torch

from track.detection.cache import rounded
from track.detection.detector import Detector
from track.evaluation.detection import evaluate_detections, pedestrians
from track.evaluation.tracking import OVERALL, evaluate_tracking
from track.formats.mot import MotSequence, find_sequences
from track.media.sources import frames
from track.structures import Tracks
from track.tracking.camera_motion import OpticalFlow
from track.tracking.tracker import Tracker


def follow(sequence: MotSequence, camera: bool = False) -> list[Tracks]:
    tracker = Tracker()
    cameras: list[torch.Tensor | None] = list(sequence.affines()) if camera else [None] * len(sequence)
    frames = zip(sequence.detections("det/yolox.txt"), sequence.times, cameras, strict=True)
    return [tracker.update(seen, time, moved) for seen, time, moved in frames]


@pytest.mark.data
def test_golden_metrics_of_mot17(track_data):
    sequences = find_sequences(track_data / "MOT17/train", "val-half")
    figures = evaluate_tracking({s.name: (s.truth(), follow(s)) for s in sequences}).loc[OVERALL]
    assert [figures[name] for name in ("HOTA", "IDF1", "MOTA")] == pytest.approx([69.22, 81.31, 77.35], abs=0.3)
    assert figures["IDSW"] == pytest.approx(181, abs=10)


@pytest.mark.data
@pytest.mark.parametrize(
    ("camera", "every", "hota"),
    [(True, 1, 67.49), (False, 6, 64.73)],
)
def test_golden_metrics_of_a_moving_camera_and_of_a_slow_one(track_data, camera, every, hota):
    sequence = next(s for s in find_sequences(track_data / "MOT17/train", "val-half", every) if s.name == "MOT17-11")
    figures = evaluate_tracking({sequence.name: (sequence.truth(), follow(sequence, camera))}).loc[OVERALL]
    assert figures["HOTA"] == pytest.approx(hota, abs=0.5)


@pytest.mark.data
def test_golden_metrics_of_the_shipped_detector(track_data):
    sequence = next(s for s in find_sequences(track_data / "MOT15/train") if s.name == "TUD-Campus")
    detector, tracker, camera = Detector("fcos_mobilenet_v2_fpn"), Tracker(), OpticalFlow()
    seen, tracks = [], []
    for frame in frames(sequence.path / "img1", sequence.frame_rate):
        seen.append(rounded(detector(frame.image)))
        tracks.append(tracker.update(seen[-1], frame.time, camera(frame.image, seen[-1].boxes)))
    truth = sequence.truth()
    judged = [pedestrians(sequence.name, one) for one in truth]
    found = evaluate_detections({sequence.name: (judged, seen)}).loc[OVERALL]
    assert [found[name] for name in ("AP50", "recall", "precision")] == pytest.approx([81.08, 78.27, 93.98], abs=0.5)
    followed = evaluate_tracking({sequence.name: (truth, tracks)}).loc[OVERALL]
    assert [followed[name] for name in ("HOTA", "MOTA", "IDF1")] == pytest.approx([57.12, 71.59, 77.17], abs=1)
