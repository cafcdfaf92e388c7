"""Detection cache: tune a tracker without running the detector again.

The cache is a MOTChallenge detection file, and a json beside it with the key it was written under: the content of the
detector's weights, its options, the footage and the frames of it. Another key means other detections.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from track.detection.detector import Detector
from track.detection.source import PrecomputedDetections
from track.formats.mot import read_detections, write_detections
from track.structures import Detections, Frame


class CachedDetector:
    """A detector that reads its detections of a video from a file where an earlier run finished writing them there.

    file: the detections; the key lies beside it with the suffix .json. footage: the video file or folder of images.
    frames: which frames of it, as text.
    """

    def __init__(self, detector: Detector, file: Path, footage: Path, frames: str = "all") -> None:
        self.detector, self.file = detector, file
        self.label_names = detector.label_names
        self.key = cache_key(detector, footage, frames)
        self.cached = read_cache(file, self.key)

    @property
    def needs_pixels(self) -> bool:
        """See `DetectionSource`: only where nothing is cached."""
        return self.cached is None

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """See `DetectionSource`; what was detected is written however the iteration ends, its key only at its end."""
        if self.cached is not None:
            yield from PrecomputedDetections(self.cached).detect(frames)
            return
        written: list[Detections] = []
        self.file.with_suffix(".json").unlink(missing_ok=True)
        try:
            for frame, detections in self.detector.detect(frames):
                written += [Detections.empty()] * (frame.number - 1 - len(written))
                written.append(detections)
                yield frame, detections
        finally:
            write_detections(self.file, written)
        about = {"frames": len(written), "key": self.key}
        self.file.with_suffix(".json").write_text(json.dumps(about, indent=1))


def cache_key(detector: Detector, footage: Path, frames: str) -> dict[str, Any]:
    """What detections depend on: the detector with the content of its weights, the footage, and which frames of it."""
    modified = footage.stat().st_mtime_ns
    return {"detector": detector.fingerprint(), "footage": [str(footage.resolve()), modified], "frames": frames}


def read_cache(file: Path, key: dict[str, Any]) -> list[Detections] | None:
    """The detections in a finished cache file, one entry per frame; None where there is none under this key."""
    try:
        about = json.loads(file.with_suffix(".json").read_text())
        same, length = about["key"] == key, int(about["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return read_detections(file, length) if same and file.is_file() else None
