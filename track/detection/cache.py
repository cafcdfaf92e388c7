"""Detection cache: tune a tracker without running the detector again.

A cache is a MOTChallenge detection file with a json file beside it, which holds the file's checksum and the key of the
detections: the content of the detector's weights, its options, the footage and which of its frames. Under another key,
or if the file was changed, the detector runs again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from track.checkpoint import atomic_write
from track.detection.detector import Detector
from track.detection.source import PrecomputedDetections
from track.formats.mot import image_files, read_detections, write_detections
from track.structures import Detections, Frame


class CachedDetector:
    """A detection source for one video: reads a finished cache, or runs the detector and writes one.

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
        """See `DetectionSource`: whether the detector has to run."""
        return self.cached is None

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """See `DetectionSource`. The key is written after the last frame only, so that an interrupted run has none."""
        if self.cached is not None:
            yield from PrecomputedDetections(self.cached).detect(frames)
            return
        detected: list[Detections] = []
        complete = True
        self.file.with_suffix(".json").unlink(missing_ok=True)
        try:
            for frame, detections in self.detector.detect(frames):
                skipped = frame.number - 1 - len(detected)
                complete = complete and not skipped and not frame.is_blank
                detected += [Detections.empty()] * skipped
                detected.append(detections)
                yield frame, detections
        finally:
            write_detections(self.file, detected)
        if not complete:  # the next run shall try the unreadable frames again
            return
        about = {"frames": len(detected), "sha256": checksum(self.file), "key": self.key}
        with atomic_write(self.file.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(about, indent=1))


def cache_key(detector: Detector, footage: Path, frames: str) -> dict[str, Any]:
    """What detections depend on: the detector, the footage's files with their sizes and times, and which frames."""
    files = image_files(footage) if footage.is_dir() else [footage]
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.name}/{status.st_size}/{status.st_mtime_ns}\n".encode())
    about = {"path": str(footage.resolve()), "files": len(files), "sha256": digest.hexdigest()}
    return {"detector": detector.fingerprint(), "footage": about, "frames": frames}


def read_cache(file: Path, key: dict[str, Any]) -> list[Detections] | None:
    """The detections in a finished cache, one `Detections` per frame, or None if there is none under this key."""
    try:
        about = json.loads(file.with_suffix(".json").read_text())
        if about["key"] != key or about["sha256"] != checksum(file):
            return None
        return read_detections(file, int(about["frames"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def checksum(file: Path) -> str:
    """The SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
