"""Detectors: weights files, classes and scores, batches and fingerprints; no pickle is loaded."""

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from track.detection.detector import Detector, available_detectors, build_detector, load_detector, save_detector
from track.structures import Detections, Frame


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    network, categories = build_detector("small_fcos", None, ["__background__", "person", "dog"])
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    save_detector(network, "small_fcos", categories, path)
    return path


IMAGE = (torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1)) * 255).byte()


@pytest.mark.parametrize(
    "name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "small_fcos"]
)
def test_a_network_is_built_by_its_name(name: str) -> None:
    assert name in available_detectors()
    network, categories = build_detector(name, None)
    assert len(categories) == (2 if name == "small_fcos" else 91)
    assert categories[:2] == ["__background__", "person"]
    assert set(network.eval()([IMAGE.float() / 255])[0]) == {"boxes", "scores", "labels"}


def test_a_saved_detector_is_loaded_with_its_name_categories_and_calibration(tmp_path: Path) -> None:
    network, categories = build_detector("small_fcos", None, ["__background__", "cat"])
    loaded = load_detector(save_detector(network, "small_fcos", categories, tmp_path / "d.safetensors", (2.0, 0.5)))
    assert loaded[0::2] == ("small_fcos", ["__background__", "cat"])
    assert loaded.calibration == (2.0, 0.5)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[key], value, rtol=0, atol=0)


def test_only_the_requested_classes_above_min_score_are_detected(checkpoint: Path) -> None:
    person = Detector(checkpoint=checkpoint, min_score=0.1)(IMAGE)
    both = Detector(checkpoint=checkpoint, classes=("person", "dog"), min_score=0.1)(IMAGE)
    assert set(person.labels.tolist()) == {1}
    assert set(both.labels.tolist()) == {1, 2}
    best = both.scores.max().item()
    assert len(Detector(checkpoint=checkpoint, classes=("person", "dog"), min_score=best)(IMAGE)) == 1


def test_boxes_lie_inside_the_image(checkpoint: Path) -> None:
    boxes = Detector(checkpoint=checkpoint)(IMAGE).boxes
    assert len(boxes) > 0
    assert boxes.min() >= 0
    assert (boxes.amax(0) <= torch.tensor([128, 96, 128, 96])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "ssdlite"}, "detector.name: ssdlite is unknown, nearest: .*ssdlite320"),
        ({"name": "ssdlite320_mobilenet_v3_large", "weights": "COCO"}, "detector.weights: COCO is unknown, .*COCO_V1"),
        ({"checkpoint": "absent.safetensors"}, "absent.safetensors: expected detector weights"),
    ],
)
def test_names_and_files_that_do_not_exist_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(**options)


def test_an_unknown_class_names_the_nearest(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="classes: persona is unknown, nearest: person"):
        Detector(checkpoint=checkpoint, classes=("persona",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 7}, "detector.min_score: expected 0 to 1, got 7"),
        ({"min_score": -0.1}, "detector.min_score: expected 0 to 1, got -0.1"),
        ({"classes": ()}, "detector.classes: expected at least one"),
    ],
)
def test_options_out_of_range_are_refused(checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(checkpoint=checkpoint, **options)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match=r"weights.pt: expected detector weights"):
        Detector(checkpoint=tmp_path / "weights.pt")
    assert not (tmp_path / "ran").exists()


def test_without_network_one_line_says_how_to_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(
        ValueError, match=r"could not be downloaded .* put them at .*ssdlite.*\.pth.*checkpoint=FILE"
    ) as refusal:
        Detector("ssdlite320_mobilenet_v3_large")
    assert "\n" not in str(refusal.value)


def test_any_module_with_torchvisions_interface_fits() -> None:
    class Box(torch.nn.Module):
        def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            boxes = torch.tensor([[-5.0, 1, 20, 30], [1, 2, 3, 4], [5, 6, 7, 8]])
            scores, labels = torch.tensor([0.9, 0.8, 0.05]), torch.tensor([2, 1, 2])
            return [{"boxes": boxes, "scores": scores, "labels": labels} for _ in images]

    detector = Detector(network=Box(), categories=["__background__", "person", "car"], classes=["car"])
    detections = detector(IMAGE)
    assert (detections.boxes.tolist(), detections.labels.tolist()) == ([[0, 1, 20, 30]], [2])
    assert detector.name == "box"
    assert detector.label_names == ["__background__", "person", "car"]


def test_a_batch_gives_the_detections_of_each_image_alone(checkpoint: Path) -> None:
    detector = Detector(checkpoint=checkpoint)
    other = IMAGE.flip(1)
    for alone, together in zip((detector(IMAGE), detector(other)), detector.batch([IMAGE, other]), strict=True):
        torch.testing.assert_close(together.boxes, alone.boxes, atol=0.01, rtol=0)
        torch.testing.assert_close(together.scores, alone.scores, atol=1e-4, rtol=0)
    assert detector.batch([]) == []


class Brightness(torch.nn.Module):
    """Detects one box as wide as the image's first pixel is bright, and records the size of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_sizes: list[int] = []

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        self.batch_sizes.append(len(images))
        boxes = [torch.stack([image.new_tensor([0, 0, 255 * image[0, 0, 0], 10])]) for image in images]
        return [{"boxes": box, "scores": torch.tensor([0.98765432]), "labels": torch.tensor([1])} for box in boxes]


def make_frames(*numbers: int) -> list[Frame]:
    """Frames whose pixels all have the frame's number as value."""
    return [Frame(torch.full((3, 20, 40), number, dtype=torch.uint8), number / 30, number) for number in numbers]


def widths(pairs: list[tuple[Frame, Detections]]) -> dict[int, list[float]]:
    """The widths of the boxes detected in each frame, by the frame's number."""
    return {frame.number: detections.boxes[:, 2].tolist() for frame, detections in pairs}


@pytest.mark.parametrize(("batch_size", "batch_sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_frames_are_detected_in_batches_and_come_back_in_order(batch_size: int, batch_sizes: list[int]) -> None:
    detector = Detector(network=Brightness(), batch_size=batch_size)
    pairs = list(detector.detect(make_frames(1, 2, 3, 4, 5)))
    assert list(widths(pairs).items()) == [(number, [number]) for number in (1, 2, 3, 4, 5)]
    assert detector.network.batch_sizes == batch_sizes


def test_no_more_frames_are_read_than_a_batch_before_the_first_is_yielded() -> None:
    frames = iter(make_frames(1, 2, 3, 4))
    assert next(Detector(network=Brightness(), batch_size=2).detect(frames))[0].number == 1
    assert next(frames).number == 3


def test_blank_frames_have_no_detections_and_are_not_given_to_the_network() -> None:
    detector = Detector(network=Brightness(), batch_size=2)
    first, last = make_frames(1, 5)
    blanks = [Frame.blank(20, 40, number / 30, number) for number in (2, 3, 4)]
    assert widths(list(detector.detect([first, *blanks, last]))) == {1: [1], 2: [], 3: [], 4: [], 5: [5]}
    assert sum(detector.network.batch_sizes) == 2


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_frames_before_an_unreadable_one_are_yielded_before_the_error(batch_size: int) -> None:
    def broken() -> Iterator[Frame]:
        yield from make_frames(1, 2, 3)
        raise ValueError("frame 4 cannot be read")

    pairs = []
    with pytest.raises(ValueError, match="frame 4 cannot be read"):
        for pair in Detector(network=Brightness(), batch_size=batch_size).detect(broken()):
            pairs.append(pair)
    assert widths(pairs) == {1: [1], 2: [2], 3: [3]}


def test_boxes_and_scores_of_frames_are_rounded_as_a_file_stores_them() -> None:
    ((_, detections),) = Detector(network=Brightness()).detect(make_frames(7))
    assert detections.scores.tolist() == torch.tensor([0.9877]).tolist()


def test_the_fingerprint_depends_on_the_content_of_the_weights_alone(checkpoint: Path, tmp_path: Path) -> None:
    fingerprint = Detector(checkpoint=checkpoint).fingerprint()
    (tmp_path / "copy.safetensors").write_bytes(checkpoint.read_bytes())
    assert Detector(checkpoint=tmp_path / "copy.safetensors").fingerprint() == fingerprint
    name, network, categories, _ = load_detector(checkpoint)
    network.head.classification_head.cls_logits.bias[1] += 1e-3
    changed = Detector(checkpoint=save_detector(network, name, categories, tmp_path / "changed.safetensors"))
    assert changed.fingerprint() == {**fingerprint, "sha256": changed.fingerprint()["sha256"]}
    assert changed.fingerprint() != fingerprint


@pytest.mark.parametrize(
    "options", [{"min_score": 0.2}, {"classes": ("dog",)}, {"classes": ("person", "dog")}, {"autocast": True}]
)
def test_the_fingerprint_depends_on_the_options(checkpoint: Path, options: dict[str, object]) -> None:
    assert Detector(checkpoint=checkpoint, **options).fingerprint() != Detector(checkpoint=checkpoint).fingerprint()


def test_the_fingerprint_depends_on_the_calibration(checkpoint: Path, tmp_path: Path) -> None:
    name, network, categories, _ = load_detector(checkpoint)
    calibrated = save_detector(network, name, categories, tmp_path / "calibrated.safetensors", (1.0, 0.5))
    assert Detector(checkpoint=calibrated).fingerprint() != Detector(checkpoint=checkpoint).fingerprint()


def test_the_fingerprint_of_the_packaged_detector_costs_a_fraction_of_a_second() -> None:
    detector = Detector("fcos_mobilenet_v2_fpn")
    assert Detector("fcos_mobilenet_v2_fpn").fingerprint() == detector.fingerprint()
    start = time.process_time()
    detector.fingerprint()
    assert time.process_time() - start < 0.5


def test_scores_are_calibrated_by_the_file(tmp_path: Path) -> None:
    network, categories = build_detector("small_fcos", None)
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    plain, calibrated = (
        Detector(checkpoint=save_detector(network, "small_fcos", categories, tmp_path / f"{slope}.st", (slope, 0.5)))
        for slope in (1.0, 2.0)
    )
    best, other = plain(IMAGE).scores.max(), calibrated(IMAGE).scores.max()
    torch.testing.assert_close(other.logit() - 0.5, 2 * (best.logit() - 0.5), atol=1e-3, rtol=0)
    assert len(calibrated(IMAGE)) > 0
    assert calibrated(IMAGE).scores.min() >= 0.1


@pytest.mark.parametrize(
    ("name", "size"), [("ssdlite320_mobilenet_v3_large", 4), ("fcos_mobilenet_v2_fpn", 1), ("small_fcos", 4)]
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="of a CPU")
def test_on_a_cpu_only_small_images_are_detected_several_at_once(name: str, size: int) -> None:
    assert Detector(name, weights=None).batch_size == size
    assert Detector(name, weights=None, batch_size=2).batch_size == 2
