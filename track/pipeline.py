"""The pipeline: the loop from a video to its tracks that every command runs.

for result in Pipeline(detector, OpticalFlow(), tracker)(open_source("street.mp4")):
    for sink in sinks:
        sink.write(result)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from track.detection.source import DetectionSource, PrecomputedDetections, with_probabilities
from track.formats.mot import read_detections
from track.formats.table import last_frame
from track.media.sources import ImageFolder, SequenceSource, VideoFile, VideoSource, prefetch
from track.structures import Detections, Frame, Observation, TrackedFrame
from track.tracking.camera_motion import AffineFile, CameraMotion, OpticalFlow, Static
from track.tracking.tracker import Tracker

CAMERA_MODES = ("auto", "none", "file", "estimate")


class Sink(Protocol):
    """Consumes what the pipeline yields: a file, a window, counts."""

    def write(self, result: TrackedFrame) -> None:
        """Take in one frame; frames come in order."""
        ...


class Pipeline:
    """Detects objects, compensates the camera's motion and tracks, one frame after another.

    detections: finds the objects in each frame. camera_motion: estimates how the camera moved. tracker: owns the
    identities. The pipeline resets camera motion and tracker at the start of each video.
    """

    def __init__(self, detections: DetectionSource, camera_motion: CameraMotion, tracker: Tracker) -> None:
        self.detections, self.camera_motion, self.tracker = detections, camera_motion, tracker

    @property
    def min_score(self) -> float:
        """The score below which the tracker ignores detections; may be set between two frames."""
        return self.tracker.min_score

    @min_score.setter
    def min_score(self, score: float) -> None:
        self.tracker.min_score = score

    @property
    def needs_pixels(self) -> bool:
        """Whether detections or camera motion are computed from the frames' images."""
        return self.detections.needs_pixels or self.camera_motion.needs_pixels

    def __call__(self, source: VideoSource, pixels: bool = True) -> Iterator[TrackedFrame]:
        """Track a video from its first frame.

        pixels: whether the sinks read the frames' images; if not, these are decoded only if the pipeline itself does.
        Files are read ahead on another thread and may be detected several frames at a time; each frame of a live source
        is tracked before the next one is taken. Raises ValueError when the source cannot be read any further, after the
        frames before that point.
        """
        self.reset()
        if source.is_live:
            yield from map(self.step, source)
        else:
            frames = source if pixels or self.needs_pixels else source.without_pixels()
            for frame, detections in self.detections.detect(prefetch(frames)):
                yield self._track(frame, detections)

    def step(self, frame: Frame) -> TrackedFrame:
        """Track one more frame of a video whose frames are pushed instead of pulled."""
        ((_, detections),) = self.detections.detect([frame])
        return self._track(frame, detections)

    def reset(self) -> None:
        """Forget the video so far: the next frame is the first of another one."""
        self.tracker.reset()
        self.camera_motion.reset()

    def _track(self, frame: Frame, detections: Detections) -> TrackedFrame:
        affine = self.camera_motion(frame, detections.boxes)
        tracks = self.tracker.update(detections, frame.time, affine)
        return TrackedFrame(frame, Observation(frame.number, frame.time, detections, affine), tracks)


def camera_motion_for(mode: str, source: VideoSource) -> CameraMotion:
    """The camera motion of a source by one of `CAMERA_MODES`.

    auto: a sequence's gmc.txt if it has one, otherwise estimated from the frames, or none if it has no footage. Raises
    ValueError for another mode, for "file" if the source has no such file, and for "estimate" if it has no footage.
    """
    if mode not in CAMERA_MODES:
        raise ValueError(f"camera: expected one of {', '.join(CAMERA_MODES)}, got {mode}")
    sequence = source.sequence if isinstance(source, SequenceSource) else None
    if mode == "file" and sequence is None:
        raise ValueError(f"camera=file: {source.name} is no MOTChallenge sequence, expected a folder with gmc.txt")
    if sequence is not None and (mode == "file" or (mode == "auto" and sequence.has("gmc.txt"))):
        return AffineFile(sequence.affines())
    has_footage = sequence is None or sequence.has_footage()
    if mode == "none" or (mode == "auto" and not has_footage):
        return Static()
    if not has_footage:
        raise ValueError(f"camera=estimate: {source.name} has no images and no video, expected camera=none or file")
    return OpticalFlow()


def detection_file(file: str, source: VideoSource) -> Path:
    """Where `detections_from_file` looks: the first place that has the file, or the first place."""
    if isinstance(source, SequenceSource):
        return source.sequence.path / file
    places = [Path(file)]
    if isinstance(source, VideoFile | ImageFolder):
        folder = source.footage.parent
        places = [folder / source.footage.stem / file, folder / file, Path(file)]
        if isinstance(source, VideoFile) and source.is_one_of_several:
            places = places[:1]
    return next((place for place in places if place.is_file()), places[0])


def detections_from_file(
    file: str, source: VideoSource, scores: str = "auto", report: Callable[[str], None] = print
) -> PrecomputedDetections:
    """The detections of a source from a MOTChallenge file.

    file: in the sequence's folder; for a video or folder of images in a folder of the video's name beside it, beside
    it, or as given; of several videos in a folder, only in those folders of their names. scores, report: see
    `with_probabilities`. Raises ValueError if the file is absent or malformed, or if the source is live.
    """
    path = detection_file(file, source)
    if isinstance(source, SequenceSource):
        return PrecomputedDetections(with_probabilities(source.sequence.detections(file), scores, path, report))
    if source.is_live:
        raise ValueError(f"detections: {source.name} is a camera or stream, expected a file or folder")
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected the detections of {source.name}")
    length = source.frame_count if isinstance(source, ImageFolder) else None  # what a video states is an estimate
    detections = read_detections(path, length or last_frame(path))
    return PrecomputedDetections(with_probabilities(detections, scores, path, report))
