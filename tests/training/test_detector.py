"""Training of detectors: two images are learned, checkpoints, frozen parts and averaged weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from track.datasets.streets import make_dataset
from track.detection.detector import build_detector, load_detector, save_detector
from track.training.detection_data import DetectionDataModule
from track.training.detector import DetectorModule, load_backbone

NAME = "fcos_mobilenet_v2_fpn"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's weights as torchvision saves them."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet.pth"
    torch.save(mobilenet_v2(weights=None).state_dict(), path)
    return path


def test_the_small_detector_learns_two_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    make_dataset(tmp_path, 2, 1, seed=5)
    data = DetectionDataModule(str(tmp_path), val_fraction=0.5)
    data.setup("fit")
    images, targets = zip(data.val[0], data.train[0], strict=True)
    module = DetectorModule("small_fcos", weights=None)
    optimizer = torch.optim.AdamW(module.parameters(), 4e-3)
    losses = []
    for _ in range(12):
        loss = sum(module.network(list(images), list(targets)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_checkpoint_keeps_its_own_architecture(tmp_path: Path) -> None:
    first = DetectorModule("small_fcos", weights=None).export(tmp_path / "a")
    second = DetectorModule("ssdlite320_mobilenet_v3_large", checkpoint=str(first)).export(tmp_path / "b")
    assert load_detector(second).name == "small_fcos"


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path) -> None:
    network, categories = build_detector("small_fcos", None, ["__background__", "dog"])
    file = save_detector(network, "small_fcos", categories, tmp_path / "dogs.safetensors")
    with pytest.raises(ValueError, match=r"dogs.safetensors: expected a detector of person alone, it has \['dog'\]"):
        DetectorModule("small_fcos", checkpoint=str(file))


def test_a_checkpoint_is_trained_as_a_whole(tmp_path: Path) -> None:
    first = DetectorModule("small_fcos", weights=None).export(tmp_path)
    module = DetectorModule(checkpoint=str(first))
    assert module.network.training
    assert all(p.requires_grad for p in module.network.parameters())


def test_a_backbone_from_a_file_is_pretrained_with_frozen_norms(features: Path) -> None:
    module = DetectorModule(NAME, weights=None, backbone=str(features))
    state = torch.load(features, weights_only=True)
    body = module.network.backbone.body
    assert torch.equal(body.state_dict()["18.0.weight"], state["features.18.0.weight"])
    assert module.pretrained == {id(p) for p in body.parameters()}
    assert len(module.frozen_norms) == 52


def test_a_backbone_of_another_network_is_refused(features: Path, tmp_path: Path) -> None:
    state = torch.load(features, weights_only=True)
    network = build_detector(NAME, None)[0]
    wrong = {"features.18.0.weight": torch.zeros(3), "features.0.0.weight": None}
    for number, (key, value) in enumerate(wrong.items()):
        changed = {k: value if k == key else v for k, v in state.items() if value is not None or k != key}
        file = tmp_path / f"{number}.safetensors"
        save_file(changed, file)
        with pytest.raises(ValueError, match=rf"{number}.safetensors: .*{key.removeprefix('features.')} is not there"):
            load_backbone(network, str(file))
    with pytest.raises(ValueError, match=r"model.backbone: SSD has none"):
        load_backbone(build_detector("ssd300_vgg16", None)[0], str(features))


def test_frozen_parts_do_not_learn_and_unknown_ones_are_refused() -> None:
    module = DetectorModule(NAME, weights=None, freeze=["backbone.body.0", "backbone.body.1"])
    frozen = {name.split(".")[2] for name, p in module.network.named_parameters() if not p.requires_grad}
    assert frozen == {"0", "1"}
    assert len(module.frozen_norms) == 3
    with pytest.raises(ValueError, match=r"model.freeze: 'backbone.bodi' is no part of the network, nearest: .*body"):
        DetectorModule(NAME, weights=None, freeze=["backbone.bodi"])


def test_the_exported_weights_are_the_moving_average(tmp_path: Path) -> None:
    module = DetectorModule("small_fcos", weights=None)
    weight = module.network.head.regression_head.bbox_ctrness.weight
    start = weight.detach().clone()
    for _ in range(20):
        with torch.no_grad():
            weight += 1
        module.on_train_batch_end(None, ([], []), 0)
    exported = load_detector(module.export(tmp_path)).network.head.regression_head.bbox_ctrness.weight
    lag = (weight - exported).mean().item()
    assert 1 < lag < 19
    assert (exported - start).mean() > 1
