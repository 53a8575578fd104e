# Copyright (c) dms_razor contributors. All rights reserved.
"""Boxes of heads with centreness, against mmdet's own `predict`."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope

from dms_razor.deploy import DetectedBoxes, difference, load, write_network
from dms_razor.deploy.suppression import detection_difference

HEADS = dict(
    fcos='mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    atss='mmdet::atss/atss_r50_fpn_1x_coco.py',
    yolox='mmyolo::yolox/yolox_s_fast_8xb8-300e_coco.py')
SIZE = 64


def detector(head, **test_cfg):
    """A small detector with random boxes, classes and centreness."""
    cfg = Config(get_config(HEADS[head])._cfg_dict)
    init_default_scope(cfg.default_scope)
    cfg = cfg.model
    if head == 'yolox':
        for part in (cfg.backbone, cfg.neck, cfg.bbox_head.head_module):
            part.update(widen_factor=.125)
        cfg.bbox_head.head_module.update(num_classes=3)
    else:
        cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
        cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
        cfg.bbox_head.update(
            num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1)
    cfg.test_cfg.update(max_per_img=2000, **test_cfg)
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    with torch.no_grad():
        for name, parameter in model.bbox_head.named_parameters():
            if parameter.dim() > 1:
                fan = parameter[0].numel()
                parameter.normal_(0, (2 / fan)**.5)
        model.bbox_head.bbox_coder.clip_border = False
    return model, torch.randn(2, 3, SIZE, SIZE)


def predicted(model, images):
    """Rows (image, x1, y1, x2, y2, score, label) of the head's own."""
    samples = []
    for _ in images:
        sample = DetDataSample()
        sample.set_metainfo(
            dict(
                img_shape=(SIZE, SIZE),
                ori_shape=(SIZE, SIZE),
                pad_param=np.zeros(4),
                scale_factor=(1., 1.)))
        samples.append(sample)
    with torch.no_grad():
        found = [s.pred_instances for s in model.predict(images, samples)]
    return torch.cat([
        torch.cat([
            torch.full((len(one), 1), float(number)), one.bboxes,
            one.scores[:, None], one.labels[:, None].float()
        ], 1) for number, one in enumerate(found)
    ])


def the_same(first, second):
    """Both sets of rows, whatever their order."""
    if first.shape != second.shape:
        return False
    away = torch.cdist(first, second, p=float('inf'))
    return bool((away.min(0)[0] < 1e-3).all()
                and (away.min(1)[0] < 1e-3).all())


@pytest.mark.parametrize('most', [1000, 20])
@pytest.mark.parametrize('head', ['fcos', 'atss'])
def test_boxes_are_those_of_the_detector(head, most, tmp_path):
    """Threshold before centreness; of each level the best alone."""
    model, images = detector(head, score_thr=.6, nms_pre=most)
    network = DetectedBoxes(model, images)
    path = write_network(network, images, tmp_path / 'a.onnx', 'onnx')
    found, expected = load(path)(images)[0], predicted(model, images)
    assert len(expected) > 20
    assert expected[:, 5].min() < .5, 'centreness has no effect'
    assert the_same(found, expected)
    with torch.no_grad():
        assert the_same(network(images)[0], expected)
    assert difference(network, path, images) < 1e-4
    one = load(path)(images[1:])[0]
    assert the_same(one[:, 1:], expected[expected[:, 0] == 1][:, 1:])


@pytest.mark.parametrize('most, several', [(1000, True), (1000, False),
                                           (20, False)])
def test_boxes_of_one_and_of_several_classes(most, several, tmp_path):
    """mmyolo's, with objectness; the best class of a box or all."""
    model, images = detector(
        'yolox', score_thr=.1, nms_pre=most, multi_label=several)
    network = DetectedBoxes(model, images)
    with torch.no_grad():
        above = (network.decode(model(images)).scores > .1).sum(2)
    assert (above > 1).any()
    path = write_network(network, images, tmp_path / 'a.onnx', 'onnx')
    found, expected = load(path)(images)[0], predicted(model, images)
    found[:, 1:5].clamp_(0, SIZE)  # mmyolo does, at the end
    assert len(expected) > 20
    assert the_same(found, expected)
    assert difference(network, path, images) < 1e-4
    assert difference(network, path, images[:1]) < 1e-4


def test_the_best_of_a_level_are_fewer():
    more, fewer = (
        predicted(*detector('fcos', score_thr=.3, nms_pre=most))
        for most in (1000, 20))
    assert len(fewer) < len(more)


@pytest.mark.parametrize('least', [0, -1, 2])
def test_boxes_without_an_area(least, tmp_path):
    """mmdet drops or keeps them, as `min_bbox_size` says."""
    model, images = detector('fcos', score_thr=.5, min_bbox_size=least)
    model.bbox_head.norm_on_bbox = True  # cuts distances off at zero
    network = DetectedBoxes(model, images)
    path = write_network(network, images, tmp_path / 'a.onnx', 'onnx')
    found, expected = load(path)(images)[0], predicted(model, images)
    flat = (expected[:, 3:5] - expected[:, 1:3]).min(1)[0] <= 0
    assert bool(flat.any()) == (least < 0) and not flat.all()
    assert the_same(found, expected)
    assert difference(network, path, images) < 1e-4


def test_what_takes_no_part_is_noticed():
    model, images = detector('fcos', score_thr=.6)
    network = DetectedBoxes(model, images)
    with torch.no_grad():
        found = network(images)[0]
        decoded = network.decode(model(images))
    assert detection_difference(network, found, images) < 1e-6
    image, place, label = (decoded.margin < -.1).nonzero()[0]
    row = torch.cat([
        image[None].float(), decoded.boxes[image, place],
        decoded.scores[image, place, label][None], label[None].float()
    ])
    wrong = torch.cat([found, row[None]])
    assert detection_difference(network, wrong, images) > 1e-2
