import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from track.detector import Detector, build, names, save_detector


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
    assert categories == ["__background__", "person"]
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
