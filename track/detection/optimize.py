"""Inference-only optimisations of torchvision's detectors; the boxes are unchanged.

Batch norms are folded into the convolutions before them, classes that are not requested are merged into the background,
boxes below the minimum score are dropped before they are sorted, the backbone runs in channels-last memory format,
RoIAlign on small feature maps is two matrix products, and a box head's linear layers run in oneDNN.
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

SEPARABLE_MAX_CELLS = 1200  # of the largest feature map, up to which a separable RoIAlign is faster


def optimize_for_inference(
    network: FasterRCNN | RetinaNet | FCOS | SSD, labels: Sequence[int], min_score: float
) -> list[int]:
    """Make a Faster R-CNN, RetinaNet, FCOS or SSD faster, in place and irreversibly.

    labels: the requested classes. min_score: boxes below it may be dropped. Returns the original label of each label
    that the network gives from now on: the background, then `labels`.
    """
    fold_batch_norms(network)
    network.backbone.to(memory_format=torch.channels_last)
    network.backbone.register_forward_pre_hook(_channels_last)
    label_map = torch.tensor([0, *labels])
    predictor: Any = network.roi_heads if isinstance(network, FasterRCNN) else network
    predictor.score_thresh = max(predictor.score_thresh, min_score - 1e-6)  # torchvision drops scores equal to it too
    if isinstance(network, FasterRCNN):
        predictor.box_roi_pool = SeparableRoIAlign(predictor.box_roi_pool)
        use_onednn(predictor.box_head)
        _select_outputs(predictor.box_predictor.bbox_pred, (4 * label_map[:, None] + torch.arange(4)).flatten())
        predictor.box_predictor = BackgroundMergedClassifier(predictor.box_predictor, labels)
    elif isinstance(network, SSD):
        network.head.classification_head = BackgroundMergedClassifier(network.head.classification_head, labels)
    else:
        head = network.head.classification_head
        first_outputs = head.num_classes * torch.arange(head.num_anchors)  # of each anchor
        _select_outputs(head.cls_logits, (first_outputs[:, None] + label_map).flatten())
        head.num_classes = len(label_map)
    return label_map.tolist()


class BackgroundMergedClassifier(nn.Module):
    """A softmax classifier whose background and unrequested classes are merged into one class, the first.

    The probabilities of the requested classes are unchanged, because the merged logit is the log-sum-exp of the others.
    """

    def __init__(self, classifier: nn.Module, labels: Sequence[int]) -> None:
        super().__init__()
        self.classifier, self.labels = classifier, list(labels)

    def forward(self, features: Tensor | list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (..., 1 + labels), and the classifier's other outputs if it has any."""
        output = self.classifier(features)
        logits, *others = output if isinstance(output, tuple) else (output,)
        requested = logits[..., self.labels]
        rest = logits.index_fill(-1, torch.tensor(self.labels, device=logits.device), -torch.inf)
        merged = torch.cat([rest.logsumexp(-1, keepdim=True), requested], -1)
        return (merged, *others) if others else merged


class SeparableRoIAlign(nn.Module):
    """RoIAlign over feature maps (He et al., "Mask R-CNN", ICCV 2017) as two matrix products, for CPUs.

    Bilinear samples on a grid are separable: weights of the rows, times the map, times weights of the columns. On small
    maps that is several times faster than torchvision's loop over samples, which is still used on large ones.
    """

    def __init__(self, pool: MultiScaleRoIAlign) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """(boxes of all images, C, S, S), the output of `pool`."""
        levels = [maps[name] for name in self.pool.featmap_names if name in maps]
        small = max(level.shape[2] * level.shape[3] for level in levels) <= SEPARABLE_MAX_CELLS
        scales_known = self.pool.scales is not None and self.pool.map_levels is not None  # set by the pool's first call
        if not (small and scales_known and levels[0].device.type == "cpu"):
            return self.pool(maps, boxes, sizes)
        level_of_box = self.pool.map_levels(boxes)
        image_of_box = torch.cat([torch.full((len(some),), index) for index, some in enumerate(boxes)])
        all_boxes = torch.cat(boxes)
        result = all_boxes.new_empty(len(all_boxes), levels[0].shape[1], *self.pool.output_size)
        for (level, scale), image in product(enumerate(self.pool.scales), range(len(boxes))):
            chosen = (level_of_box == level) & (image_of_box == image)
            result[chosen] = self._align(levels[level][image], all_boxes[chosen] * scale)
        return result

    def _align(self, features: Tensor, boxes: Tensor) -> Tensor:
        """(N, C, S, S) of one map (C, H, W) and boxes (N, 4) in units of its cells."""
        rows, columns = self.pool.output_size
        channels, height, width = features.shape
        across = self._weights(boxes[:, 0], boxes[:, 2], columns, width)  # (N, S, W)
        down = self._weights(boxes[:, 1], boxes[:, 3], rows, height).flatten(0, 1)  # (N S, H)
        strips = down @ features.permute(1, 2, 0).reshape(height, -1)  # (N S, W C)
        return (across[:, None] @ strips.view(len(boxes), rows, width, channels)).permute(0, 3, 1, 2)

    def _weights(self, start: Tensor, end: Tensor, bins: int, cells: int) -> Tensor:
        """(N, bins, cells) the weight of each cell in each bin of the intervals from start to end (N,)."""
        ratio = self.pool.sampling_ratio
        steps = (torch.arange(bins * ratio) + 0.5) / (bins * ratio)
        at = start[:, None] + (end - start).clamp(min=1.0)[:, None] * steps
        near = 1 - (at.clamp(0, cells - 1)[..., None] - torch.arange(cells)).abs()
        near = near.clamp(min=0) * ((at >= -1) & (at <= cells))[..., None]
        return near.view(len(start), bins, ratio, cells).mean(2)


class OneDNNLinear(nn.Module):
    """A linear layer in oneDNN, its weights packed in oneDNN's own layout.

    The sums are the same, and twice as fast on the CPUs with AVX-512 that MKL, torch's default, does not know (AMD's).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, features: Tensor) -> Tensor:
        """(..., out) of (..., in)."""
        if torch.is_autocast_enabled(features.device.type):
            return self.linear(features)
        return torch.ops.mkldnn._linear_pointwise(features, self.weight, self.linear.bias, "none", [], "")


def use_onednn(module: nn.Module) -> None:
    """Run a module's linear layers in oneDNN, in place, those on a CPU and if torch was built with oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and layer.weight.device.type == "cpu":
                setattr(parent, name, OneDNNLinear(layer))


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into the convolution, in place; for inference only."""
    module: Any
    for module in network.modules():
        for (_, conv), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
                parts = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *parts)  # type: ignore[arg-type]
                setattr(module, name, nn.Identity())


def _channels_last(module: nn.Module, images: tuple[Tensor]) -> tuple[Tensor]:
    return (images[0].contiguous(memory_format=torch.channels_last),)


def _select_outputs(layer: Any, outputs: Tensor) -> None:
    """Reduce a linear layer or convolution to some of its outputs, in place."""
    layer.weight, layer.bias = (nn.Parameter(part.detach()[outputs], False) for part in (layer.weight, layer.bias))
