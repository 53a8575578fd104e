# Copyright (c) dms_razor contributors. All rights reserved.
"""Enlarged transformers: embedding, heads, FFN and blocks."""
import pytest
import torch
from mmpretrain.models import ConvNeXt, SwinTransformer, VisionTransformer

from dms_razor.models.supernet_recipes import RECIPES
from dms_razor.models.supernets import DMSSupernet


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
