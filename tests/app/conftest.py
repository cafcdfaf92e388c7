"""What the tests of the commands track: two drawn streets, and a detector that finds boxes everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from track.datasets.streets import make_dataset
from track.detection.detector import build_detector, save_detector
from track.formats.mot import find_sequences, write_detections

EVERY_BOX = (  # of a detector of random weights
    *("tracker=bytetrack", "detector.min_score=0", "tracker.min_score=0", "tracker.min_hits=1"),
    "tracker.association.new_track_score=0",
)


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn sequences of 25 frames with their ground truth as detections."""
    root = make_dataset(tmp_path_factory.mktemp("streets"), 2, 25, seed=4)
    for sequence in find_sequences(root):
        write_detections(sequence.path / "det" / "det.txt", sequence.truth())
    return root


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option of a detector of random weights that finds boxes everywhere."""
    torch.manual_seed(0)
    network, categories = build_detector("small_fcos", None)
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    file = tmp_path_factory.mktemp("weights") / "d.safetensors"
    return f"detector.checkpoint={save_detector(network, 'small_fcos', categories, file)}"
