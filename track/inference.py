"""A torchvision detector that only has to detect: the same boxes for less.

Batch norms become part of the convolutions before them, classes that nobody asked for become one, boxes below the
wanted score are dropped before they are sorted, and pictures lie in memory as CPUs like them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FrozenBatchNorm2d


def streamline(network: FasterRCNN | RetinaNet | FCOS | SSD, labels: Sequence[int], min_score: float) -> list[int]:
    """Make a Faster R-CNN, RetinaNet, FCOS or SSD faster, in place and for good.

    labels: the classes that are wanted. min_score: boxes below it are not. Returns what each label that the network
    now gives means: the class that it was before.
    """
    fold_batch_norms(network)
    network.backbone.to(memory_format=torch.channels_last)
    network.backbone.register_forward_pre_hook(_channels_last)
    kept = torch.tensor([0, *labels])
    scored: Any = network.roi_heads if isinstance(network, FasterRCNN) else network
    scored.score_thresh = max(scored.score_thresh, min_score - 1e-6)  # torchvision drops those equal to it too
    if isinstance(network, FasterRCNN):
        _select(scored.box_predictor.bbox_pred, (4 * kept[:, None] + torch.arange(4)).flatten())
        scored.box_predictor = Merged(scored.box_predictor, labels)
    elif isinstance(network, SSD):
        network.head.classification_head = Merged(network.head.classification_head, labels)
    else:
        head = network.head.classification_head
        _select(head.cls_logits, (head.num_classes * torch.arange(head.num_anchors)[:, None] + kept).flatten())
        head.num_classes = len(kept)
    return kept.tolist()


class Merged(nn.Module):
    """A softmax classifier in which every unwanted class and the background are one, the first; probabilities of the
    wanted ones are as before, since the exponentials of the others are summed."""

    def __init__(self, classifier: nn.Module, labels: Sequence[int]) -> None:
        super().__init__()
        self.classifier, self.labels = classifier, list(labels)

    def forward(self, features: Tensor | list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (..., 1 + wanted), and whatever else the classifier gives."""
        output = self.classifier(features)
        logits, *others = output if isinstance(output, tuple) else (output,)
        wanted = logits[..., self.labels]
        rest = logits.index_fill(-1, torch.tensor(self.labels, device=logits.device), -torch.inf)
        merged = torch.cat([rest.logsumexp(-1, keepdim=True), wanted], -1)
        return (merged, *others) if others else merged


def fold_batch_norms(network: nn.Module) -> None:
    """Make every batch norm that follows a convolution part of it; for evaluation only."""
    module: Any
    for module in network.modules():
        for (_, conv), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
                parts = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *parts)  # type: ignore[arg-type]
                setattr(module, name, nn.Identity())


def _channels_last(module: nn.Module, images: tuple[Tensor]) -> tuple[Tensor]:
    return (images[0].contiguous(memory_format=torch.channels_last),)


def _select(layer: Any, rows: Tensor) -> None:
    """Leave a linear layer or convolution these of its outputs alone."""
    layer.weight, layer.bias = (nn.Parameter(part.detach()[rows], False) for part in (layer.weight, layer.bias))
