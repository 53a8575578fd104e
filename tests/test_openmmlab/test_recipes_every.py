# Copyright (c) dms_razor contributors. All rights reserved.
"""Each backbone that DMSSupernet names: enlarged, with its head, and run."""
import pytest
import torch
from mmengine.hub import get_config
from mmpretrain.models import DistilledVisionTransformer, SwinTransformerV2

from dms_razor.openmmlab.enlarge import DMSSupernet, output_channels
from dms_razor.openmmlab.recipes import RECIPES

VIT = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
SWIN = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[2, 4, 8, 16])

# Recipe -> arguments of a small form, width that its head reads, image side,
# the head if it is not a linear one.
SMALL = dict(
    ResNet=(dict(depth=18, base_channels=8), 64, 64),
    ResNet_CIFAR=(dict(depth=18, base_channels=8), 64, 32),
    ResNetV1c=(dict(depth=18, base_channels=8), 64, 64),
    ResNetV1d=(dict(depth=18, base_channels=8), 64, 64),
    SEResNet=(dict(depth=50, base_channels=16), 512, 64),
    ResNeXt=(dict(depth=50, base_channels=16, groups=8), 512, 64),
    SEResNeXt=(dict(depth=50, base_channels=16, groups=8), 512, 64),
    MobileNetV2=(dict(), 1280, 64),
    EfficientNet=(dict(arch='b0'), 1280, 64),
    VisionTransformer=(dict(arch=VIT,
                            img_size=32), 24, 32, 'VisionTransformerClsHead'),
    DistilledVisionTransformer=(dict(arch=VIT,
                                     img_size=32), 24, 32, 'DeiTClsHead'),
    DeiT3=(dict(arch=VIT, img_size=32), 24, 32, 'VisionTransformerClsHead'),
    BEiTViT=(dict(arch=VIT, img_size=32, out_type='avg_featmap'), 24, 32),
    SwinTransformer=(dict(arch=SWIN, img_size=64, window_size=2), 64, 64),
    SwinTransformerV2=(dict(
        arch=dict(SWIN, extra_norm_every_n_blocks=0),
        img_size=64,
        window_size=2), 64, 64),
    ConvNeXt=(dict(arch='atto'), 320, 64))


def small(name):
    """A whole classifier around the small form, and its image side."""
    arguments, width, side, *head = SMALL[name]
    cfg = dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(type=name, **arguments),
        head=dict(
            type=(head or ['LinearClsHead'])[0],
            num_classes=5,
            in_channels=width))
    if not head and name not in ('BEiTViT', 'ConvNeXt'):
        cfg['neck'] = dict(type='GlobalAveragePooling')
    return cfg, side


def test_every_recipe_is_tested():
    assert set(SMALL) == set(RECIPES)


@pytest.mark.parametrize('name', SMALL)
def test_enlarged_with_its_head(name):
    cfg, side = small(name)
    plain = DMSSupernet(cfg)
    wide = DMSSupernet(cfg, widen=1.5)
    deep = DMSSupernet(cfg, deepen=2)
    image = torch.randn(1, 3, side, side)
    sizes = []
    for model in (plain, wide, deep):
        assert type(model.backbone).__name__ == name
        model.eval()
        with torch.no_grad():
            logits = model.head(model.extract_feat(image))
        assert logits.shape == (1, 5)
        sizes.append(sum(p.numel() for p in model.parameters()))
    before, after, deeper = (
        output_channels(model.backbone, name, side)
        for model in (plain, wide, deep))
    assert all(a > b for a, b in zip(after, before)) and deeper == before
    # twice the blocks are not twice the stem and the head
    assert sizes[1] > 1.2 * sizes[0] and sizes[2] > 1.3 * sizes[0]


def standard(name):
    cfg = get_config(f'mmpretrain::{name}.py').model
    cfg['_scope_'] = 'mmpretrain'
    return cfg


def test_distilled_deit_returns_two_tokens():
    """Its output is a pair; failed with 'its outputs are not tensors'."""
    cfg = standard('deit/deit-tiny-distilled_4xb256_in1k')
    model = DMSSupernet(cfg, widen=4 / 3, deepen=1.25)
    assert type(model.backbone) is DistilledVisionTransformer
    assert len(model.backbone.layers) == 15
    assert model.head.layers.head.in_features == 256
    assert model.head.layers.head_dist.in_features == 256


def test_swin_v2_is_probed_at_its_own_image_size():
    """Windows of 8 do not fit 224 pixels: it failed with AssertionError."""
    cfg = standard('swin_transformer_v2/swinv2-tiny-w8_16xb64_in1k-256px')
    model = DMSSupernet(cfg, widen=4 / 3)
    assert type(model.backbone) is SwinTransformerV2
    assert model.backbone.norm3.normalized_shape == (1024, )
    assert model.head.fc.in_features == 1024


def test_tokens_are_no_channels():
    """``out_type='raw'``: (B, tokens, C) is as wide as C."""
    cfg, _ = small('VisionTransformer')
    cfg['backbone']['out_type'] = 'raw'
    cfg['head'] = dict(type='LinearClsHead', num_classes=5, in_channels=24)
    assert DMSSupernet(cfg, widen=1.5).head.fc.in_features == 36


class Strange(torch.nn.Conv2d):
    """Two widths in one output."""

    def forward(self, x):
        x = super().forward(x)
        return ((x, x[:, 1:]), )


def test_outputs_of_no_width_are_named():
    with pytest.raises(ValueError, match='neck Strange: output 0'):
        output_channels(Strange(3, 4, 1), 'neck')
