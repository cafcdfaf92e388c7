"""Multi-object tracking: follow every object through a video.

    from track import Detector, OpticalFlow, Pipeline, Tracker, draw, open_source, show
    pipeline = Pipeline(Detector(), OpticalFlow(), Tracker())
    for result in pipeline(open_source("street.mp4")):     # camera index, file, folder, URL
        show(draw(result.frame.image, result.tracks))

A detector finds boxes in each frame, a GRU motion model predicts where each object goes, a graph network decides which
box belongs to which track. Boxes are xyxy pixels, times are seconds, images are (3, H, W) uint8 RGB tensors.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from track.detection.detector import Detector
    from track.detection.source import PrecomputedDetections
    from track.display.draw import draw
    from track.display.window import show
    from track.media.sources import open_source
    from track.pipeline import Pipeline
    from track.structures import Detections, Frame, Observation, TrackedFrame, Tracks
    from track.tracking.camera_motion import AffineFile, OpticalFlow, Static
    from track.tracking.tracker import MultiTracker, Tracker

try:
    __version__ = version("grutrack")
except PackageNotFoundError:  # imported from a folder that was never installed
    __version__ = "unknown"

_MODULES = {  # imported when they are first used: who tracks boxes of their own needs no detectors
    "track.detection.detector": ("Detector",),
    "track.detection.source": ("PrecomputedDetections",),
    "track.display.draw": ("draw",),
    "track.display.window": ("show",),
    "track.media.sources": ("open_source",),
    "track.pipeline": ("Pipeline",),
    "track.structures": ("Detections", "Frame", "Observation", "TrackedFrame", "Tracks"),
    "track.tracking.camera_motion": ("AffineFile", "OpticalFlow", "Static"),
    "track.tracking.tracker": ("MultiTracker", "Tracker"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AffineFile",
    "Detections",
    "Detector",
    "Frame",
    "MultiTracker",
    "Observation",
    "OpticalFlow",
    "Pipeline",
    "PrecomputedDetections",
    "Static",
    "TrackedFrame",
    "Tracker",
    "Tracks",
    "__version__",
    "draw",
    "open_source",
    "show",
]


def __getattr__(name: str) -> object:
    """A name of `__all__`, from the module that defines it. Raises AttributeError for any other."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
