"""A torchvision detector that only has to detect: the same boxes for less.

Batch norms become part of the convolutions before them, classes that nobody asked for become one, boxes below the
wanted score are dropped before they are sorted, and pictures lie in memory as CPUs like them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FrozenBatchNorm2d


def streamline(network: nn.Module, labels: Sequence[int], min_score: float) -> list[int]:
    """Make a network of one of torchvision's families faster, in place and for good.

    labels: the classes that are wanted. min_score: boxes below it are not. Returns what each label that the network
    now gives means; a network of another family stays as it is.
    """
    if not isinstance(network, FasterRCNN | RetinaNet | FCOS | SSD):
        return list(range(1 + max(labels, default=0)))
    fold_batch_norms(network)
    kept = [0, *labels]
    if isinstance(network, FasterRCNN):
        network.roi_heads.score_thresh = max(network.roi_heads.score_thresh, min_score)
        predictor = network.roi_heads.box_predictor
        rows = (4 * torch.tensor(kept)[:, None] + torch.arange(4)).flatten()
        predictor.bbox_pred = _rows(predictor.bbox_pred, rows)
        network.roi_heads.box_predictor = Merged(predictor, labels)
    else:
        network.score_thresh = max(network.score_thresh, min_score)
        head = network.head.classification_head
        if isinstance(network, SSD):
            network.head.classification_head = Merged(head, labels)
        else:
            anchors = torch.arange(head.num_anchors)[:, None] * head.num_classes
            head.cls_logits = _rows(head.cls_logits, (anchors + torch.tensor(kept)).flatten())
            head.num_classes = len(kept)
    return kept


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
    for module in network.modules():
        for (_, conv), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
                parts = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *parts)  # type: ignore[arg-type]
                setattr(module, name, nn.Identity())


def _rows(layer: nn.Module, rows: Tensor) -> nn.Module:
    """The same linear layer or convolution with these of its outputs alone."""
    layer.weight, layer.bias = (nn.Parameter(part.detach()[rows]) for part in (layer.weight, layer.bias))
    return layer
