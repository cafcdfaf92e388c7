"""An optimised detector gives torchvision's own boxes."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from track.detection.detector import available_detectors, build_detector
from track.detection.optimize import (
    BackgroundMergedClassifier,
    OneDNNLinear,
    SeparableRoIAlign,
    fold_batch_norms,
    optimize_for_inference,
    use_onednn,
)

CATEGORIES = ["__background__", "car", "dog", "person", "tree"]
LABELS = [3, 1]


def random_network(name: str) -> nn.Module:
    """A network of random weights whose classes and batch norms differ, without non-maximum suppression.

    With random weights many scores are equal, and which box suppresses which would be chance.
    """
    torch.manual_seed(0)
    network = build_detector(name, None, CATEGORIES)[0].eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
        for limit, value in {"topk_candidates": 10**6, "detections_per_img": 10**6, "nms_thresh": 1.0}.items():
            if hasattr(module, limit):
                setattr(module, limit, value)
    for path, module in network.named_modules():
        classifier = path.endswith(("cls_logits", "cls_score")) or "classification_head.module_list" in path
        if classifier and isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.normal_(0, 1.0)
    return network


@pytest.mark.parametrize("name", available_detectors())
def test_the_boxes_of_every_detector_are_unchanged(name: str) -> None:
    network, image = random_network(name), torch.rand(3, 64, 96)
    for limits in (network, getattr(network, "transform", None)):
        for side in ("min_size", "max_size"):
            if hasattr(limits, side):
                setattr(limits, side, (64,) if side == "min_size" else 96)
    optimized = copy.deepcopy(network)
    label_map = optimize_for_inference(optimized, LABELS, 0.1)
    with torch.inference_mode():
        expected, output = network([image])[0], optimized([image])[0]
    output["labels"] = torch.tensor(label_map)[output["labels"]]
    count = 0
    for label in LABELS:
        theirs, ours = ((one["labels"] == label) & (one["scores"] > 0.1) for one in (expected, output))
        count += int(theirs.sum())
        for key in ("scores", "boxes"):  # column by column: equal scores come in any order
            torch.testing.assert_close(
                output[key][ours].sort(0).values, expected[key][theirs].sort(0).values, rtol=0, atol=0.02
            )
    assert count > 0


def test_merging_classes_into_the_background_keeps_the_probabilities_of_the_others() -> None:
    logits = torch.randn(5, 6)
    merged = BackgroundMergedClassifier(nn.Identity(), [4, 2])(logits)
    torch.testing.assert_close(merged.softmax(1)[:, 1:], logits.softmax(1)[:, [4, 2]])


def test_separable_roi_align_equals_torchvisions() -> None:
    torch.manual_seed(0)
    pool = MultiScaleRoIAlign(["0", "1"], 7, 2)
    separable = SeparableRoIAlign(copy.deepcopy(pool))
    maps = {"0": torch.randn(2, 4, 20, 28), "1": torch.randn(2, 4, 10, 14)}
    corners = [torch.rand(40, 4) * torch.tensor([330.0, 230, 300, 200]) - 20 for _ in range(2)]
    boxes = [torch.cat([one[:, :2], one[:, :2] + one[:, 2:].clamp(min=0)], 1) for one in corners]
    separable(maps, boxes, [(320, 448)] * 2)  # which sets the scales
    expected = pool(maps, boxes, [(320, 448)] * 2)
    assert expected.std() > 0.3
    torch.testing.assert_close(separable(maps, boxes, [(320, 448)] * 2), expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs a torch with oneDNN")
def test_a_layer_in_onednn_gives_the_same_sums_and_respects_autocast() -> None:
    head = nn.Sequential(nn.Linear(600, 40), nn.ReLU(), nn.Linear(40, 8)).eval().requires_grad_(False)
    features = torch.randn(5, 600)
    expected = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        half = head(features)
    use_onednn(head)
    assert [type(layer) for layer in head] == [OneDNNLinear, nn.ReLU, OneDNNLinear]
    with torch.inference_mode():
        torch.testing.assert_close(head(features), expected, rtol=0, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(head(features), half)


def test_folding_a_batch_norm_removes_it_and_keeps_the_output() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    block[1].running_mean.normal_()
    block[1].running_var.uniform_(0.5, 2)
    image = torch.rand(1, 3, 8, 8)
    expected = block(image)
    fold_batch_norms(block)
    assert isinstance(block[1], nn.Identity)
    torch.testing.assert_close(block(image), expected, rtol=1e-4, atol=1e-5)
