# Copyright (c) dms_razor contributors. All rights reserved.
"""The stand-in for mmcv's compiled operators against a naive NMS."""
import sys

import pytest
import torch
from mmengine.utils.dl_utils import mmcv_full_available

from dms_razor.compat.mmcv_ext import ExtensionStandIn, nms


def naive_nms(boxes, scores, threshold, offset):
    """Box by box, in plain Python floats."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        x1, y1, x2, y2 = boxes[i]
        area = (x2 - x1 + offset) * (y2 - y1 + offset)
        for j in kept:
            u1, v1, u2, v2 = boxes[j]
            width = max(0, min(x2, u2) - max(x1, u1) + offset)
            height = max(0, min(y2, v2) - max(y1, v1) + offset)
            other = (u2 - u1 + offset) * (v2 - v1 + offset)
            if width * height > threshold * (area + other - width * height):
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('number,block', [(0, 8), (1, 8), (8, 8), (100, 8),
                                          (100, 512)])
def test_nms_is_the_naive_one(number, block, offset):
    corners = torch.randint(0, 40, (number, 2))
    sizes = torch.randint(1, 30, (number, 2))
    boxes = torch.cat([corners, corners + sizes], 1).float()
    scores = torch.rand(number)
    kept = nms(boxes, scores, .47, offset, block)
    assert kept.dtype == torch.int64
    expected = naive_nms(boxes.tolist(), scores.tolist(), .47, offset)
    assert kept.tolist() == expected
    assert number < 100 or 5 < len(expected) < 95


def test_mmcv_uses_the_stand_in():
    from mmcv.ops import batched_nms
    assert isinstance(sys.modules['mmcv._ext'], ExtensionStandIn)
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [0, 0, 10, 10.]])
    scores = torch.tensor([.5, .9, .3])
    kept, index = batched_nms(boxes, scores, torch.tensor([0, 0, 1]),
                              dict(type='nms', iou_threshold=.5))
    assert index.tolist() == [1, 2]
    assert kept[:, 4].tolist() == pytest.approx([.9, .3])


def test_every_other_operator_names_itself():
    from mmcv.ops import roi_align
    with pytest.raises(RuntimeError, match='roi_align_forward.*full mmcv'):
        roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0., 0, 0, 2, 2]]), 2)


def test_mmengine_still_knows_that_mmcv_is_the_lite_one():
    assert not mmcv_full_available()
