# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks of mmpretrain: what is found, and that all of it is true."""
import pytest
import torch
from equality import assert_counts, assert_true, keep_of
from mmpretrain.registry import MODELS
from small_nets import depths

from dms_razor.trace import trace

SMALL = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def classifier(width, **backbone):
    """A backbone with mean over positions and a linear head."""
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10,
                      in_channels=width)))


def scores(model, images):
    """Scores; ``forward`` of a classifier ends at its neck."""
    return model.head(model.extract_feat(images))


NETWORKS = dict(
    ResNet50=(2048, dict(type='ResNet', depth=50)),
    MobileNetV2=(1280, dict(type='MobileNetV2')),
    EfficientNetB0=(1280, dict(type='EfficientNet', arch='b0')),
    ResNeXt50=(2048,
               dict(type='ResNeXt', depth=50, groups=32, width_per_group=4)),
    SEResNet50=(2048, dict(type='SEResNet', depth=50)),
    Res2Net50=(2048, dict(type='Res2Net', depth=50, scales=4, base_width=26)),
    DenseNet121=(1024, dict(type='DenseNet', arch='121')),
    CSPDarkNet53=(1024, dict(type='CSPDarkNet', depth=53)),
)
#: Width units, their elements; depth units, their blocks.
FOUND = dict(
    ResNet50=(37, 11456, 4, 12),
    MobileNetV2=(25, 9128, 5, 10),
    EfficientNetB0=(40, 11404, 5, 9),
    ResNeXt50=(37, 19008, 4, 12),
    SEResNet50=(53, 12400, 4, 12),
    Res2Net50=(47, 12418, 4, 12),
    DenseNet121=(120, 10240, 0, 0),
    CSPDarkNet53=(44, 12352, 5, 23),
)


@pytest.mark.parametrize('name', NETWORKS)
def test_subnets_of_all_kinds(name):
    width, backbone = NETWORKS[name]
    space = assert_true(classifier(width, **backbone), SMALL, scores, number=2)
    assert space.count('width') + space.count('depth') == FOUND[name]
    assert [f.module for f in space.full_width] == ['head.fc']


def test_resnet50_has_41_ratios_and_11468_elements():
    width, backbone = NETWORKS['ResNet50']
    space = trace(classifier(width, **backbone), SMALL, scores, check=False)
    assert (space.layout.U, space.layout.E) == (41, 11468)
    assert list(
        depths(space)) == [f'backbone.layer{stage}' for stage in (1, 2, 3, 4)]


@pytest.mark.parametrize('depth,blocks', [(50, (3, 4, 6, 3)),
                                          (101, (3, 4, 23, 3)),
                                          (152, (3, 8, 36, 3))])
def test_widths_and_blocks_of_a_resnet(depth, blocks):
    space = trace(
        classifier(2048, type='ResNet', depth=depth),
        SMALL,
        scores,
        check=False)
    # The stem, four streams, two inner widths a block.
    inner = [64 * 2**i for i, n in enumerate(blocks) for _ in range(2 * n)]
    streams = [64, 256, 512, 1024, 2048]
    assert space.count('width') == (5 + len(inner), sum(streams + inner))
    assert sorted(u.size for u in space.units
                  if u.kind == 'width') == sorted(streams + inner)
    assert [u.size for u in space.units
            if u.kind == 'depth'] == [n - 1 for n in blocks]


def test_widths_of_mobilenet_v2():
    width, backbone = NETWORKS['MobileNetV2']
    space = trace(classifier(width, **backbone), SMALL, scores, check=False)
    # Depthwise convolutions are no units of their own.
    streams = [32, 16, 24, 32, 64, 96, 160, 320, 1280]
    inner = [96, 144, 144] + [192] * 3 + [384] * 4 + [576] * 3 + [960] * 3
    assert sorted(u.size for u in space.units
                  if u.kind == 'width') == sorted(streams + inner)


def test_one_list_of_efficientnet_b0_holds_two_stages():
    width, backbone = NETWORKS['EfficientNetB0']
    space = trace(classifier(width, **backbone), SMALL, scores, check=False)
    found = depths(space)
    last = [f'backbone.layers.4.{i}' for i in range(6)]
    assert found['backbone.layers.4[1:2]'] == tuple(last[1:3])
    assert found['backbone.layers.4[4:5]'] == tuple(last[4:6])
    assert sum(map(len, found.values())) == 9


def test_macs_of_resnet50_at_full_size():
    width, backbone = NETWORKS['ResNet50']
    model = classifier(width, **backbone)
    images = torch.zeros(1, 3, 224, 224)
    space = trace(model, images, scores, check=False)
    assert_counts(model, space, keep_of(space, lambda unit: unit.size), images,
                  scores)
    macs = space.resource.supernet('macs')
    # 4.09 G with 1000 classes, as everybody says of this network.
    assert macs + 2048 * 990 == pytest.approx(4.0892e9, rel=1e-4)


def test_transformers():
    torch.manual_seed(0)
    arch = dict(
        embed_dims=48, num_layers=3, num_heads=4, feedforward_channels=96)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='VisionTransformer', arch=arch, img_size=32,
                patch_size=8),
            head=dict(
                type='VisionTransformerClsHead', num_classes=7,
                in_channels=48)))
    space = assert_true(model, SMALL[..., :32, :32], scores, number=3)
    found = {(u.name, u.kind): (u.size, u.groups) for u in space.units}
    assert found['backbone.patch_embed.projection', 'width'] == (48, 1)
    for layer in range(3):
        path = f'backbone.layers.{layer}'
        assert found[f'{path}.ffn.layers.0.0', 'width'] == (96, 1)
        assert found[f'{path}.attn.heads', 'heads'] == (4, 1)
        assert found[f'{path}.attn.qk', 'qk'] == (12, 4)
        assert found[f'{path}.attn.v', 'v'] == (12, 4)
    assert found['backbone.layers', 'depth'] == (3, 1)
    assert len(found) == 1 + 3 * 4 + 1


def test_windows_of_a_transformer():
    model = MODELS.build(
        dict(
            type='SwinTransformer',
            arch=dict(embed_dims=16, depths=[2, 2], num_heads=[2, 4]),
            img_size=32,
            window_size=4,
            out_indices=(1, )))
    space = assert_true(model, SMALL[..., :32, :32], number=2)
    assert space.count('heads') == (4, 2 + 2 + 4 + 4)
    assert space.count('depth') == (2, 4)
