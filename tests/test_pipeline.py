"""The pipeline: order, batches and errors of its results, camera motion by mode, detections from files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.streaming import BrightDetector, bright, scene
from track.detection.detector import Detector
from track.detection.source import PrecomputedDetections
from track.formats.mot import find_sequences, read_sequence, write_detections, write_info
from track.geometry import identity_affine
from track.media.images import save_image
from track.media.sources import ImageFolder, SequenceSource, VideoFile
from track.media.video_writer import VideoWriter
from track.pipeline import CAMERA_MODES, Pipeline, camera_motion_for, detections_from_file
from track.structures import Detections, Frame, TrackedFrame
from track.tracking.camera_motion import AffineFile, OpticalFlow, Static
from track.tracking.tracker import Tracker

TEXTURE = (torch.rand(3, 160, 400, generator=torch.Generator().manual_seed(0)) * 150).byte()
SHIFT = torch.tensor([[1.0, 0, 3], [0, 1, 0]])  # the texture moves 3 pixels to the right per frame


class Frames:
    """Frames in memory as a `VideoSource`; `taken` counts those that were asked for."""

    name, frame_rate = "frames", 20.0

    def __init__(self, images: Sequence[Tensor], is_live: bool = False, fails_at: int = 0) -> None:
        self.images, self.is_live, self.fails_at = images, is_live, fails_at
        self.frame_count = None if is_live else len(images)
        self.taken, self.released = 0, False

    def __iter__(self) -> Iterator[Frame]:
        try:
            for number, image in enumerate(self.images, 1):
                if number == self.fails_at:
                    raise ValueError(f"frame {number}: cannot be read")
                self.taken = number
                yield Frame(image, (number - 1) / self.frame_rate, number)
        finally:
            self.released = True

    def without_pixels(self) -> Frames:
        return Frames([image[:, :1, :1].expand_as(image) for image in self.images], self.is_live)

    def close(self) -> None:
        pass


class BatchedBrightDetector(BrightDetector):
    """Reads four frames before it yields the first of them."""

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        remaining = iter(frames)
        while batch := list(islice(remaining, 4)):
            yield from ((frame, bright(frame)) for frame in batch)


class BrightNetwork(torch.nn.Module):
    """`bright` with the interface of torchvision's detectors."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_sizes: list[int] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.batch_sizes.append(len(images))
        detections = [bright(Frame((255 * image).round().byte(), 0.0, 1)) for image in images]
        return [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels} for one in detections]


def moving_square(count: int = 30, **options: Any) -> Frames:
    return Frames([scene(number / 20) for number in range(count)], **options)


def moving_texture(count: int = 6) -> Frames:
    return Frames([TEXTURE[:, :, 60 - 3 * number : 380 - 3 * number].contiguous() for number in range(count)])


def values(results: Iterable[TrackedFrame]) -> list[Any]:
    """The input and output of the tracker as plain numbers."""
    return [
        (
            result.frame.number,
            result.observation.number,
            result.observation.time,
            result.observation.detections.boxes.tolist(),
            result.observation.affine.tolist(),
            result.tracks.ids.tolist(),
            result.tracks.boxes.tolist(),
            result.tracks.scores.tolist(),
            result.tracks.labels.tolist(),
        )
        for result in results
    ]


def write_sequence(folder: Path, images: bool = True, affines: bool = False) -> SequenceSource:
    """Six frames, on request as images and with a gmc.txt."""
    write_info(folder, 10, 6, 320, 120)
    for number in range(1, 7) if images else ():
        save_image(folder / "img1" / f"{number}.png", scene(number / 10))
    if affines:
        (folder / "gmc.txt").write_text("".join(f"{number},1,0,{number},0,1,0\n" for number in range(1, 7)))
    return SequenceSource(read_sequence(folder))


def write_images(folder: Path, count: int = 6) -> ImageFolder:
    for number in range(1, count + 1):
        save_image(folder / f"{number}.png", scene(number / 10))
    return ImageFolder(folder)


def write_video(path: Path, count: int = 6) -> VideoFile:
    with VideoWriter(path, 10) as video:
        for number in range(count):
            video.write(scene(number / 10))
    return VideoFile(path)


def test_results_come_in_order_with_their_numbers_times_and_observations() -> None:
    results = list(Pipeline(BrightDetector(), Static(), Tracker())(moving_square()))
    assert [result.frame.number for result in results] == list(range(1, 31))
    for number, result in enumerate(results, 1):
        observation = result.observation
        assert (observation.number, observation.time) == (number, (number - 1) / 20)
        assert result.frame.image.equal(scene((number - 1) / 20))
        assert observation.detections.boxes.equal(bright(result.frame).boxes)
        assert observation.affine.equal(identity_affine())
        assert result.tracks.ids.tolist() == [1]


def test_the_tracks_are_those_of_the_tracker_alone_on_the_same_observations() -> None:
    results = list(Pipeline(BrightDetector(), OpticalFlow(), Tracker())(moving_square()))
    tracker = Tracker()
    for result in results:
        observation = result.observation
        tracks = tracker.update(observation.detections, observation.time, observation.affine)
        assert tracks.ids.equal(result.tracks.ids)
        assert tracks.boxes.equal(result.tracks.boxes)


def test_camera_motion_and_tracker_are_reset_between_two_videos() -> None:
    detections = PrecomputedDetections([Detections.from_rows([[40, 40, 60, 80, 0.9, 1]])] * 6)
    pipeline = Pipeline(detections, OpticalFlow(), Tracker())
    first = list(pipeline(moving_texture()))
    torch.testing.assert_close(first[1].observation.affine, SHIFT, atol=0.05, rtol=0)
    (continued,) = (pipeline.step(Frame(frame.image, 1.0, 7)) for frame in islice(moving_texture(), 1))
    assert not continued.observation.affine.equal(identity_affine())  # without a reset the last frame is remembered
    second = list(pipeline(moving_texture()))
    assert second[0].observation.affine.equal(identity_affine())
    assert second[0].tracks.ids.tolist() == [1]
    assert values(second) == values(first)


@pytest.mark.parametrize("detections", [BrightDetector(), BatchedBrightDetector()])
def test_pushing_frames_one_by_one_gives_the_results_of_the_loop(detections: BrightDetector) -> None:
    looped = list(Pipeline(detections, OpticalFlow(), Tracker())(moving_square()))
    pipeline = Pipeline(detections, OpticalFlow(), Tracker())
    assert values(pipeline.step(frame) for frame in moving_square()) == values(looped)


def test_after_a_reset_the_next_frame_pushed_is_the_first_of_a_video() -> None:
    pipeline = Pipeline(BrightDetector(), OpticalFlow(), Tracker())
    first = values(pipeline.step(frame) for frame in moving_square())
    with pytest.raises(ValueError, match="time: expected more than the last frame's"):
        pipeline.step(next(iter(moving_square())))
    pipeline.reset()
    assert values(pipeline.step(frame) for frame in moving_square()) == first


@pytest.mark.parametrize(("batch_size", "batch_sizes"), [(1, [1] * 30), (7, [7, 7, 7, 7, 2])])
def test_detecting_in_batches_gives_the_results_of_detecting_one_by_one(
    batch_size: int, batch_sizes: list[int]
) -> None:
    network = BrightNetwork()
    detector = Detector(network=network, batch_size=batch_size)
    results = values(Pipeline(detector, OpticalFlow(), Tracker())(moving_square()))
    assert network.batch_sizes == batch_sizes
    assert results == values(Pipeline(BrightDetector(), OpticalFlow(), Tracker())(moving_square()))


def test_a_live_source_is_tracked_frame_by_frame_without_reading_ahead() -> None:
    network, source = BrightNetwork(), moving_square(is_live=True)
    results = []
    for result in Pipeline(Detector(network=network, batch_size=7), Static(), Tracker())(source):
        assert source.taken == result.frame.number
        results.append(result)
    assert network.batch_sizes == [1] * 30
    assert values(results) == values(Pipeline(BrightDetector(), Static(), Tracker())(moving_square()))


def test_a_file_is_read_ahead_but_not_without_limit() -> None:
    source = moving_square(count=100)
    results = Pipeline(BatchedBrightDetector(), Static(), Tracker())(source)
    next(results)
    assert 4 <= source.taken <= 4 + 4 + 1  # a batch, the prefetched ones, and the one being read


def test_frames_before_one_that_cannot_be_read_are_tracked_before_the_error() -> None:
    results = []
    with pytest.raises(ValueError, match="frame 20: cannot be read"):
        results.extend(Pipeline(BrightDetector(), Static(), Tracker())(moving_square(fails_at=20)))
    assert [result.frame.number for result in results] == list(range(1, 20))


@pytest.mark.parametrize("is_live", [False, True])
def test_the_source_is_released_when_the_loop_ends_early(is_live: bool) -> None:
    source = moving_square(is_live=is_live)
    results = Pipeline(BrightDetector(), Static(), Tracker())(source)
    next(results)
    results.close()
    assert source.released


def test_an_identity_affine_gives_exactly_the_tracks_of_no_camera_motion() -> None:
    still = values(Pipeline(BrightDetector(), Static(), Tracker())(moving_square()))
    identity = values(Pipeline(BrightDetector(), AffineFile([identity_affine()] * 30), Tracker())(moving_square()))
    assert identity == still
    tracker = Tracker()
    alone = [tracker.update(bright(frame), frame.time) for frame in moving_square()]
    assert [(tracks.ids.tolist(), tracks.boxes.tolist()) for tracks in alone] == [row[5:7] for row in still]


def test_the_affine_is_that_of_the_camera_motion_and_moves_the_tracks() -> None:
    affines = SHIFT.repeat(30, 1, 1)
    moved = list(Pipeline(BrightDetector(), AffineFile(affines), Tracker())(moving_square()))
    still = list(Pipeline(BrightDetector(), Static(), Tracker())(moving_square()))
    assert all(result.observation.affine.equal(SHIFT) for result in moved)
    assert not moved[5].tracks.boxes.equal(still[5].tracks.boxes)


def test_the_threshold_may_change_between_frames() -> None:
    pipeline = Pipeline(BrightDetector(), Static(), Tracker(min_score=0.3))
    assert pipeline.min_score == 0.3
    counts = []
    for result in pipeline(moving_square(is_live=True)):
        counts.append(len(result.tracks))
        if result.frame.number == 10:
            pipeline.min_score = 0.99
    assert counts == [1] * 10 + [0] * 20
    assert pipeline.tracker.min_score == 0.99


@pytest.mark.parametrize(
    ("detections", "camera_motion", "expected"),
    [
        (BrightDetector(), Static(), True),
        (BrightDetector(), OpticalFlow(), True),
        (PrecomputedDetections([]), OpticalFlow(), True),
        (PrecomputedDetections([]), Static(), False),
        (PrecomputedDetections([]), AffineFile([]), False),
    ],
)
def test_pixels_are_needed_by_detectors_and_optical_flow(detections: Any, camera_motion: Any, expected: bool) -> None:
    assert Pipeline(detections, camera_motion, Tracker()).needs_pixels == expected


def test_without_pixels_the_results_are_those_with_pixels(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4")
    pipeline = Pipeline(PrecomputedDetections([bright(frame) for frame in source]), Static(), Tracker())
    assert not pipeline.needs_pixels
    assert values(pipeline(source.without_pixels())) == values(pipeline(source))


@pytest.mark.parametrize(
    ("mode", "images", "affines", "expected"),
    [
        ("auto", True, True, AffineFile),
        ("auto", True, False, OpticalFlow),
        ("auto", False, True, AffineFile),
        ("auto", False, False, Static),
        ("none", True, True, Static),
        ("none", False, False, Static),
        ("file", True, True, AffineFile),
        ("estimate", True, True, OpticalFlow),
    ],
)
def test_the_camera_motion_of_a_sequence(
    tmp_path: Path, mode: str, images: bool, affines: bool, expected: type
) -> None:
    source = write_sequence(tmp_path / "MOT-01", images, affines)
    assert type(camera_motion_for(mode, source)) is expected


def test_camera_motion_is_not_estimated_without_footage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="camera=estimate: MOT-01 has no images and no video"):
        camera_motion_for("estimate", write_sequence(tmp_path / "MOT-01", False, True))


@pytest.mark.parametrize(("mode", "expected"), [("auto", OpticalFlow), ("none", Static), ("estimate", OpticalFlow)])
def test_the_camera_motion_of_other_sources(tmp_path: Path, mode: str, expected: type) -> None:
    save_image(tmp_path / "images" / "1.png", scene(0))
    for source in (write_video(tmp_path / "a.mp4"), ImageFolder(tmp_path / "images"), moving_square(is_live=True)):
        assert type(camera_motion_for(mode, source)) is expected


def used_affines(source: SequenceSource) -> list[Any]:
    pipeline = Pipeline(BrightDetector(), camera_motion_for("file", source), Tracker())
    return [result.observation.affine.tolist() for result in pipeline(source)]


def test_a_sequences_affines_are_those_between_the_frames_of_its_split(tmp_path: Path) -> None:
    write_sequence(tmp_path / "MOT-01", affines=True)
    source = SequenceSource(find_sequences(tmp_path, "val-half", stride=2)[0])  # of frames 5 and 6 the first
    assert used_affines(source) == [[[1, 0, 5], [0, 1, 0]]]
    every_third = SequenceSource(find_sequences(tmp_path, stride=3)[0])  # frames 1 and 4
    assert used_affines(every_third) == [[[1, 0, 1], [0, 1, 0]], [[1, 0, 2 + 3 + 4], [0, 1, 0]]]


def test_an_unknown_mode_or_a_missing_file_of_camera_motion_is_refused(tmp_path: Path) -> None:
    source = write_sequence(tmp_path / "MOT-01")
    with pytest.raises(ValueError, match=f"camera: expected one of {', '.join(CAMERA_MODES)}, got other"):
        camera_motion_for("other", source)
    with pytest.raises(ValueError, match=r"MOT-01/gmc\.txt: no such file, expected the sequence to have it"):
        camera_motion_for("file", source)
    with pytest.raises(
        ValueError, match=r"camera=file: a is no MOTChallenge sequence, expected a folder with gmc\.txt"
    ):
        camera_motion_for("file", write_video(tmp_path / "a.mp4"))


def write_boxes(path: Path, lefts: Sequence[float]) -> None:
    write_detections(path, [Detections.from_rows([[left, 40, left + 20, 80, 0.9, 1]]) for left in lefts])


def test_a_sequences_detections_are_read_from_its_own_folder(tmp_path: Path) -> None:
    source = write_sequence(tmp_path / "MOT-01")
    write_boxes(tmp_path / "MOT-01" / "det" / "mine.txt", range(6))
    detections = detections_from_file("det/mine.txt", source)
    assert [float(one.boxes[0, 0]) for one in detections.detections] == [0, 1, 2, 3, 4, 5]
    half = SequenceSource(find_sequences(tmp_path, "val-half")[0])
    assert [float(one.boxes[0, 0]) for one in detections_from_file("det/mine.txt", half).detections] == [4, 5]


def test_a_videos_detections_are_read_from_beside_it_before_the_path_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "videos" / "a.mp4")
    monkeypatch.chdir(tmp_path)
    write_boxes(tmp_path / "det.txt", [1] * 6)
    assert float(detections_from_file("det.txt", source).detections[0].boxes[0, 0]) == 1
    assert float(detections_from_file(str(tmp_path / "det.txt"), source).detections[0].boxes[0, 0]) == 1
    write_boxes(tmp_path / "videos" / "det.txt", [2] * 6)
    assert float(detections_from_file("det.txt", source).detections[0].boxes[0, 0]) == 2


def test_an_image_folders_detections_are_read_from_beside_it(tmp_path: Path) -> None:
    for number in range(1, 7):
        save_image(tmp_path / "images" / f"{number}.png", scene(0))
    write_boxes(tmp_path / "det.txt", [3] * 6)
    assert float(detections_from_file("det.txt", ImageFolder(tmp_path / "images")).detections[5].boxes[0, 0]) == 3


def test_missing_malformed_or_too_many_detections_are_refused(tmp_path: Path) -> None:
    video, sequence = write_video(tmp_path / "a.mp4"), write_sequence(tmp_path / "MOT-01")
    with pytest.raises(ValueError, match=r"absent\.txt: no such file, expected the detections of a"):
        detections_from_file("absent.txt", video)
    with pytest.raises(ValueError, match=r"MOT-01/absent\.txt: no such file, expected the sequence to have it"):
        detections_from_file("absent.txt", sequence)
    (tmp_path / "words.txt").write_text("1,-1,a,b,c,d,e\n")
    with pytest.raises(ValueError, match=r"words\.txt, line 1: expected comma-separated numbers"):
        detections_from_file("words.txt", video)
    write_boxes(tmp_path / "seven.txt", range(7))
    with pytest.raises(ValueError, match=r"seven\.txt, line 7: expected a frame number from 1 to 6 in column 1"):
        detections_from_file("seven.txt", write_images(tmp_path / "images"))
    assert len(detections_from_file("seven.txt", video).detections) == 7  # what a video states is an estimate


def test_detections_of_a_source_without_a_frame_count_are_refused() -> None:
    with pytest.raises(ValueError, match="detections: frames is a camera or stream, expected a file or folder"):
        detections_from_file("det.txt", moving_square(is_live=True))
