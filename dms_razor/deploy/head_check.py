# Copyright (c) dms_razor contributors. All rights reserved.
"""Does a detector's own head make the same boxes of its outputs?

A file with boxes is compared with the decoding of :mod:`.boxes`. That proves
little where a head decodes in its own way (FoveaBox's exponential, the
integral of GFL): the boxes would be wrong, and equal. So the head is asked
once, before anything is written.
"""
import copy
from typing import Any, Callable, List, Tuple

import torch
from torch import Tensor, nn

_BEST = 20
"""Boxes of a level (mmdet) or of the image (mmyolo) that are looked at."""

_FAR = 1 << 20
"""An image so large that no box is cut at its right or lower border."""


def check_suppression(head: nn.Module) -> None:
    """Refuse a suppression that is not the one of ONNX.

    Args:
        head (nn.Module): A detector's ``bbox_head``.

    Raises:
        ValueError: If its ``test_cfg`` asks for another one.
    """
    nms = head.test_cfg.get('nms') or {}
    other = str(nms.get('type', 'nms'))
    if nms.get('class_agnostic', False):
        other = 'nms over all classes (class_agnostic)'
    if other != 'nms':
        raise ValueError(
            f'the test_cfg of {type(head).__name__} asks for {other}, but the '
            'operator of ONNX is plain non-maximum suppression of each class; '
            'export the raw outputs, or set nms=dict(type="nms", '
            'iou_threshold=...) in its test_cfg')


def check_decoding(head: nn.Module,
                   outputs: Any,
                   decode: Callable,
                   bound: float = 1e-3) -> None:
    """Refuse a head whose own boxes are others than those decoded.

    Args:
        head (nn.Module): A detector's ``bbox_head``.
        outputs (Any): Its raw outputs.
        decode (callable): From them to boxes (B, N, 4) and scores
            (B, N, classes), and more that is not looked at.
        bound (float): Largest difference, of boxes over the largest
            coordinate.

    Raises:
        ValueError: If they differ, or if the head does not say.
    """
    try:
        with torch.no_grad():
            boxes, scores = decode(outputs)[:2]
    except Exception as error:  # whatever other shapes bring about
        raise ValueError(
            f'the outputs of {type(head).__name__} are of another kind than '
            f'is decoded here ({type(error).__name__}: {error}); export its '
            'raw outputs and decode them outside') from error
    try:
        found = _own_boxes(head, outputs, len(boxes))
    except Exception as error:  # heads refuse in many ways
        raise ValueError(
            f'{type(head).__name__} does not give its boxes before the '
            f'suppression ({type(error).__name__}: {error}), so their '
            'decoding cannot be checked; export its raw outputs and decode '
            'them outside') from error
    away = [boxes.new_zeros(1)]
    for image, (box, score, label) in enumerate(found):
        mine = boxes[image].clamp(0, _FAR)
        scale = max(1., float(mine.max()))
        of_all = torch.maximum(
            torch.cdist(box, mine, p=float('inf')) / scale,
            (score[:, None] - scores[image][:, label].T).abs())
        away.append(of_all.min(1)[0])
    worst = float(torch.cat(away).max())
    if not worst < bound:
        raise ValueError(
            f'{type(head).__name__} decodes its outputs in its own way: its '
            f'boxes and scores differ from those decoded here by {worst:.1e}; '
            'export its raw outputs and decode them outside')


def _own_boxes(head: nn.Module, outputs: Any,
               number: int) -> List[Tuple[Tensor, Tensor, Tensor]]:
    """Boxes (K, 4), scores (K, ) and classes (K, ) of each image."""
    cfg = copy.deepcopy(head.test_cfg)
    cfg.update(score_thr=0., nms_pre=_BEST, min_bbox_size=-1)
    with torch.no_grad():
        found = head.predict_by_feat(
            *outputs,
            batch_img_metas=[
                dict(
                    img_shape=(_FAR, _FAR),
                    ori_shape=(_FAR, _FAR),
                    scale_factor=(1., 1.)) for _ in range(number)
            ],
            cfg=cfg,
            rescale=False,
            with_nms=False)
    return [(one.bboxes.clamp(0, _FAR), one.scores, one.labels)
            for one in found]
