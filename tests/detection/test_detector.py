import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from track.detection.detector import Detector, build, names, save_detector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    network, categories = build("small_fcos", None, ["__background__", "person", "dog"])
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    save_detector(network, "small_fcos", categories, path)
    return path


IMAGE = (torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1)) * 255).byte()


@pytest.mark.parametrize(
    "name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "small_fcos"]
)
def test_builders_are_found_by_name(name: str) -> None:
    assert name in names()
    network, categories = build(name, None)
    assert len(categories) == (2 if name == "small_fcos" else 91)
    assert categories[:2] == ["__background__", "person"]
    assert set(network.eval()([IMAGE.float() / 255])[0]) == {"boxes", "scores", "labels"}


def test_every_detector_has_one_config() -> None:
    configs = Path(__file__).parent.parent / "conf/detector"
    found = [line for file in configs.glob("*.yaml") for line in file.read_text().splitlines() if "name:" in line]
    assert sorted(found) == sorted(f"name: {name}" for name in names())


def test_only_the_wanted_classes_above_min_score_come_back(checkpoint: Path) -> None:
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
        ({"checkpoint": "absent.safetensors"}, "absent.safetensors: expected the weights of a detector"),
    ],
)
def test_what_does_not_exist_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(**options)


def test_an_unknown_class_names_the_nearest(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="classes: persona is unknown, nearest: person"):
        Detector(checkpoint=checkpoint, classes=("persona",))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match=r"weights.pt: expected the weights of a detector"):
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
    found = detector(IMAGE)
    assert (found.boxes.tolist(), found.labels.tolist()) == ([[0, 1, 20, 30]], [2])
    assert detector.name == "box"


def test_several_pictures_at_once_give_what_each_gives(checkpoint: Path) -> None:
    detector = Detector(checkpoint=checkpoint)
    other = IMAGE.flip(1)
    for alone, together in zip((detector(IMAGE), detector(other)), detector.batch([IMAGE, other]), strict=True):
        torch.testing.assert_close(together.boxes, alone.boxes, atol=0.01, rtol=0)
        torch.testing.assert_close(together.scores, alone.scores, atol=1e-4, rtol=0)
    assert detector.batch([]) == []


def test_scores_are_given_on_the_scale_of_the_file(tmp_path: Path) -> None:
    network, categories = build("small_fcos", None)
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    plain, scaled = (
        Detector(checkpoint=save_detector(network, "small_fcos", categories, tmp_path / f"{slope}.st", (slope, 0.5)))
        for slope in (1.0, 2.0)
    )
    best, other = plain(IMAGE).scores.max(), scaled(IMAGE).scores.max()
    torch.testing.assert_close(other.logit() - 0.5, 2 * (best.logit() - 0.5), atol=1e-3, rtol=0)
    assert len(scaled(IMAGE)) > 0
    assert scaled(IMAGE).scores.min() >= 0.1


@pytest.mark.parametrize(
    ("name", "size"), [("ssdlite320_mobilenet_v3_large", 4), ("fcos_mobilenet_v2_fpn", 1), ("small_fcos", 4)]
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="of a CPU")
def test_small_pictures_are_detected_several_at_once(name: str, size: int) -> None:
    assert Detector(name, weights=None).batch_size == size
    assert Detector(name, weights=None, batch_size=2).batch_size == 2
