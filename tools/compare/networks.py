# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks of the shipped experiments, for small images."""
from typing import List, Sequence, Tuple

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = None
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False),
                nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, width, H / stride, W / stride]``."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """A ResNet of basic blocks without pooling at its start.

    Args:
        widths (sequence of int): Of the stages; each but the first halves the
            image.
        blocks (sequence of int): Of the stages.
        classes (int): Outputs. Defaults to 10.
    """

    def __init__(self,
                 widths: Sequence[int] = (16, 32, 64),
                 blocks: Sequence[int] = (3, 3, 3),
                 classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        stages, inputs = [], widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks)):
            stage = []
            for block in range(count):
                stride = 2 if number and not block else 1
                stage.append(Block(inputs, width, stride))
                inputs = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to ``[B, classes]``."""
        x = self.stages(F.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """An inverted residual block: widen, depthwise convolution, narrow."""

    def __init__(self, inputs: int, width: int, stride: int,
                 expand: int) -> None:
        super().__init__()
        middle = inputs * expand
        self.shortcut = stride == 1 and inputs == width
        widen = [] if expand == 1 else conv_norm(inputs, middle, 1)
        self.layers = nn.Sequential(
            *widen, *conv_norm(middle, middle, 3, stride, groups=middle),
            *conv_norm(middle, width, 1)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, width, H / stride, W / stride]``."""
        out = self.layers(x)
        return x + out if self.shortcut else out


def conv_norm(inputs: int,
              width: int,
              size: int,
              stride: int = 1,
              groups: int = 1) -> List[nn.Module]:
    """Convolution, BatchNorm and ReLU6."""
    conv = nn.Conv2d(
        inputs, width, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]


class MobileNetV2(nn.Module):
    """MobileNetV2 with the strides that small images want.

    Args:
        stages (sequence of tuple): Expansion, width, blocks and stride of
            each stage.
        stem, last (int): Widths of the first and the last convolution.
        classes (int): Outputs. Defaults to 10.
    """

    def __init__(self,
                 stages: Sequence[Tuple[int, int, int,
                                        int]] = ((1, 8, 1, 1), (6, 12, 2, 1),
                                                 (6, 16, 3, 2), (6, 32, 3, 2),
                                                 (6, 48, 2, 1)),
                 stem: int = 16,
                 last: int = 192,
                 classes: int = 10) -> None:
        super().__init__()
        layers, inputs = conv_norm(3, stem, 3), stem
        for expand, width, count, stride in stages:
            for block in range(count):
                layers.append(
                    Inverted(inputs, width, 1 if block else stride, expand))
                inputs = width
        self.layers = nn.Sequential(*layers, *conv_norm(inputs, last, 1))
        self.head = nn.Linear(last, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to ``[B, classes]``."""
        return self.head(self.layers(x).mean((2, 3)))


def initialise(network: nn.Module) -> None:
    """New weights in place: He's for convolutions, small ones for the head."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode='fan_out', nonlinearity='relu')
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            module.reset_running_stats()
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, .01)
            nn.init.zeros_(module.bias)
