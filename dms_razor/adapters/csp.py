# Copyright (c) dms_razor contributors. All rights reserved.
"""C2f stages: halves of their own width, and blocks that really go.

A C2f stage (``CSPLayerWithTwoConv`` of YOLOv8) cuts its channels into halves,
runs blocks on the second one and concatenates both halves and the output of
every block. The slim stage has two widths. Without block i its slot would
repeat the slot before it, so the slot goes and its columns of the last
convolution are added to those of the slot before: exactly the same function
(METHOD section 2).
"""
from typing import List, Tuple

import torch
from torch import Tensor, nn

from .registry import RemovedBlock, register_slim


@register_slim('mmyolo.models.layers.yolo_bricks', 'CSPLayerWithTwoConv')
class SlimCSPLayerWithTwoConv:
    """mmyolo's C2f stage."""

    def _dms_setup(self) -> None:
        self.splits = [self.mid_channels, self.mid_channels]

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[B, C, H, W]`` to ``[B, C', H, W]``."""
        parts = list(self.main_conv(x).split(self.splits, 1))
        for block in self.blocks:
            if not isinstance(block, RemovedBlock):
                parts.append(block(parts[-1]))
        return self.final_conv(torch.cat(parts, 1))

    @staticmethod
    def slots(stage: nn.Module) -> Tuple[str, List[Tuple[str, int]]]:
        """Where the outputs of blocks lie in what the last layer reads.

        Args:
            stage (nn.Module): A stage of the standard class.

        Returns:
            tuple: Path of that layer in the stage, and for each block its
            path in the stage and its first channel there. The slot of a
            block is as wide as ``mid_channels``; it is added to the slot
            before it.
        """
        width = stage.mid_channels
        return 'final_conv.conv', [(f'blocks.{i}', (2 + i) * width)
                                   for i in range(len(stage.blocks))]

    @staticmethod
    def slot_width(stage: nn.Module) -> int:
        """Channels of one slot."""
        return stage.mid_channels
