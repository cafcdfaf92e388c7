"""A streamlined detector gives torchvision's own boxes."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from track.detection.detector import build, names
from track.detection.optimize import (
    BackgroundMergedClassifier,
    OneDNNLinear,
    SeparableRoIAlign,
    fold_batch_norms,
    optimize_for_inference,
    pack,
)

CATEGORIES = ["__background__", "car", "dog", "person", "tree"]
LABELS = [3, 1]


def lively(name: str) -> nn.Module:
    """A network of random weights whose classes and batch norms differ, and which suppresses none of its boxes: of
    random weights many scores are equal, and what suppresses what is chance."""
    torch.manual_seed(0)
    network = build(name, None, CATEGORIES)[0].eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
        for limit, value in {"topk_candidates": 10**6, "detections_per_img": 10**6, "nms_thresh": 1.0}.items():
            if hasattr(module, limit):
                setattr(module, limit, value)
    for where, module in network.named_modules():
        classifier = where.endswith(("cls_logits", "cls_score")) or "classification_head.module_list" in where
        if classifier and isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.normal_(0, 1.0)
    return network


@pytest.mark.parametrize("name", names())
def test_every_family_keeps_its_boxes(name: str) -> None:
    network, image = lively(name), torch.rand(3, 64, 96)
    for limits in (network, getattr(network, "transform", None)):
        for side in ("min_size", "max_size"):
            if hasattr(limits, side):
                setattr(limits, side, (64,) if side == "min_size" else 96)
    lean = copy.deepcopy(network)
    kept = optimize_for_inference(lean, LABELS, 0.1)
    with torch.inference_mode():
        whole, less = network([image])[0], lean([image])[0]
    less["labels"] = torch.tensor(kept)[less["labels"]]
    count = 0
    for label in LABELS:
        wanted, ours = ((found["labels"] == label) & (found["scores"] > 0.1) for found in (whole, less))
        count += int(wanted.sum())
        for part in ("scores", "boxes"):  # column by column: equal scores come in any order
            torch.testing.assert_close(
                less[part][ours].sort(0).values, whole[part][wanted].sort(0).values, rtol=0, atol=0.02
            )
    assert count > 0


def test_unwanted_classes_are_one_and_wanted_probabilities_as_before() -> None:
    logits = torch.randn(5, 6)
    merged = BackgroundMergedClassifier(nn.Identity(), [4, 2])(logits)
    torch.testing.assert_close(merged.softmax(1)[:, 1:], logits.softmax(1)[:, [4, 2]])


def test_roi_align_as_two_products_is_torchvisions() -> None:
    torch.manual_seed(0)
    pool = MultiScaleRoIAlign(["0", "1"], 7, 2)
    small = SeparableRoIAlign(copy.deepcopy(pool))
    maps = {"0": torch.randn(2, 4, 20, 28), "1": torch.randn(2, 4, 10, 14)}
    corners = [torch.rand(40, 4) * torch.tensor([330.0, 230, 300, 200]) - 20 for _ in range(2)]
    boxes = [torch.cat([one[:, :2], one[:, :2] + one[:, 2:].clamp(min=0)], 1) for one in corners]
    small(maps, boxes, [(320, 448)] * 2)  # which sets the scales
    expected = pool(maps, boxes, [(320, 448)] * 2)
    assert expected.std() > 0.3
    torch.testing.assert_close(small(maps, boxes, [(320, 448)] * 2), expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs a torch with oneDNN")
def test_a_packed_layer_gives_the_same_sums_and_obeys_autocast() -> None:
    head = nn.Sequential(nn.Linear(600, 40), nn.ReLU(), nn.Linear(40, 8)).eval().requires_grad_(False)
    features = torch.randn(5, 600)
    expected = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        half = head(features)
    pack(head)
    assert [type(layer) for layer in head] == [OneDNNLinear, nn.ReLU, OneDNNLinear]
    with torch.inference_mode():
        torch.testing.assert_close(head(features), expected, rtol=0, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(head(features), half)


def test_a_folded_batch_norm_is_gone_and_computes_the_same() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    block[1].running_mean.normal_()
    block[1].running_var.uniform_(0.5, 2)
    image = torch.rand(1, 3, 8, 8)
    expected = block(image)
    fold_batch_norms(block)
    assert isinstance(block[1], nn.Identity)
    torch.testing.assert_close(block(image), expected, rtol=1e-4, atol=1e-5)
