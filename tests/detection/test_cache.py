"""The detection cache: when it is used, and what makes it another one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from track.detection.cache import CachedDetector, cache_key
from track.detection.detector import PACKAGED, Detector, build_detector, save_detector
from track.formats.mot import read_detections
from track.structures import Detections, Frame


def save_random_detector(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    network, categories = build_detector("small_fcos", None, ["__background__", "person", "dog"])
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    return save_detector(network, "small_fcos", categories, path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_detector(tmp_path_factory.mktemp("weights") / "small.safetensors", seed=0)


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    (tmp_path / "street.mp4").write_bytes(b"pixels")
    return tmp_path / "street.mp4"


@pytest.fixture
def cached(weights: Path, footage: Path, tmp_path: Path) -> Callable[..., CachedDetector]:
    """A detector whose cache is det/small.txt, built anew by each call, as by each run."""

    def build(frames: str = "all", **options: object) -> CachedDetector:
        detector = Detector(**{"checkpoint": weights, "min_score": 0.3, **options})
        return CachedDetector(detector, tmp_path / "det" / "small.txt", footage, frames)

    return build


def make_frames(count: int = 5) -> list[Frame]:
    generator = torch.Generator().manual_seed(1)
    images = (torch.rand(count, 3, 48, 64, generator=generator) * 255).byte()
    return [Frame(image, number / 30, number) for number, image in enumerate(images, 1)]


def assert_equal(one: Detections, other: Detections) -> None:
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.labels, other.labels)


def test_a_finished_cache_gives_equal_detections_without_pixels(cached: Callable[..., CachedDetector]) -> None:
    first = cached()
    assert first.needs_pixels
    written = [detections for _, detections in first.detect(make_frames())]
    second = cached()
    assert not second.needs_pixels
    blank = [Frame.blank(48, 64, frame.time, frame.number) for frame in make_frames()]
    read = [detections for _, detections in second.detect(blank)]
    assert min(map(len, written)) > 0
    for one, other in zip(written, read, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize(
    "options",
    [{"min_score": 0.4}, {"classes": ("dog",)}, {"autocast": True}, {"frames": "range(1, 3)"}],
    ids=lambda options: next(iter(options)),
)
def test_other_options_or_frames_are_another_key(
    cached: Callable[..., CachedDetector], options: dict[str, object]
) -> None:
    list(cached().detect(make_frames()))
    assert cached(**options).needs_pixels
    assert not cached().needs_pixels


def test_other_weights_under_the_same_options_are_another_key(weights: Path, footage: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    key = cache_key(Detector(checkpoint=copy), footage, "all")
    assert cache_key(Detector(checkpoint=weights), footage, "all") == key
    save_random_detector(copy, seed=1)
    assert cache_key(Detector(checkpoint=copy), footage, "all") != key


def test_other_packaged_weights_are_another_key(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fcos_mobilenet_v2_fpn"
    key = cache_key(Detector(name), footage, "all")
    changed = save_last_weight_changed(PACKAGED[name], tmp_path / "changed.safetensors")
    monkeypatch.setitem(PACKAGED, name, changed)
    other = cache_key(Detector(name), footage, "all")
    assert other != key
    assert {**other["detector"], "sha256": None} == {**key["detector"], "sha256": None}


def save_last_weight_changed(source: Path, target: Path) -> Path:
    tensors = load_file(source)
    name = next(name for name in sorted(tensors, reverse=True) if tensors[name].is_floating_point())
    tensors[name].view(-1)[-1] += 0.5
    with safe_open(source, "pt") as file:
        save_file(tensors, target, file.metadata())
    return target


def test_footage_that_was_modified_is_another_key(cached: Callable[..., CachedDetector], footage: Path) -> None:
    list(cached().detect(make_frames()))
    os.utime(footage, (1, 1))
    assert cached().needs_pixels


def test_an_interrupted_run_leaves_no_key_but_its_detections(
    cached: Callable[..., CachedDetector], tmp_path: Path
) -> None:
    list(cached().detect(make_frames()))
    (tmp_path / "street.mp4").touch()  # another key: the detector runs again
    interrupted = cached()
    pairs = interrupted.detect(make_frames())
    next(pairs)
    next(pairs)
    pairs.close()
    assert [file.name for file in (tmp_path / "det").iterdir()] == ["small.txt"]
    assert len(read_detections(tmp_path / "det/small.txt", 2)[1]) > 0
    assert cached().needs_pixels


def test_footage_that_cannot_be_read_to_its_end_leaves_no_key(
    cached: Callable[..., CachedDetector], tmp_path: Path
) -> None:
    def broken() -> Iterator[Frame]:
        yield from make_frames(3)
        raise ValueError("street.mp4: frame 4 is damaged")

    numbers = []
    with pytest.raises(ValueError, match="frame 4 is damaged"):
        for frame, _ in cached().detect(broken()):
            numbers.append(frame.number)
    assert numbers == [1, 2, 3]
    assert cached().needs_pixels


def test_unreadable_frames_keep_the_numbers_of_the_others_and_are_tried_again_in_the_next_run(
    cached: Callable[..., CachedDetector], tmp_path: Path
) -> None:
    first, second, third, _, fifth = make_frames()
    blank = Frame.blank(48, 64, third.time, third.number)
    written = {frame.number: detections for frame, detections in cached().detect([first, second, blank, fifth])}
    assert cached().needs_pixels
    read = read_detections(tmp_path / "det/small.txt", 5)
    assert [len(detections) > 0 for detections in read] == [True, True, False, False, True]
    for number, detections in written.items():
        assert_equal(read[number - 1], detections)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null"])
def test_a_key_that_cannot_be_read_is_no_cache(
    cached: Callable[..., CachedDetector], tmp_path: Path, content: str
) -> None:
    list(cached().detect(make_frames()))
    (tmp_path / "det/small.json").write_text(content)
    assert cached().needs_pixels


def test_a_key_without_its_detections_is_no_cache(cached: Callable[..., CachedDetector], tmp_path: Path) -> None:
    list(cached().detect(make_frames()))
    (tmp_path / "det/small.txt").unlink()
    assert cached().needs_pixels


def test_detections_that_were_changed_or_cut_are_no_cache(
    cached: Callable[..., CachedDetector], tmp_path: Path
) -> None:
    file = tmp_path / "det/small.txt"
    for change in (lambda text: "", lambda text: "".join(text.splitlines(True)[:-1]), lambda text: text + text[-60:]):
        list(cached().detect(make_frames()))
        assert not cached().needs_pixels
        file.write_text(change(file.read_text()))
        assert cached().needs_pixels
