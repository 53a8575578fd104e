# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor's Autoformer and OFA supernets as plain networks, and searched."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import copy
from pathlib import Path

import mmengine.registry
import pytest
import torch
from equality import closed_form
from mmengine.config import Config
from mmrazor.models.mutators import NasMutator
from mmrazor.registry import MODELS
from torch import nn
from transformer_nets import keep_of, kinds, masked

from dms_razor.openmmlab.autoformer import DMSStaticSupernet, largest_network
from dms_razor.subnet import count_macs, export_subnet
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace
from tools.zoo.check import randomise

HEAD = dict(
    type='DynamicLinearClsHead',
    num_classes=10,
    loss=dict(
        type='mmcls.LabelSmoothLoss',
        mode='original',
        num_classes=10,
        label_smooth_val=0.1),
    topk=(1, 5))
AUTOFORMER = dict(
    type='SearchableImageClassifier',
    _scope_='mmrazor',
    data_preprocessor=dict(type='mmcls.ClsDataPreprocessor'),
    backbone=dict(
        type='AutoformerBackbone',
        img_size=64,
        arch_setting=dict(
            mlp_ratios=[1.5, 2.0],
            num_heads=[2, 3],
            depth=[2, 3],
            embed_dims=[24, 36])),
    head=dict(HEAD, in_channels=36),
    connect_head=dict(connect_with_backbone='backbone.last_mutable'))
OFA = dict(
    type='SearchableImageClassifier',
    _scope_='mmrazor',
    data_preprocessor=dict(type='mmcls.ClsDataPreprocessor'),
    backbone=dict(
        type='AttentiveMobileNetV3',
        arch_setting=dict(
            kernel_size=[[3, 3, 1], [3, 5, 2], [3, 7, 2]],
            num_blocks=[[1, 1, 1], [2, 4, 1], [2, 3, 1]],
            expand_ratio=[[1, 1, 1], [3, 6, 1], [3, 6, 1], [6, 6, 1]],
            num_out_channels=[[8, 8, 8], [8, 8, 8], [8, 16, 8], [16, 24, 8],
                              [32, 48, 16]]),
        out_indices=(3, ),
        stride_list=[1, 2, 2],
        with_se_list=[False, False, True],
        act_cfg_list=['HSwish', 'ReLU', 'ReLU', 'HSwish', 'HSwish'],
        conv_cfg=dict(type='OFAConv2d'),
        norm_cfg=dict(type='mmrazor.DynamicBatchNorm2d', momentum=0.1),
        fine_grained_mode=True,
        with_attentive_shortcut=False),
    neck=dict(type='mmcls.GlobalAveragePooling'),
    head=dict(HEAD, in_channels=48),
    connect_head=dict(connect_with_backbone='backbone.last_mutable_channels'))


def build(cfg):
    return randomise(DMSStaticSupernet(cfg)).eval()


@pytest.mark.parametrize('cfg', [AUTOFORMER, OFA], ids=['autoformer', 'ofa'])
def test_the_plain_network_is_the_largest_of_the_supernet(cfg):
    from dms_razor.openmmlab.autoformer import _renamed
    dynamic = randomise(MODELS.build(_renamed(copy.deepcopy(cfg)))).eval()
    static = largest_network(copy.deepcopy(dynamic)).eval()
    mutator = NasMutator()
    mutator.prepare_from_supernet(dynamic)
    mutator.set_choices(mutator.sample_choices(kind='max'))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(dynamic(image), static(image), rtol=1e-5)
    names = {type(module).__name__ for module in static.modules()}
    assert not any('Dynamic' in n and n != 'DynamicLinearClsHead'
                   for n in names), names


@pytest.mark.parametrize(
    'cfg, expected, fixed',
    [(AUTOFORMER, dict(width=4, heads=3, depth=1), {'head.fc'}),
     (OFA, None, {'head.fc'})],
    ids=['autoformer', 'ofa'])
def test_everything_is_searched_and_subnets_are_equal(cfg, expected, fixed):
    model, image = build(cfg), torch.randn(2, 3, 64, 64)
    space = trace(model, image)
    assert {item.module for item in space.full_width} == fixed
    found = kinds(space)
    if expected is not None:
        assert {kind: units for kind, (units, _) in found.items()} == expected
    assert found['depth'][1] == (3 if expected else 6)
    exact, image = model.double(), image.double()
    for seed in range(3):
        keep = keep_of(space, seed, 4)
        subnet = slice_model(exact, space, keep).eval()
        with torch.no_grad():
            supernet = masked(exact, space, keep.double(), image)
            difference = (supernet - subnet(image)).abs().max()
        assert difference < 1e-10 * supernet.abs().max()


def test_a_plain_network_and_a_bad_config_are_refused():
    plain = dict(type='mmpretrain.ResNet', depth=18)
    with pytest.raises(ValueError, match='no mutables'):
        DMSStaticSupernet(plain)
    with pytest.raises(TypeError, match="a dict with a 'type'"):
        DMSStaticSupernet('autoformer')


CONFIGS = Path(__file__).parents[2] / 'configs'
SHIPPED = ('autoformer/autoformer-tiny_4xb256_in1k',
           'ofa/ofa-mobilenet-v3_8xb128_in1k')


def shipped(name):
    """The `model` of a config, as a fresh copy."""
    return Config.fromfile(CONFIGS / f'{name}.py').model


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_configs_build_without_a_runner(name):
    """The data preprocessor's default was looked for in MMRazor's scope:
    KeyError."""
    model = mmengine.registry.MODELS.build(shipped(name))
    preprocessor = model.data_preprocessor
    assert type(preprocessor).__name__ == 'ClsDataPreprocessor'
    # the batch augmentations of train_cfg reach it
    assert bool(preprocessor.batch_augments) == ('autoformer' in name)


def test_a_bare_backbone_has_no_preprocessor():
    backbone = dict(OFA['backbone'], _scope_='mmrazor')
    assert not hasattr(DMSStaticSupernet(backbone), 'data_preprocessor')


def settle(model, space, keep):
    """Statistics of batch norms as a search leaves them: of the masked net.

    With random ones a deep network amplifies rounding a thousandfold or no
    longer depends on its image.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.training, norm.momentum = True, 1.
    with torch.no_grad():
        masked(model, space, keep.float(), torch.randn(16, 3, 64, 64))
    for norm in norms:
        norm.training, norm.momentum = False, .1


@pytest.mark.parametrize(
    'name, expected',
    zip(SHIPPED, ({'width', 'heads', 'depth'}, {'width', 'depth'})))
def test_shipped_supernets_are_equal_to_their_exports(name, expected,
                                                      tmp_path):
    """The real networks in float32, all kinds pruned at once: masked against
    exported and built again by the retrain config's own dict."""
    cfg = shipped(name)
    if 'autoformer' in name:
        cfg.cfg.backbone.img_size = 64  # its table of positions is that large
    torch.manual_seed(0)
    model = mmengine.registry.MODELS.build(cfg)
    model = randomise(model).eval()  # nothing stays zero
    assert all(p.count_nonzero() > .99 * p.numel() for p in model.parameters())
    image = torch.randn(2, 3, 64, 64)
    space = trace(model, image[:1])
    assert set(kinds(space)) == expected
    keep = keep_of(space, seed=1, least=8)
    pruned = {
        unit.kind
        for u, unit in enumerate(space.units)
        if not keep[space.layout.slice_of(u)].all()
    }
    assert pruned == expected
    settle(model, space, keep)
    with torch.no_grad():
        supernet = masked(model, space, keep.float(), image)
    export_subnet(tmp_path, model, space, keep, picture=False)
    subnet = mmengine.registry.MODELS.build(
        dict(
            type='DMSSubModel',
            cfg=cfg,
            subnet=str(tmp_path / 'subnet.json'),
            checkpoint=str(tmp_path / 'subnet.pth'))).eval()
    with torch.no_grad():
        found, other = subnet(image), subnet(-image.flip(-1))
    largest = supernet.abs().max()
    assert supernet.dtype == torch.float32 and torch.isfinite(supernet).all()
    assert (supernet - found).abs().max() < 1e-5 * largest
    assert (found - other).abs().max() > 1e-3 * largest, 'no response'
    macs, params = closed_form(space, keep)
    assert macs == count_macs(subnet, (image[:1], )).macs
    assert params == sum(p.numel() for p in subnet.parameters())
    assert params < .9 * sum(p.numel() for p in model.parameters())
