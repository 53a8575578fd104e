# Copyright (c) dms_razor contributors. All rights reserved.
"""Spaces of mmpretrain's networks: the published counts, and the truth."""
import pytest
import torch
from equality import assert_true, counted, unit_table
from mmpretrain.registry import MODELS

from dms_razor.trace import trace


def classifier(width, **backbone):
    """A backbone with pooling and a linear head."""
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=backbone,
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=20,
                in_channels=width,
                loss=dict(type='mmpretrain.CrossEntropyLoss'))))


def logits(model, image):
    """The whole network, head included."""
    return model.head(model.extract_feat(image))


NETWORKS = {
    'ResNet-50': (2048, dict(type='mmpretrain.ResNet', depth=50)),
    'ResNet-101': (2048, dict(type='mmpretrain.ResNet', depth=101)),
    'ResNet-152': (2048, dict(type='mmpretrain.ResNet', depth=152)),
    'MobileNetV2': (1280, dict(type='mmpretrain.MobileNetV2')),
    'EfficientNet-B0': (1280, dict(type='mmpretrain.EfficientNet', arch='b0')),
    'ResNeXt-50':
    (2048,
     dict(type='mmpretrain.ResNeXt', depth=50, groups=32, width_per_group=4)),
    'SEResNet-50': (2048, dict(type='mmpretrain.SEResNet', depth=50)),
    'Res2Net-50':
    (2048, dict(type='mmpretrain.Res2Net', depth=50, scales=4, base_width=26)),
    'DenseNet-121': (1024, dict(type='mmpretrain.DenseNet', arch='121')),
    'CSPDarkNet': (1024, dict(type='mmpretrain.CSPDarkNet', depth=53)),
    'ShuffleNetV2': (1024, dict(type='mmpretrain.ShuffleNetV2')),
    'MobileNetV3': (960, dict(type='mmpretrain.MobileNetV3', arch='large')),
}


def build(name):
    """The network with random weights."""
    torch.manual_seed(0)
    width, backbone = NETWORKS[name]
    return classifier(width, **backbone)


@pytest.mark.parametrize('name, width, depth', [
    ('ResNet-50', (37, 11456), (4, 12)),
    ('ResNet-101', (71, 20160), (4, 29)),
    ('ResNet-152', (105, 27840), (4, 46)),
    ('MobileNetV2', (25, 9128), (5, 10)),
    ('EfficientNet-B0', (40, 11404), (5, 9)),
])
def test_counts_of_published_networks(name, width, depth):
    space = trace(
        build(name), torch.rand(1, 3, 64, 64), forward=logits, check=False)
    assert space.count('width') == width
    assert space.count('depth') == depth
    assert [item.module for item in space.full_width] == ['head.fc']


def test_a_list_can_hold_two_stages():
    space = trace(
        build('EfficientNet-B0'),
        torch.rand(1, 3, 64, 64),
        forward=logits,
        check=False)
    stages = [
        u for u in space.units
        if u.name.startswith('backbone.layers.4[') and u.kind == 'depth'
    ]
    assert [u.size for u in stages] == [2, 2]


def test_supernet_costs_what_flop_analyzer_counts():
    model, image = build('ResNet-50'), torch.rand(1, 3, 224, 224)
    space = trace(model, image, forward=logits, check=False)
    macs, params = counted(model, image, logits)
    assert space.resource.supernet('macs') == macs
    assert space.resource.supernet('params') == params


@pytest.mark.parametrize('name', [
    'ResNet-50', 'MobileNetV2', 'EfficientNet-B0', 'ResNeXt-50', 'SEResNet-50',
    'Res2Net-50', 'DenseNet-121', 'CSPDarkNet', 'ShuffleNetV2', 'MobileNetV3'
])
def test_masked_equals_sliced_and_formula_equals_count(name):
    assert_true(
        build(name), torch.rand(2, 3, 64, 64), forward=logits, number=2)


def test_groups_of_a_convolution_are_groups_of_a_unit():
    space = trace(
        build('ResNeXt-50'),
        torch.rand(1, 3, 64, 64),
        forward=logits,
        check=False)
    assert unit_table(space)['backbone.layer1.0.conv1'] == ('width', 4, 32)
