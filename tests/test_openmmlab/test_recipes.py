# Copyright (c) dms_razor contributors. All rights reserved.
"""Enlarged transformers: embedding, heads, FFN and blocks."""
import pytest
import torch
from mmpretrain.models import ConvNeXt, SwinTransformer, VisionTransformer

from dms_razor.openmmlab.enlarge import DMSSupernet
from dms_razor.openmmlab.recipes import RECIPES


def classifier(width, **backbone):
    head = 'VisionTransformerClsHead' if 'Vision' in backbone['type'] else \
        'LinearClsHead'
    return dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=backbone,
        head=dict(type=head, num_classes=10, in_channels=width))


def test_deit_small_with_16_blocks_as_in_the_paper():
    cfg = classifier(
        384, type='VisionTransformer', arch='deit-small', img_size=64)
    model = DMSSupernet(cfg, deepen=4 / 3)
    assert type(model.backbone) is VisionTransformer
    assert len(model.backbone.layers) == 16
    assert model.backbone.embed_dims == 384
    assert cfg['backbone']['arch'] == 'deit-small', 'the config is a copy'


def test_a_wider_vision_transformer_keeps_the_size_of_heads():
    model = DMSSupernet(
        classifier(
            192, type='VisionTransformer', arch='deit-tiny', img_size=64),
        widen=1.5)
    block = model.backbone.layers[0]
    assert block.attn.num_heads == 5, '4.5 heads rounded up'
    assert block.attn.head_dims == 64
    assert model.backbone.embed_dims == 320
    assert block.ffn.layers[0][0].out_features == 4 * 320
    assert model.head.layers.head.in_features == 320
    assert len(model.backbone.layers) == 12
    assert model(torch.randn(1, 3, 64, 64)).shape[0] == 1


SMALL = dict(embed_dims=24, num_layers=4, num_heads=2, feedforward_channels=48)


@pytest.mark.parametrize('given, deepen, expected', [
    (3, 1.5, [5]),
    (-1, 2, [7]),
    ([1, 3], 2, [3, 7]),
    ([-3, -1], 1.25, [2, 4]),
    ((0, 3), .5, [0, 1]),
    ([1, 3], 1, [1, 3]),
])
def test_the_last_layer_stays_the_last(given, deepen, expected):
    """A deeper ViT went on returning the layer that had been the last."""
    cfg = classifier(
        24,
        type='VisionTransformer',
        arch=SMALL,
        img_size=32,
        out_indices=given)
    assert DMSSupernet(cfg, deepen=deepen).backbone.out_indices == expected


def test_a_config_for_each_layer_cannot_grow():
    cfg = classifier(
        24,
        type='VisionTransformer',
        arch=SMALL,
        img_size=32,
        layer_cfgs=[dict() for _ in range(4)])
    with pytest.raises(ValueError, match='layer_cfgs has a config for each'):
        DMSSupernet(cfg, deepen=2)
    assert DMSSupernet(cfg, widen=1.5).backbone.embed_dims == 36


def test_heads_of_unlike_sizes_are_not_widened():
    arch = dict(embed_dims=12, depths=[1] * 4, num_heads=[2, 3, 6, 12])
    with pytest.raises(ValueError, match=r'with \[2, 3, 6, 12\] heads'):
        RECIPES['SwinTransformer'](SwinTransformer, dict(arch=arch), 1.5, 1)


def test_swin_doubles_its_heads_from_stage_to_stage():
    model = DMSSupernet(
        classifier(768, type='SwinTransformer', arch='tiny', img_size=224)
        | dict(neck=dict(type='GlobalAveragePooling')),
        widen=4 / 3,
        deepen=1.5)
    assert type(model.backbone) is SwinTransformer
    assert model.backbone.num_heads == [4, 8, 16, 32]
    assert model.backbone.num_features == [128, 256, 512, 1024]
    assert model.backbone.depths == [3, 3, 9, 3]
    assert model.head.fc.in_features == 1024


def test_convnext_and_an_arch_given_as_a_dict():
    model = DMSSupernet(
        classifier(
            40,
            type='ConvNeXt',
            arch=dict(depths=[1, 1, 2, 1], channels=[16, 24, 32, 40])),
        widen=1.5,
        deepen=2)
    assert type(model.backbone) is ConvNeXt
    assert model.backbone.channels == [24, 40, 48, 64]
    assert [len(stage) for stage in model.backbone.stages] == [2, 2, 4, 2]
    assert model.head.fc.in_features == 64


def test_an_unknown_arch_is_named():
    with pytest.raises(ValueError, match="of arch 'nano-swin'"):
        RECIPES['SwinTransformer'](SwinTransformer, dict(arch='nano-swin'), 2,
                                   1)
