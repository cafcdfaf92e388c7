"""A streamlined detector gives torchvision's own boxes."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from track.detector import build, names
from track.inference import Merged, fold_batch_norms, streamline

CATEGORIES = ["__background__", "car", "dog", "person", "tree"]
LABELS = [3, 1]


def lively(name: str) -> nn.Module:
    """A network of random weights whose classes and batch norms differ, and which hides none of its boxes."""
    torch.manual_seed(0)
    network = build(name, None, CATEGORIES)[0].eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
        for limit in ("topk_candidates", "detections_per_img"):
            if hasattr(module, limit):
                setattr(module, limit, 10**6)
    for where, module in network.named_modules():
        classifier = where.endswith(("cls_logits", "cls_score")) or "classification_head.module_list" in where
        if classifier and isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.normal_(0, 1.0)
            module.weight.mul_(10)  # or scores are ties, and what suppresses what is chance
    return network


@pytest.mark.parametrize("name", names())
def test_every_family_keeps_its_boxes(name: str) -> None:
    network, image = lively(name), torch.rand(3, 64, 96)
    for limits in (network, getattr(network, "transform", None)):
        for side in ("min_size", "max_size"):
            if hasattr(limits, side):
                setattr(limits, side, (64,) if side == "min_size" else 96)
    lean = copy.deepcopy(network)
    kept = streamline(lean, LABELS, 0.1)
    with torch.inference_mode():
        whole, less = network([image])[0], lean([image])[0]
    less["labels"] = torch.tensor(kept)[less["labels"]]
    wanted = torch.isin(whole["labels"], torch.tensor(LABELS)) & (whole["scores"] > 0.1)
    ours = torch.isin(less["labels"], torch.tensor(LABELS))
    assert wanted.sum() > 0
    same = torch.cdist(whole["boxes"][wanted], less["boxes"][ours]) < 0.1
    same &= whole["labels"][wanted][:, None] == less["labels"][ours]
    same &= (whole["scores"][wanted][:, None] - less["scores"][ours]).abs() < 1e-3
    # of random weights some scores differ by less than rounding, and which box then suppresses which is chance
    assert min(same.any(0).float().mean(), same.any(1).float().mean()) > 0.98


def test_unwanted_classes_are_one_and_wanted_probabilities_as_before() -> None:
    logits = torch.randn(5, 6)
    merged = Merged(nn.Identity(), [4, 2])(logits)
    torch.testing.assert_close(merged.softmax(1)[:, 1:], logits.softmax(1)[:, [4, 2]])


def test_a_folded_batch_norm_is_gone_and_computes_the_same() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    block[1].running_mean.normal_()
    block[1].running_var.uniform_(0.5, 2)
    image = torch.rand(1, 3, 8, 8)
    expected = block(image)
    fold_batch_norms(block)
    assert isinstance(block[1], nn.Identity)
    torch.testing.assert_close(block(image), expected, rtol=1e-4, atol=1e-5)
