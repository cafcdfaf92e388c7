"""What a detector saw, kept beside the results: trackers are tuned without running it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from track.mot import read_detections, write_detections
from track.structures import Detections

Step = tuple[Detections, float, Tensor | None]  # a frame's detections, time in seconds, camera


def origin(detector: Mapping[str, Any], footage: Path, frames: str) -> dict[str, Any]:
    """What detections depend on: the detector's options and its checkpoint's contents, the footage, which frames."""
    checkpoint = detector.get("checkpoint")
    contents = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest() if checkpoint else None
    when = footage.stat().st_mtime_ns
    return {"detector": {**detector}, "sha256": contents, "footage": [str(footage.resolve()), when], "frames": frames}


def read_kept(file: Path, made_from: Mapping[str, Any]) -> list[Detections] | None:
    """The detections of a file that `keeping` finished, a `Detections` a frame; None where they are of another origin
    or there are none."""
    try:
        about = json.loads(file.with_suffix(".json").read_text())
        same, length = about["origin"] == made_from, int(about["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return read_detections(file, length) if same and file.is_file() else None


def as_written(detections: Detections) -> Detections:
    """The detections as a file gives them back, so that a run from the file has the same results."""
    return Detections(detections.boxes.round(decimals=2), detections.scores.round(decimals=4), detections.labels)


def keeping(steps: Iterable[Step], file: Path, made_from: Mapping[str, Any]) -> Iterator[Step]:
    """The steps, whose detections are written when they end, however they do; their origin only where they were all
    taken."""
    seen: list[Detections] = []
    file.with_suffix(".json").unlink(missing_ok=True)
    try:
        for step in steps:
            seen.append(step[0])
            yield step
    finally:
        write_detections(file, seen)
    file.with_suffix(".json").write_text(json.dumps({"frames": len(seen), "origin": made_from}, indent=1))
