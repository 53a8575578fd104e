# Copyright (c) dms_razor contributors. All rights reserved.
"""Heads that decode in a way of their own are refused, others are taken.

Judge is the head's own `predict_by_feat`.
"""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope

from dms_razor.deploy import DetectedBoxes

SIZE = 64


def small(config):
    """A detector with few channels and random outputs."""
    cfg = get_config(config)
    init_default_scope(cfg.default_scope)
    cfg = cfg.model
    if config.startswith('mmyolo'):
        parts = [cfg.backbone, cfg.neck]
        parts.append(cfg.bbox_head.get('head_module', cfg.bbox_head))
        for part in parts:
            part.update(widen_factor=.125)
        cfg.backbone.pop('init_cfg', None)
    else:
        cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
        cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
        cfg.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1)
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    with torch.no_grad():
        for name, parameter in model.bbox_head.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, (2 / parameter[0].numel())**.5)
    return model, torch.randn(2, 3, SIZE, SIZE)


@pytest.mark.parametrize('config', [
    'mmyolo::yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco.py',
    'mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py',
    'mmyolo::ppyoloe/ppyoloe_s_fast_8xb32-300e_coco.py',
    'mmdet::fsaf/fsaf_r50_fpn_1x_coco.py',
])
def test_heads_that_are_understood(config):
    model, images = small(config)
    assert DetectedBoxes(model, images).names == ['detections']


@pytest.mark.parametrize('config, why', [
    ('mmdet::foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
     'FoveaHead decodes its outputs in its own way'),
    ('mmdet::gfl/gfl_r50_fpn_1x_coco.py', 'GFLHead are of another kind'),
    ('mmdet::paa/paa_r50_fpn_1x_coco.py', 'PAAHead does not give its boxes'),
])
def test_heads_of_their_own_kind(config, why):
    """Their boxes would be wrong, and equal in file and network."""
    model, images = small(config)
    with pytest.raises(ValueError, match=f'{why}.*export its raw outputs'):
        DetectedBoxes(model, images)


def test_another_coder_is_noticed():
    model, images = small('mmdet::fsaf/fsaf_r50_fpn_1x_coco.py')
    coder = model.bbox_head.bbox_coder
    own = model.bbox_head.predict_by_feat

    def predict(*args, **kwargs):
        coder.normalizer *= 1.01
        try:
            return own(*args, **kwargs)
        finally:
            coder.normalizer /= 1.01

    model.bbox_head.predict_by_feat = predict
    with pytest.raises(ValueError, match='in its own way.*differ'):
        DetectedBoxes(model, images)


@pytest.mark.parametrize('nms, named', [
    (dict(type='soft_nms', iou_threshold=.5), 'soft_nms'),
    (dict(type='nms', iou_threshold=.5,
          class_agnostic=True), 'class_agnostic'),
])
def test_another_suppression(nms, named):
    """ONNX has plain suppression by class; another was left out silently."""
    model, images = small('mmdet::fsaf/fsaf_r50_fpn_1x_coco.py')
    model.bbox_head.test_cfg.nms = nms
    with pytest.raises(ValueError, match=f'asks for .*{named}.*raw outputs'):
        DetectedBoxes(model, images)
