# Copyright (c) dms_razor contributors. All rights reserved.
"""A stand-in for ``mmcv._ext``, the compiled half that mmcv-lite lacks.

MMDetection and MMYOLO import it whatever they do; for training and testing a
classifier or YOLO the only operation they call is non-maximum suppression.
"""
import importlib.machinery
import types
from typing import Callable

import torch
from torch import Tensor


def iou(first: Tensor, second: Tensor, offset: int) -> Tensor:
    """Intersection over union of boxes [A, 4] and [B, 4] (x1, y1, x2, y2).

    ``offset`` is 1 where the last pixel counts as part of the box, else 0.
    Returns [A, B].
    """
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    inter = (bottom_right - top_left + offset).clamp_(min=0).prod(-1)
    area_first, area_second = ((boxes[:, 2:] - boxes[:, :2] + offset).prod(-1)
                               for boxes in (first, second))
    return inter / (area_first[:, None] + area_second[None] - inter)


def nms(boxes: Tensor,
        scores: Tensor,
        iou_threshold: float,
        offset: int = 0,
        block: int = 512) -> Tensor:
    """Greedy non-maximum suppression, as ``mmcv._ext.nms``.

    Args:
        boxes (Tensor): [N, 4], x1, y1, x2, y2 in pixels.
        scores (Tensor): [N].
        iou_threshold (float): A box that overlaps a better one by more than
            this is dropped.
        offset (int): 1 where the last pixel counts as part of the box.
        block (int): Boxes compared at once; bounds the memory.

    Returns:
        Tensor: int64 indices of the kept boxes, by falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked = boxes[order].float()
    kept = ranked.new_zeros((0, 4))
    indices = [order[:0]]
    for start in range(0, len(ranked), block):
        current = ranked[start:start + block]
        alive = torch.ones(len(current), dtype=torch.bool, device=boxes.device)
        for begin in range(0, len(kept), block):
            better = kept[begin:begin + block]
            alive &= ~(iou(current, better, offset) > iou_threshold).any(1)
        # Inside the block the decisions depend on each other: on the CPU,
        # where a step of the loop costs no kernel launch.
        overlaps = (iou(current, current, offset)
                    > iou_threshold).triu(1).cpu()
        flags = alive.cpu()
        for i in range(len(flags)):
            if flags[i]:
                flags &= ~overlaps[i]
        survivors = flags.to(boxes.device).nonzero().flatten()
        indices.append(order[start + survivors])
        kept = torch.cat([kept, current[survivors]])
    return torch.cat(indices)


class ExtensionStandIn(types.ModuleType):
    """A module in which every other operator names itself when called."""

    def __init__(self) -> None:
        super().__init__('mmcv._ext', __doc__)
        # A spec without a loader: mmengine's mmcv_full_available() must go
        # on saying no.
        self.__spec__ = importlib.machinery.ModuleSpec('mmcv._ext', None)
        self.nms = nms

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise RuntimeError(
                f'mmcv operator "{name}" was called, but this environment has '
                'mmcv-lite, which ships no compiled operators. Install the '
                'full mmcv (`pip uninstall mmcv-lite && mim install mmcv`) to '
                'use it.')

        return missing
