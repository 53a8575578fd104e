# Copyright (c) dms_razor contributors. All rights reserved.
"""A DeiT with distillation token searched by config, every kind of unit."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch
from equality import masked_outputs, outputs
from mmengine.registry import MODELS
from mmengine.runner import Runner
from toy_models import algorithm
from toy_runs import toy_config

KINDS = {'width', 'heads', 'qk', 'v', 'depth'}
STEPS = {
    '*.patch_embed.projection': dict(choices=[12, 18, 24]),
    '*.ffn.layers.0.0': dict(divisor=8),
    '*.attn.heads': dict(choices=[1, 3]),
    '*.attn.qk': dict(divisor=2),
    '*.attn.v': dict(divisor=4),
    'backbone.layers': dict(choices=[1, 3, 4])
}


def deit():
    """Four blocks with LayerScale, two classifying tokens."""
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmpretrain.DistilledVisionTransformer',
            img_size=16,
            patch_size=4,
            layer_scale_init_value=.1,
            arch=dict(
                embed_dims=24,
                num_layers=4,
                num_heads=3,
                feedforward_channels=48)),
        head=dict(
            type='mmpretrain.DeiTClsHead',
            num_classes=4,
            in_channels=24,
            loss=dict(type='mmpretrain.CrossEntropyLoss')))


def scores(model, images):
    """The whole network; ``forward`` of a classifier ends at its neck."""
    return model.head(model.extract_feat(images))


def searched(work_dir, **mutator):
    """A search of 8 iterations from ratios of 0.3; the runner."""
    cfg = toy_config(work_dir, max_iters=8)
    cfg.model = algorithm(
        architecture=deit(),
        target='40%',
        search=dict(iters=6, width_only_iters=2, fall=1.),
        resource_loss=dict(loss_weight=1.),
        mutator=dict(lr=.05, **mutator))
    cfg.custom_hooks.append(dict(type='mmrazor.ExportSubnetHook'))
    runner = Runner.from_cfg(cfg)
    bank = runner.model.search.bank
    bank.ratios += .3
    bank.refresh()
    runner.train()
    return runner


def sizes(model):
    """What stands in the exported network's weights and numbers."""
    blocks = [b for b in model.backbone.layers if hasattr(b, 'attn')]
    attn = [block.attn for block in blocks]
    return dict(
        depth=[len(blocks)],
        embedding=[model.backbone.pos_embed.shape[-1]],
        ffn=[b.ffn.layers[0][0].out_features for b in blocks],
        heads=[a.num_heads for a in attn],
        v=[a.proj.in_features // a.num_heads for a in attn],
        qk=[(a.qkv.out_features - a.proj.in_features) // (2 * a.num_heads)
            for a in attn])


def exported(runner, work_dir):
    """The retrained network, equal to the supernet under hard masks."""
    search = runner.model.search
    subnet = MODELS.build(
        dict(
            type='DMSSubModel',
            cfg=deit(),
            subnet=str(work_dir / 'subnet/subnet.json'),
            checkpoint=str(work_dir / 'subnet/subnet.pth')))
    images = torch.randn(2, 3, 16, 16)
    keep = search.keep(search.project())
    found, = outputs(subnet, images, scores)
    expected, = masked_outputs(search.close(), search.space, keep, images,
                               scores)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    return sizes(subnet)


FULL = dict(embedding=24, ffn=48, heads=3, qk=8, v=8, depth=4)


@pytest.mark.parametrize('off', [('qk', 'heads'), ('v', 'depth'), ('width', )])
def test_kinds_switched_off_by_config_stay(off, tmp_path):
    runner = searched(tmp_path, **{kind: False for kind in off})
    report = runner.model.search.preflight().to_dict()
    for kind in KINDS:
        assert (report[kind]['units'] == 0) == (kind in off)
    found = exported(runner, tmp_path)
    stays = [*off, 'embedding', 'ffn'] if 'width' in off else off
    for name, full in FULL.items():
        whole = all(number == full for number in found[name])
        assert whole == (name in stays), (name, found[name])


def test_steps_and_choices_by_config(tmp_path):
    runner = searched(tmp_path, units=STEPS)
    found = exported(runner, tmp_path)
    assert set(found['embedding']) <= {12, 18}
    assert all(number % 8 == 0 for number in found['ffn'])
    assert set(found['heads']) <= {1, 3}
    assert set(found['depth']) <= {1, 3}
    assert all(number % 2 == 0 for number in found['qk'])
    assert all(number % 4 == 0 for number in found['v'])
