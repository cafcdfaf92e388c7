"""What the shipped weights give on real data, so that no change moves it unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from track.detection.detector import Detector
from track.evaluation.detection import evaluate_detections, pedestrians
from track.evaluation.tracking import OVERALL, evaluate_tracking
from track.formats.mot import MotSequence, find_sequences
from track.media.sources import SequenceSource
from track.pipeline import Pipeline, camera_motion_for, detections_from_file
from track.structures import TrackedFrame, Tracks
from track.tracking.camera_motion import OpticalFlow
from track.tracking.tracker import Tracker


def track(sequence: MotSequence, camera: str = "none") -> list[Tracks]:
    source = SequenceSource(sequence).without_pixels()
    detections = detections_from_file("det/yolox.txt", source)
    pipeline = Pipeline(detections, camera_motion_for(camera, source), Tracker())
    return [result.tracks for result in pipeline(source)]


@pytest.mark.data
def test_golden_metrics_of_mot17(track_data: Path) -> None:
    sequences = find_sequences(track_data / "MOT17/train", "val-half")
    figures = evaluate_tracking({s.name: (s.truth(), track(s)) for s in sequences}).loc[OVERALL]
    assert [figures[name] for name in ("HOTA", "IDF1", "MOTA")] == pytest.approx([69.71, 81.72, 79.05], abs=0.3)
    assert figures["IDSW"] == pytest.approx(167, abs=10)


@pytest.mark.data
@pytest.mark.parametrize(("camera", "stride", "hota"), [("file", 1, 69.29), ("none", 6, 66.90)])
def test_golden_metrics_of_a_moving_camera_and_of_a_low_frame_rate(
    track_data: Path, camera: str, stride: int, hota: float
) -> None:
    (sequence,) = find_sequences(track_data / "MOT17/train", "val-half", stride, names=["MOT17-11"])
    figures = evaluate_tracking({sequence.name: (sequence.truth(), track(sequence, camera))}).loc[OVERALL]
    assert figures["HOTA"] == pytest.approx(hota, abs=0.5)


@pytest.mark.data
def test_golden_metrics_of_the_packaged_detector(track_data: Path) -> None:
    (sequence,) = find_sequences(track_data / "MOT15/train", names=["TUD-Campus"])
    pipeline = Pipeline(Detector("fcos_mobilenet_v2_fpn"), OpticalFlow(), Tracker())
    results: list[TrackedFrame] = list(pipeline(SequenceSource(sequence)))
    truth = sequence.truth()
    judged = [pedestrians(sequence.name, one) for one in truth]
    detected = [result.observation.detections for result in results]
    detection = evaluate_detections({sequence.name: (judged, detected)}).loc[OVERALL]
    assert [detection[name] for name in ("AP50", "recall", "precision")] == pytest.approx(
        [81.08, 78.27, 93.98], abs=0.5
    )
    tracking = evaluate_tracking({sequence.name: (truth, [result.tracks for result in results])}).loc[OVERALL]
    assert [tracking[name] for name in ("HOTA", "MOTA", "IDF1")] == pytest.approx([55.31, 71.87, 72.30], abs=1)
