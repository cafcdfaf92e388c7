"""Public trackers to compare with, by name; each is called where its package is installed, and none is required.

Each has its own default options. Appearance and camera motion are off: boxes and scores are all that a tracker is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import Tensor

from track.structures import Detections

REFERENCE = "ByteTrack (trackers)"  # its cost is 1


@dataclass(frozen=True)
class Video:
    """What trackers are told about a video: for each frame its detections, time in seconds and camera motion (2, 3).

    warm_up: the first frames, which are tracked before the clock starts.
    """

    detections: list[Detections]
    times: list[float]
    affines: list[Tensor]
    warm_up: int = 0


def to_supervision(detections: Detections) -> Any:
    """The detections as roboflow's trackers take them, all of one class."""
    import supervision

    boxes, scores = detections.boxes.numpy(), detections.scores.numpy()
    return supervision.Detections(xyxy=boxes, confidence=scores, class_id=np.zeros(len(boxes), int))


def to_scored_boxes(detections: Detections) -> np.ndarray:
    """(N, 5) boxes and scores."""
    return np.column_stack([detections.boxes.numpy(), detections.scores.numpy()]).astype(float)


def to_classed_boxes(detections: Detections) -> np.ndarray:
    """(N, 6) boxes, scores and a class, the same for all."""
    return np.column_stack([to_scored_boxes(detections), np.zeros(len(detections))])


@dataclass(frozen=True)
class Peer:
    """A public tracker: its class in a package, how it takes detections, and its options.

    image: (H, W, 3) that is given with each frame, if the tracker asks for one.
    """

    module: str
    name: str
    convert: Callable[[Detections], Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    image: np.ndarray | None = None

    def __call__(self, video: Video) -> Iterator[None]:
        """Track a video, yielding before the first frame and after each; detections are converted before the first."""
        logging.disable(logging.INFO)  # boxmot prints the options of each tracker
        tracker = getattr(import_module(self.module), self.name)(**self.options)
        inputs = [self.convert(detections) for detections in video.detections]
        more = [] if self.image is None else [self.image]
        yield
        for given in inputs:
            tracker.update(given, *more)
            yield


BOXES_ONLY = {"use_embeddings": False, "use_cmc": False}
BLANK = np.zeros((1080, 1920, 3), np.uint8)
BOXMOT = "boxmot.trackers.box"
PEERS = {
    REFERENCE: Peer("trackers", "ByteTrackTracker", to_supervision),
    "OC-SORT (trackers)": Peer("trackers", "OCSORTTracker", to_supervision),
    "BoT-SORT (trackers)": Peer("trackers", "BoTSORTTracker", to_supervision, {"enable_cmc": False}),
    "C-BIoU (trackers)": Peer("trackers", "CBIoUTracker", to_supervision),
    "ByteTrack (pyxtrackers)": Peer("pyxtrackers", "BYTETracker", to_scored_boxes),
    "OC-SORT (pyxtrackers)": Peer("pyxtrackers", "OCSort", to_scored_boxes, {"det_thresh": 0.6}),
    "ByteTrack (boxmot)": Peer(f"{BOXMOT}.bytetrack.tracker", "ByteTrack", to_classed_boxes, image=BLANK),
    "OC-SORT (boxmot)": Peer(f"{BOXMOT}.ocsort.tracker", "OcSort", to_classed_boxes, image=BLANK),
    "BoT-SORT (boxmot)": Peer(f"{BOXMOT}.botsort.tracker", "BotSort", to_classed_boxes, BOXES_ONLY, BLANK),
}


def installed_peers() -> dict[str, Peer]:
    """The public trackers whose packages are installed, by name."""
    return {name: peer for name, peer in PEERS.items() if find_spec(peer.module.split(".")[0]) is not None}
