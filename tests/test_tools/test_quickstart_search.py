# Copyright (c) dms_razor contributors. All rights reserved.
"""Features of a training recipe, switched on in the quickstart's search."""
from pathlib import Path

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

CONFIG = (
    Path(__file__).parents[2] / 'configs' / 'quickstart' /
    'dms-resnet34-50p_digits.py')


def search(work_dir, **options):
    """Ratios and cost over target after two epochs of the search."""
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(work_dir)
    cfg.launcher, cfg.log_level = 'none', 'WARNING'
    cfg.default_hooks.checkpoint.interval = -1
    # Small steps: with large ones 38 updates that differ in the third digit
    # part, whatever made them differ.
    cfg.model.search = dict(epochs=2, width_only_epochs=0, fall=1.)
    cfg.model.mutator = dict(lr=.02)
    cfg.model.resource_loss = dict(loss_weight=1.)
    cfg.model.target = '80%'  # what 19 updates can reach
    cfg.train_cfg.max_epochs = 2
    cfg.randomness = dict(seed=0)
    cfg.custom_hooks = [dict(type='mmrazor.DMSHook')]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    extra = options.pop('hooks', [])
    cfg.merge_from_dict(options)
    cfg.custom_hooks += extra
    cfg.experiment_name = f'{Path(work_dir).name}_quickstart'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.model.search


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    return search(tmp_path_factory.mktemp('plain'))


def test_the_plain_search_moves(plain):
    assert plain.bank.ratios.max() > .02
    assert abs(plain.current() / plain.target - 1) < .05


def test_ema(plain, tmp_path):
    found = search(tmp_path, hooks=[dict(type='EMAHook', momentum=.01)])
    assert torch.equal(found.bank.ratios, plain.bank.ratios)


def test_with_cp(plain, tmp_path):
    found = search(tmp_path, **{'model.architecture.backbone.with_cp': True})
    # BatchNorm in training normalises by the batch: the same numbers.
    assert torch.allclose(found.bank.ratios, plain.bank.ratios, atol=1e-4)


def test_accumulation(plain, tmp_path):
    """Half the updates, each from the mean gradient of two batches."""
    found = search(tmp_path, **{'optim_wrapper.accumulative_counts': 2})
    assert found.bank.updates == plain.bank.updates // 2
    assert abs(found.current() / found.target - 1) < .1
    assert torch.nn.functional.cosine_similarity(
        found.bank.ratios, plain.bank.ratios, dim=0) > .9


def test_amp(plain, tmp_path):
    """bfloat16 has three digits: so do the ratios in common."""
    found = search(
        tmp_path, **{
            'optim_wrapper.type': 'AmpOptimWrapper',
            'optim_wrapper.dtype': 'bfloat16'
        })
    assert found.bank.updates == plain.bank.updates
    assert abs(found.current() / found.target - 1) < .05
    assert torch.nn.functional.cosine_similarity(
        found.bank.ratios, plain.bank.ratios, dim=0) > .95
