# Copyright (c) dms_razor contributors. All rights reserved.
"""C2f stages: halves of their own width, and blocks that really go.

A C2f stage (``CSPLayerWithTwoConv`` of YOLOv8) cuts its channels into halves,
runs blocks on the second one and concatenates both halves and the output of
every block. The slim stage has two widths. Without block i its slot would
repeat the slot before it, so the slot goes and its columns of the last
convolution are added to those of the slot before: exactly the same function
(METHOD section 2).
"""
import torch
from torch import Tensor, nn

from .registry import Slots, register_slim


@register_slim('mmyolo.models.layers.yolo_bricks', 'CSPLayerWithTwoConv')
class SlimCSPLayerWithTwoConv:
    """mmyolo's C2f stage."""

    def _dms_setup(self) -> None:
        self.splits = [self.mid_channels, self.mid_channels]

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[B, C, H, W]`` to ``[B, C', H, W]``."""
        parts = list(self.main_conv(x).split(self.splits, 1))
        for block in self.blocks:
            if not isinstance(block, nn.Identity):  # a removed one
                parts.append(block(parts[-1]))
        return self.final_conv(torch.cat(parts, 1))

    @staticmethod
    def slots(stage: nn.Module) -> Slots:
        """Behind both halves, each as wide as one of them."""
        width = stage.mid_channels
        starts = [(f'blocks.{i}', (2 + i) * width)
                  for i in range(len(stage.blocks))]
        return Slots('final_conv.conv', width, starts, pieces='splits')
