# Copyright (c) dms_razor contributors. All rights reserved.
import copy

from mmengine.config import ConfigDict
from mmengine.hub import get_config

from dms_razor.openmmlab.retrain_recipe import merge_recipe, without_pretrained

ARCHITECTURE = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=152, drop_path_rate=.3),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.)),
    train_cfg=dict(augments=dict(type='Mixup', alpha=.8)))


def test_another_recipe_of_the_same_family():
    recipe = get_config(
        'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py').model
    before = copy.deepcopy(ARCHITECTURE)
    merged, left = merge_recipe(ARCHITECTURE, recipe, 'mmpretrain')
    assert left == [] and ARCHITECTURE == before
    backbone = merged['backbone']
    assert backbone['depth'] == 152 and backbone['type'] == 'ResNet'
    assert backbone['drop_path_rate'] == .05
    assert backbone['norm_cfg'] == dict(type='SyncBN', requires_grad=True)
    head = merged['head']
    assert head['num_classes'] == 10 and head['in_channels'] == 2048
    assert head['loss'] == dict(
        type='LabelSmoothLoss',
        loss_weight=1.0,
        label_smooth_val=.1,
        mode='original',
        use_sigmoid=True)
    assert merged['train_cfg'] == recipe.train_cfg


def test_what_the_recipe_does_not_name_is_the_default_again():
    recipe = get_config('mmpretrain::resnet/resnet50_8xb32_in1k.py').model
    merged, left = merge_recipe(ARCHITECTURE, recipe, 'mmpretrain')
    assert 'train_cfg' not in merged
    assert merged['backbone'] == dict(type='ResNet', depth=152)
    assert merged['head']['loss'] == recipe.head.loss


def test_a_recipe_of_another_family():
    recipe = get_config(
        'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py').model
    architecture = copy.deepcopy(ARCHITECTURE)
    architecture['backbone'] = dict(
        type='MobileNetV2', widen_factor=1.5, frozen_stages=1)
    merged, left = merge_recipe(architecture, recipe, 'mmpretrain')
    assert left == [
        'backbone.drop_path_rate=0.05: MobileNetV2 has no such argument'
    ]
    assert merged['backbone'] == dict(
        type='MobileNetV2',
        widen_factor=1.5,
        frozen_stages=1,
        norm_cfg=dict(type='SyncBN', requires_grad=True))
    # EfficientNet accepts what MobileNetV2 does not; its eps stays its own
    architecture['backbone'] = dict(type='EfficientNet', arch='b7')
    merged, left = merge_recipe(architecture, recipe, 'mmpretrain')
    assert merged['backbone']['norm_cfg']['eps'] == 1e-3
    assert merged['backbone']['norm_cfg']['type'] == 'SyncBN'


def test_arguments_that_a_base_class_takes():
    architecture = dict(backbone=dict(type='ResNetV1d', depth=50))
    recipe = dict(backbone=dict(type='ResNet', drop_path_rate=.1))
    merged, left = merge_recipe(architecture, recipe, 'mmpretrain')
    assert merged['backbone']['drop_path_rate'] == .1 and not left


def test_other_norms_are_architecture():
    architecture = dict(
        backbone=dict(type='ResNet', norm_cfg=dict(type='GN', num_groups=8)))
    recipe = dict(backbone=dict(type='ResNet', norm_cfg=dict(type='SyncBN')))
    merged, _ = merge_recipe(architecture, recipe, 'mmpretrain')
    assert merged == architecture
    merged, _ = merge_recipe(recipe, architecture, 'mmpretrain')
    assert merged == recipe


def test_inside_a_function_around_the_model():
    """As in ``dict(type='DMSSupernet', cfg=_base_.model, widen=1.5)``."""
    architecture = dict(type='DMSSupernet', cfg=ARCHITECTURE, widen=1.5)
    recipe = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=50, drop_path_rate=.1),
        train_cfg=dict(augments=dict(type='CutMix', alpha=1.)))
    merged, _ = merge_recipe(architecture, recipe, 'mmpretrain')
    assert merged['widen'] == 1.5 and 'train_cfg' not in merged
    assert merged['cfg']['backbone'] == dict(
        type='ResNet', depth=152, drop_path_rate=.1)
    assert merged['cfg']['train_cfg'] == recipe['train_cfg']
    assert ARCHITECTURE['backbone']['drop_path_rate'] == .3


def test_lists_of_parts():
    architecture = dict(neck=[dict(type='A', drop_rate=.1), dict(type='B')])
    recipe = dict(neck=[dict(type='A', drop_rate=.5), dict(type='B')])
    merged, _ = merge_recipe(architecture, recipe)
    assert merged['neck'][0]['drop_rate'] == .5


def test_without_pretrained():
    pretrained = dict(type='Pretrained', checkpoint='x.pth')
    normal = dict(type='Normal', layer='Conv2d')
    config = ConfigDict(
        type='X',
        pretrained='x.pth',
        backbone=dict(type='Y', init_cfg=pretrained, pretrained=None),
        necks=[dict(type='Z', init_cfg=[normal, pretrained])],
        head=dict(type='W', init_cfg=[pretrained]))
    plain = without_pretrained(config)
    assert plain == dict(
        type='X',
        backbone=dict(type='Y', pretrained=None),
        necks=[dict(type='Z', init_cfg=[normal])],
        head=dict(type='W'))
    assert type(plain['backbone']) is dict
    assert config.pretrained == 'x.pth'


def test_an_explicit_none_is_no_pretrained_weight():
    """Without it the class would initialise the layer in its own way."""
    config = dict(type='X', head=dict(type='W', init_cfg=None))
    assert without_pretrained(config) == config
