"""A torchvision detector that only has to detect: the same boxes for less.

Batch norms become part of the convolutions before them, classes that nobody asked for become one, boxes below the
wanted score are dropped before they are sorted, pictures lie in memory as CPUs like them, where a map is small,
RoIAlign is two matrix products, and a box head's linear layers are multiplied by oneDNN.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

SMALL = 1200  # cells of a map


def optimize_for_inference(
    network: FasterRCNN | RetinaNet | FCOS | SSD, labels: Sequence[int], min_score: float
) -> list[int]:
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
        scored.box_roi_pool = SeparableRoIAlign(scored.box_roi_pool)
        pack(scored.box_head)
        _select(scored.box_predictor.bbox_pred, (4 * kept[:, None] + torch.arange(4)).flatten())
        scored.box_predictor = BackgroundMergedClassifier(scored.box_predictor, labels)
    elif isinstance(network, SSD):
        network.head.classification_head = BackgroundMergedClassifier(network.head.classification_head, labels)
    else:
        head = network.head.classification_head
        _select(head.cls_logits, (head.num_classes * torch.arange(head.num_anchors)[:, None] + kept).flatten())
        head.num_classes = len(kept)
    return kept.tolist()


class BackgroundMergedClassifier(nn.Module):
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


class SeparableRoIAlign(nn.Module):
    """RoIAlign over feature maps (He et al., "Mask R-CNN", ICCV 2017), on a CPU by its separability.

    Bilinear samples on a grid are a product: weights of the rows, the map, weights of the columns. On maps of few cells
    that is several times faster than torchvision's loop over samples, which large maps keep.
    """

    def __init__(self, pool: MultiScaleRoIAlign) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """(boxes of all images, C, S, S), as the `pool` that it stands for gives."""
        levels = [maps[name] for name in self.pool.featmap_names if name in maps]
        fits = max(level.shape[2] * level.shape[3] for level in levels) <= SMALL and levels[0].device.type == "cpu"
        if self.pool.scales is None or self.pool.map_levels is None or not fits:  # the first picture sets its scales
            return self.pool(maps, boxes, sizes)
        level = self.pool.map_levels(boxes)
        image = torch.cat([torch.full((len(some),), index) for index, some in enumerate(boxes)])
        rows = torch.cat(boxes)
        result = rows.new_empty(len(rows), levels[0].shape[1], *self.pool.output_size)
        for (k, scale), i in product(enumerate(self.pool.scales), range(len(boxes))):
            chosen = (level == k) & (image == i)
            result[chosen] = self._align(levels[k][i], rows[chosen] * scale)
        return result

    def _align(self, features: Tensor, boxes: Tensor) -> Tensor:
        """(N, C, S, S) of one map (C, H, W) and boxes (N, 4) in its cells."""
        (high, wide), (channels, height, width) = self.pool.output_size, features.shape
        across = self._weights(boxes[:, 0], boxes[:, 2], wide, width)  # (N, S, W)
        down = self._weights(boxes[:, 1], boxes[:, 3], high, height).flatten(0, 1)  # (N S, H)
        rows = down @ features.permute(1, 2, 0).reshape(height, -1)  # (N S, W C)
        return (across[:, None] @ rows.view(len(boxes), high, width, channels)).permute(0, 3, 1, 2)

    def _weights(self, start: Tensor, end: Tensor, bins: int, cells: int) -> Tensor:
        """(N, bins, cells) how much of each cell is in each bin of the stretches from start to end (N,)."""
        ratio = self.pool.sampling_ratio
        steps = (torch.arange(bins * ratio) + 0.5) / (bins * ratio)
        at = start[:, None] + (end - start).clamp(min=1.0)[:, None] * steps
        near = 1 - (at.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
        near = near.clamp(min=0) * ((at >= -1) & (at <= cells))[..., None]
        return near.view(len(start), bins, ratio, cells).mean(2)


class OneDNNLinear(nn.Module):
    """A linear layer in oneDNN, its weights in the order that it wants: the same sums, and twice as fast on the CPUs
    with AVX-512 that MKL, which torch asks otherwise, does not know (AMD's)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, features: Tensor) -> Tensor:
        """(..., out) of (..., in)."""
        if torch.is_autocast_enabled(features.device.type):
            return self.linear(features)
        return torch.ops.mkldnn._linear_pointwise(features, self.weight, self.linear.bias, "none", [], "")


def pack(module: nn.Module) -> None:
    """Pack a module's linear layers, in place, where they are on a CPU for which torch has oneDNN."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if (
                isinstance(layer, nn.Linear)
                and layer.weight.device.type == "cpu"
                and torch.backends.mkldnn.is_available()
            ):
                setattr(parent, name, OneDNNLinear(layer))


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
