# Copyright (c) dms_razor contributors. All rights reserved.
import copy
import pickle

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import MODELS
from mmpretrain.models import (EfficientNet, ImageClassifier, MobileNetV2,
                               ResNet, ResNeXt)

from dms_razor.openmmlab.enlarge import DMSSupernet
from dms_razor.openmmlab.recipes import RECIPES, recipe


def standard(name):
    """The `model` of one of mmpretrain's config files."""
    cfg = get_config(f'mmpretrain::{name}.py').model
    cfg['_scope_'] = 'mmpretrain'  # as `_base_ = 'mmpretrain::…'` sets it
    return cfg


def build(cfg, **kwargs):
    return MODELS.build(dict(type='DMSSupernet', cfg=cfg, **kwargs))


def bare(type, **kwargs):
    return dict(type=type, _scope_='mmpretrain', **kwargs)


def channels(stage):
    """Output channels of a stage of MobileNetV2's inverted residuals."""
    return [block.conv[-1].conv.out_channels for block in stage]


MOBILENET = 'mobilenet_v2/mobilenet-v2_8xb32_in1k'


@pytest.fixture(scope='module')
def mobilenet():
    return build(standard(MOBILENET), widen=1.5, deepen=2)


def test_mobilenet_v2_of_the_paper(mobilenet):
    """All channels x 1.5, twice the blocks in each stage (sec. A.4.1)."""
    backbone = mobilenet.backbone
    assert type(mobilenet) is ImageClassifier
    assert type(backbone) is MobileNetV2
    assert backbone.conv1.conv.out_channels == 48
    expected = {
        1: (24, 2),
        2: (40, 4),
        3: (48, 6),
        4: (96, 8),
        5: (144, 6),
        6: (240, 6),
        7: (480, 2)
    }
    for i, (width, number) in expected.items():
        # 24 * 1.5 = 36 becomes 40: mmpretrain rounds to a multiple of 8
        assert channels(getattr(backbone, f'layer{i}')) == [width] * number
    assert backbone.conv2.conv.out_channels == 1920
    assert mobilenet.head.fc.in_features == 1920
    assert mobilenet.head.fc.out_features == 1000


def test_supernet_runs_and_trains(mobilenet):
    net = copy.deepcopy(mobilenet)
    logits = net(torch.randn(2, 3, 32, 32), mode='tensor')
    assert logits.shape == (2, 1000)
    logits.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_supernet_survives_copy_and_pickle(mobilenet):
    assert type(copy.deepcopy(mobilenet).backbone) is MobileNetV2
    again = pickle.loads(pickle.dumps(mobilenet))
    assert len(again.backbone.layer4) == 8


def test_classes_and_config_stay(mobilenet):
    cfg = standard(MOBILENET)
    text = str(cfg)
    classes = (MobileNetV2, ResNet, EfficientNet)
    before = [copy.deepcopy(cls.arch_settings) for cls in classes]
    build(cfg, widen=2, deepen=3)
    build(bare('ResNet', depth=18), widen=2, deepen=3)
    build(bare('EfficientNet', arch='b0'), widen=.5, deepen=2)
    assert str(cfg) == text
    assert [cls.arch_settings for cls in classes] == before
    assert len(MODELS.build(bare('MobileNetV2')).layer1) == 1


def test_factors_of_one_change_nothing():
    for name in (MOBILENET, 'efficientnet/efficientnet-b0_8xb32_in1k',
                 'resnet/resnet50_8xb32_in1k'):
        cfg = standard(name)
        plain, same = MODELS.build(cfg), build(cfg)
        shapes = {k: v.shape for k, v in plain.state_dict().items()}
        assert shapes == {k: v.shape for k, v in same.state_dict().items()}


def test_resnet():
    net = build(standard('resnet/resnet50_8xb32_in1k'), widen=1.5, deepen=1.3)
    backbone = net.backbone
    assert type(backbone) is ResNet
    # 3, 4, 6, 3 blocks x 1.3, rounded up
    assert [len(getattr(backbone, f'layer{i}'))
            for i in (1, 2, 3, 4)] == [4, 6, 8, 4]
    assert backbone.conv1.out_channels == 96
    assert backbone.layer1[0].conv1.out_channels == 96
    assert net.head.fc.in_features == 3072


def test_resnext_keeps_its_groups():
    net = build(bare('ResNeXt', depth=50), widen=2, deepen=1)
    assert type(net) is ResNeXt
    conv = net.layer1[0].conv2
    assert (conv.groups, conv.out_channels) == (32, 256)


def test_efficientnet_b0_enlarged_by_b4s_factors_is_b4():
    """Independent truth: mmpretrain's own B4 is B0 x 1.4 and x 1.8."""
    b4 = MODELS.build(standard('efficientnet/efficientnet-b4_8xb32_in1k'))
    net = build(
        standard('efficientnet/efficientnet-b0_8xb32_in1k'),
        widen=1.4,
        deepen=1.8)
    expected = {k: v.shape for k, v in b4.state_dict().items()}
    assert {k: v.shape for k, v in net.state_dict().items()} == expected


def test_widen_factor_of_the_config_is_multiplied():
    cfg = bare('MobileNetV2', widen_factor=0.5)
    wide = build(cfg, widen=2)
    plain = MODELS.build(bare('MobileNetV2'))
    assert channels(wide.layer3) == channels(plain.layer3)


def test_works_under_any_scope():
    for scope in ('mmengine', 'mmpretrain', 'mmrazor'):
        cfg = dict(type='DMSSupernet', cfg=bare('MobileNetV2'), deepen=2)
        net = MODELS.build(dict(cfg, _scope_=scope))
        assert len(net.layer4) == 8


def test_a_neck_with_channels_of_its_own():
    """It hides the wider backbone from the head."""
    cfg = dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(type='ResNet', depth=18, out_indices=(3, )),
        neck=dict(type='LinearNeck', in_channels=512, out_channels=64),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=64))
    net = build(cfg, widen=2)
    assert net.neck.fc.in_features == 1024
    assert net.head.fc.in_features == 64


def test_data_preprocessor_is_handed_on():
    preprocessor = dict(mean=[1.0], std=[2.0], num_classes=1000)
    net = build(standard(MOBILENET), data_preprocessor=preprocessor)
    assert net.data_preprocessor.mean.flatten().tolist() == [1.0]


def test_a_recipe_of_ones_own():

    class Wide(MobileNetV2):
        pass

    @recipe('Wide')
    def wide(cls, cfg, widen, deepen):
        return dict(widen_factor=widen), {}

    try:
        net = build(dict(type=Wide), widen=2)
        assert type(net) is Wide and net.conv1.conv.out_channels == 64
    finally:
        del RECIPES['Wide']


@pytest.mark.parametrize('cfg, kwargs, error, message', [
    (bare('ResNet', depth=50), dict(widen=0), ValueError, 'widen=0.*above 0'),
    (bare('ResNet', depth=50), dict(deepen='2'), ValueError, "deepen='2'"),
    (bare('ResNet', depth=50), dict(deepen=float('nan')), ValueError, 'nan'),
    (bare('ResNet', depth=49), dict(deepen=2), ValueError, 'depth 49.*18'),
    (bare('EfficientNet', arch='b99'), dict(), ValueError, "'b99'.*b0"),
    (bare('VGG', depth=11), dict(widen=2), ValueError,
     'no recipe to enlarge VGG.*MobileNetV2.*recipe'),
    (bare('NoSuchNet'), dict(), ValueError, "'NoSuchNet'.*custom_imports"),
    (dict(depth=50), dict(), TypeError, "a dict with a 'type'"),
    ('resnet50', dict(), TypeError, 'resnet50'),
])
def test_bad_arguments(cfg, kwargs, error, message):
    with pytest.raises(error, match=message):
        DMSSupernet(cfg, **kwargs)


def test_head_that_does_not_fit_is_named():
    cfg = standard(MOBILENET)
    cfg['head']['in_channels'] = 1000
    with pytest.raises(ValueError, match='head.*1000.*1280'):
        build(cfg, widen=1.5)
