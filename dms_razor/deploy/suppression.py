# Copyright (c) dms_razor contributors. All rights reserved.
"""Is a set of detections what non-maximum suppression leaves of boxes?

Two correct programs need not choose the same boxes: where two scores are
equal but for rounding, another box may come first and suppress others. What
must hold for any of them is checked instead.
"""
import torch
from torch import Tensor

from .._mmcv_ext import _iou
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
        two detections of a class overlap too much, if one is below the
        threshold, or if a box is missing that no detection suppresses.
    """
    with torch.no_grad():
        boxes, scores = network.decode(network.model(images))
    scale = max(1., float(boxes.abs().max()))
    worst = 0.
    for image in range(len(images)):
        for label in range(scores.shape[2]):
            mine = found[(found[:, 0] == image) & (found[:, 6] == label)]
            score = scores[image, :, label]
            if len(mine):
                away = torch.maximum(
                    torch.cdist(mine[:, 1:5], boxes[image], p=float('inf')) /
                    scale, (mine[:, 5:6] - score).abs())
                worst = max(worst, float(away.min(1)[0].max()))
            if not _suppressed(mine, boxes[image], score, network, rounding):
                return float('inf')
    return worst


def _suppressed(mine: Tensor, boxes: Tensor, score: Tensor,
                network: DetectedBoxes, rounding: float) -> bool:
    """Whether the detections of one class are a result of suppression.

    Shapes: (K, 7), (N, 4) and (N, ).
    """
    overlap = _iou(mine[:, 1:5], mine[:, 1:5], 0)
    apart = (overlap.triu(1) <= network.iou_thr + rounding).all()
    above = (mine[:, 5] > network.score_thr - rounding).all()
    if not (apart and above) or len(mine) > network.most:
        return False
    if len(mine) == network.most:
        return True  # the rest was cut off
    wanted = score > network.score_thr + rounding
    near = _iou(boxes[wanted], mine[:, 1:5], 0) > network.iou_thr - rounding
    near &= mine[None, :, 5] >= score[wanted, None] - rounding
    return bool(near.any(1).all()) if len(mine) else not bool(wanted.any())
