"""torchvision's FCOS on small backbones, for CPUs and small training sets.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection" (ICCV 2019).
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOSHead


def small_fcos(num_classes: int, width: int = 64) -> FCOS:
    """FCOS on five convolutions with a single feature map of stride 8: for small images, trained within a minute.

    num_classes: including the background. width: channels of the feature map.
    """
    channels = [3, 16, 32, width, width, width]
    layers = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))
        for a, b, stride in zip(channels, channels[1:], (2, 2, 2, 1, 1), strict=False)
    ]
    backbone: Any = nn.Sequential(*layers)
    backbone.out_channels = width
    return FCOS(
        backbone,
        num_classes,
        min_size=240,
        max_size=640,
        anchor_generator=AnchorGenerator(sizes=((64,),), aspect_ratios=((1.0,),)),
        head=FCOSHead(width, 1, num_classes, num_convs=2),
        center_sampling_radius=2.5,
        score_thresh=0.05,
        nms_thresh=0.6,
    )


def fcos_mobilenet_v2_fpn(num_classes: int, width: int = 128) -> FCOS:
    """FCOS on MobileNetV2 (Sandler et al., CVPR 2018) with a feature pyramid of strides 8, 16, 32 and 64.

    num_classes: including the background. width: channels of the feature maps.
    """
    last_of_stage = {"6": "0", "13": "1", "18": "2"}  # layers of strides 8, 16 and 32: 32, 96 and 1280 channels
    backbone = BackboneWithFPN(mobilenet_v2(weights=None).features, last_of_stage, [32, 96, 1280], width)
    return FCOS(
        backbone,
        num_classes,
        min_size=(320, 360, 400, 440, 480),  # training draws one at random, inference takes the last
        max_size=1280,
        anchor_generator=AnchorGenerator(sizes=((8,), (16,), (32,), (64,)), aspect_ratios=((1.0,),) * 4),
        head=FCOSHead(width, 1, num_classes, num_convs=2),
        score_thresh=0.05,
        nms_thresh=0.6,
    )
