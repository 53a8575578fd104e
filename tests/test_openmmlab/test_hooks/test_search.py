# Copyright (c) dms_razor contributors. All rights reserved.
import copy

import pytest
import torch
from mmengine._strategy.deepspeed import DeepSpeedStrategy
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.distributed.fsdp._common_utils import _set_fsdp_flattened
from toy_models import classifier
from toy_runs import (run, same_search, same_weights, toy_config,
                      with_validation)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A search as it is, with checkpoints in the middle and at the end."""
    return run(
        toy_config(
            tmp_path_factory.mktemp('plain'),
            **{'default_hooks.checkpoint.interval': 12}))


def test_search_ends_on_its_budget(plain):
    search = plain.model.search
    assert search.bank.updates == 24 and search.bank.depth_frozen
    cost = plain.model.mutator.resource_of({
        unit.name: int(k) * unit.spec.groups
        for unit, k in zip(plain.model.mutator.units, search.project())
    })
    assert .99 * search.target <= cost <= search.target
    # ratios differ: the search was more than a common shift
    assert search.bank.ratios.std() > .01


@pytest.mark.parametrize('step', [12, 24])
def test_resumed_search_is_the_unbroken_one(plain, tmp_path, step):
    """With validation in between, and randomly augmented images."""
    cfg = with_validation(
        toy_config(
            tmp_path,
            resume=True,
            load_from=f'{plain.work_dir}/iter_{step}.pth'))
    resumed = run(cfg)
    assert same_search(plain, resumed) and same_weights(plain, resumed)
    assert torch.equal(plain.model.search.keep(), resumed.model.search.keep())
    assert resumed.model.search.bank.depth_frozen
    manifests = [
        runner.model.search.export(tmp_path / name, picture=False).path /
        'subnet.json'
        for runner, name in ((plain, 'plain'), (resumed, 'resumed'))
    ]
    assert manifests[0].read_bytes() == manifests[1].read_bytes()


def test_search_is_saved_as_tensors_beside_the_weights(plain):
    checkpoint = torch.load(
        f'{plain.work_dir}/iter_12.pth', weights_only=False)
    assert all(
        name.startswith('architecture.') for name in checkpoint['state_dict'])

    def leaves(value):
        if isinstance(value, dict):
            for inner in value.values():
                yield from leaves(inner)
        else:
            yield value

    assert all(isinstance(x, torch.Tensor) for x in leaves(checkpoint['dms']))
    assert int(checkpoint['dms']['bank']['updates']) == 12


def test_ema_beside_the_search_changes_nothing(plain, tmp_path):
    hooks = [dict(type='mmrazor.DMSHook'), dict(type='EMAHook', momentum=.1)]
    other = run(with_validation(toy_config(tmp_path, custom_hooks=hooks)))
    assert same_search(plain, other) and same_weights(plain, other)


def test_activation_checkpointing_changes_nothing(plain, tmp_path):
    """But BatchNorm's running statistics, which see each batch twice."""
    other = run(
        toy_config(tmp_path, **{'model.architecture.backbone.with_cp': True}))
    assert same_search(plain, other)
    for one, another in zip(plain.model.parameters(),
                            other.model.parameters()):
        assert torch.equal(one, another)


def test_resume_with_ema(tmp_path):
    """The checkpoint's weights are the averaged ones; its ratios are not."""
    settings = dict(custom_hooks=[
        dict(type='mmrazor.DMSHook'),
        dict(type='EMAHook', momentum=.1)
    ])
    settings['default_hooks.checkpoint.interval'] = 16
    first = run(toy_config(tmp_path, **settings))
    again = run(
        toy_config(
            tmp_path / 'again',
            resume=True,
            load_from=str(tmp_path / 'iter_16.pth'),
            **settings))
    assert same_search(first, again) and same_weights(first, again)


@pytest.mark.parametrize('optimizer', [
    dict(type='AdamW', lr=0., weight_decay=5.),
    dict(type='SGD', lr=0., momentum=.9, nesterov=True),
])
def test_optimizer_schedule_and_clipping_leave_the_ratios_alone(
        tmp_path, optimizer):
    """With still weights, every recipe moves the ratios alike."""
    reference = toy_config(tmp_path / 'a')
    reference.optim_wrapper.optimizer = dict(type='SGD', lr=0.)
    cfg = toy_config(tmp_path / 'b',
                     **{'optim_wrapper.clip_grad': dict(max_norm=1e-4)})
    cfg.optim_wrapper.optimizer = optimizer
    cfg.param_scheduler = dict(
        type='CosineAnnealingLR', by_epoch=False, T_max=24)
    assert same_search(run(reference), run(cfg))


def test_accumulation_searches_once_an_optimizer_step(tmp_path):
    runner = run(
        toy_config(tmp_path, **{'optim_wrapper.accumulative_counts': 3}))
    search = runner.model.search
    assert search.bank.updates == 8 and search.step_count == 23
    assert search.bank.depth_frozen and search.bank.ratios.max() > .05


def test_mixed_precision(plain, tmp_path):
    runner = run(
        toy_config(
            tmp_path, **{
                'optim_wrapper.type': 'AmpOptimWrapper',
                'optim_wrapper.dtype': 'bfloat16'
            }))
    bank = runner.model.search.bank
    assert bank.updates == 24 and bank.masks.dtype == torch.float32
    same = plain.model.search.bank.ratios
    assert (bank.ratios - same).abs().mean() < .1 < bank.ratios.max()


def test_epochs(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.model.search = dict(epochs=2, width_only_epochs=1)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=3)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    runner = run(cfg)
    search = runner.model.search
    assert search.total_steps == 16 and search.width_only_steps == 8
    assert search.bank.depth_frozen
    cfg = copy.deepcopy(cfg)
    cfg.update(
        resume=True,
        load_from=str(tmp_path / 'epoch_1.pth'),
        work_dir=str(tmp_path / 'resumed'),
        experiment_name='resumed_epochs')
    assert same_search(runner, run(cfg))


def test_input_shape_is_read_off_the_pipeline(tmp_path):
    cfg = toy_config(tmp_path, max_iters=1)
    cfg.model.search = dict()
    cfg.model.input_shape = None
    # The dataset ignores it; it stands for a real one's pipeline.
    cfg.test_dataloader = dict(
        dataset=dict(pipeline=[dict(type='CenterCrop', crop_size=16)]))
    cfg.test_cfg, cfg.test_evaluator = dict(), dict(type='Accuracy')
    runner = run(cfg)
    assert runner.model.mutator.space.input_shape == (1, 3, 16, 16)
    assert runner.model.search.bank.updates == 1


# what ends before the first step, or after it


@HOOKS.register_module()
class BreakingHook(Hook):
    """Puts an unmasked layer in place of a masked one."""
    priority = 'VERY_LOW'

    def before_train(self, runner):
        block = runner.model.architecture.backbone.layer2[0]
        block.bn1 = nn.BatchNorm2d(16)


def test_a_layer_that_lost_its_masks_is_an_error(tmp_path):
    cfg = toy_config(
        tmp_path,
        custom_hooks=[dict(type='mmrazor.DMSHook'),
                      dict(type='BreakingHook')])
    with pytest.raises(RuntimeError, match='backbone.layer2.0.conv1'):
        run(cfg)


def test_layers_replaced_before_the_run_are_masked_again(tmp_path):
    """SyncBN conversion makes new modules; here even of a masked layer."""
    runner = Runner.from_cfg(toy_config(tmp_path))
    block = runner.model.architecture.backbone.layer2[0]
    block.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    runner.train()
    assert runner.model.search.unread_units() == []


def test_search_longer_than_the_training(tmp_path):
    with pytest.raises(ValueError, match='max_iters=24'):
        run(toy_config(tmp_path, max_iters=23))


def test_a_model_that_is_no_search(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.model = classifier()
    with pytest.raises(TypeError, match='ImageClassifier'):
        run(cfg)


def test_several_optimizers(tmp_path):
    runner = Runner.from_cfg(toy_config(tmp_path))
    hook = next(h for h in runner.hooks if type(h).__name__ == 'DMSHook')
    hook.before_run(runner)
    runner.optim_wrapper = object()
    with pytest.raises(TypeError, match='one optimizer'):
        hook.before_train(runner)


def test_fsdp1_is_refused_before_the_training(tmp_path):
    """However it came about: by a model wrapper or by a strategy."""
    runner = Runner.from_cfg(toy_config(tmp_path))
    _set_fsdp_flattened(next(runner.model.parameters()))
    with pytest.raises(ValueError, match='FSDP1.*leave out.*strategy'):
        runner.train()
    assert runner.iter == 0


def test_deepspeed_is_refused_before_the_training(tmp_path):
    """mmengine's own strategy, which a FlexibleRunner has."""
    runner = Runner.from_cfg(toy_config(tmp_path))
    runner.strategy = DeepSpeedStrategy.__new__(DeepSpeedStrategy)
    with pytest.raises(
            ValueError, match='DeepSpeedStrategy.*ZeRO.*leave out strategy'):
        runner.train()
    assert runner.iter == 0
