# Copyright (c) dms_razor contributors. All rights reserved.
"""Is a set of detections what non-maximum suppression leaves of boxes?

Two correct programs need not choose the same boxes: where two scores are
equal but for rounding, another box may come first and suppress others. What
must hold for any of them is checked instead.
"""
from itertools import product

import torch
from torch import Tensor

from ..compat.mmcv_ext import iou
from .boxes import DetectedBoxes


def detection_difference(network: DetectedBoxes,
                         found: Tensor,
                         images: Tensor,
                         rounding: float = 1e-3) -> float:
    """Compare detections with the boxes and scores they were chosen from.

    Args:
        network (DetectedBoxes): The network.
        found (Tensor): (N, 7), what a file of it returned.
        images (Tensor): For these images.
        rounding (float): What scores and overlaps may differ by.

    Returns:
        float: Largest difference between a detection and the decoded box it
        is, over the largest coordinate where that is above 1. Infinite if
        two detections of a class overlap too much, if one takes no part
        at all, or if a box is missing that no detection suppresses.
    """
    with torch.no_grad():
        decoded = network.decode(network.model(images))
    scale = max(1., float(decoded.boxes.abs().max()))
    worst = 0.
    for image, label in product(
            range(len(images)), range(decoded.scores.shape[2])):
        mine = found[(found[:, 0] == image) & (found[:, 6] == label)]
        boxes = decoded.boxes[image]
        score = decoded.scores[image, :, label]
        margin = decoded.margin[image, :, label]
        away = torch.maximum(
            torch.cdist(mine[:, 1:5], boxes, p=float('inf')) / scale,
            (mine[:, 5:6] - score).abs())
        allowed = margin > -rounding
        if len(mine):
            if not allowed.any():
                return float('inf')
            worst = max(worst, float(away[:, allowed].min(1)[0].max()))
        wanted = margin > rounding
        if not _suppressed(mine, boxes[wanted], score[wanted],
                           (away[:, wanted]
                            < rounding).any(0), network, rounding):
            return float('inf')
    return worst


def _suppressed(mine: Tensor, boxes: Tensor, score: Tensor, there: Tensor,
                network: DetectedBoxes, rounding: float) -> bool:
    """Whether the detections of one class are a result of suppression.

    Shapes: detections (K, 7), and of the N boxes that must be among them or
    suppressed by them (N, 4), (N, ) and (N, ).
    """
    if not _overlap(mine,
                    mine[:, 1:5]).triu(1).le(network.iou_thr + rounding).all():
        return False
    if len(mine) >= network.most:
        return len(mine) == network.most  # the rest was cut off
    near = _overlap(mine, boxes) > network.iou_thr - rounding
    near &= mine[None, :, 5] >= score[:, None] - rounding
    return bool((there | near.any(1)).all())


def _overlap(mine: Tensor, boxes: Tensor) -> Tensor:
    """Of boxes (N, 4) with detections (K, 7): (N, K).

    Boxes without an area overlap nothing, themselves included: 0 / 0.
    """
    return iou(boxes, mine[:, 1:5], 0).nan_to_num(0.)
