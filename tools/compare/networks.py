# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks of the shipped experiments, for small images."""
from typing import List, Sequence, Tuple

import torch
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


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, width]`` to the same shape."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """A block of a transformer: attention and two linear layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(),
            nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, width]`` to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.layers(self.norm2(x))


class Positions(nn.Module):
    """A learnt vector for each position."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, width]`` to the same shape."""
        return x + self.weight


class VisionTransformer(nn.Module):
    """A vision transformer that averages its tokens.

    Args:
        width (int): Of the tokens.
        blocks, heads (int): Number of blocks, and of heads in each.
        size, patch (int): Side of the images, and of a patch.
        classes (int): Outputs. Defaults to 10.
    """

    def __init__(self,
                 width: int = 96,
                 blocks: int = 6,
                 heads: int = 6,
                 size: int = 16,
                 patch: int = 2,
                 classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = Positions((size // patch)**2, width)
        self.blocks = nn.Sequential(
            *[Encoder(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 3, size, size]`` to ``[B, classes]``."""
        x = self.positions(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(self.blocks(x)).mean(1))


def initialise(network: nn.Module) -> None:
    """New weights in place, as is usual for such networks.

    He's for convolutions; a small normal for the linear layer of a
    convolutional network's end, and a transformer's .02 for its layers.
    """
    deviation = .01
    for module in network.modules():
        if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
            module.reset_parameters()
            deviation = .02 if isinstance(module, nn.LayerNorm) else deviation
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode='fan_out', nonlinearity='relu')
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, deviation)
        elif isinstance(module, Positions):
            nn.init.normal_(module.weight, 0, deviation)
        if isinstance(module, (nn.Conv2d, nn.Linear)) \
                and module.bias is not None:
            nn.init.zeros_(module.bias)
