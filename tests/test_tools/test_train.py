# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/train.py: its flags do what they say or are errors."""
import pytest
import torch
from mmengine.config import Config


@pytest.fixture
def train(load_tool):
    return load_tool('train')


@pytest.mark.parametrize('wrapper', [
    dict(optimizer=dict(type='SGD')),
    dict(type='OptimWrapper', optimizer=dict(type='SGD')),
    dict(type='mmengine.OptimWrapper', optimizer=dict(type='SGD')),
])
def test_amp_switches_the_wrapper(train, wrapper):
    cfg = Config(dict(optim_wrapper=wrapper))
    train.switch_on_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'


def test_amp_keeps_what_the_config_says_of_it(train):
    wrapper = dict(
        type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(type='SGD'))
    cfg = Config(dict(optim_wrapper=dict(wrapper)))
    train.switch_on_amp(cfg)
    assert cfg.optim_wrapper == wrapper


def test_amp_reaches_the_architecture_of_a_constructor(train):
    cfg = Config(
        dict(
            optim_wrapper=dict(
                constructor='mmrazor.SeparateOptimWrapperConstructor',
                architecture=dict(optimizer=dict(type='SGD')),
                mutator=dict(optimizer=dict(type='Adam')))))
    train.switch_on_amp(cfg)
    assert cfg.optim_wrapper.architecture.type == 'AmpOptimWrapper'
    assert 'type' not in cfg.optim_wrapper.mutator


@pytest.mark.parametrize('cfg', [
    dict(),
    dict(optim_wrapper=dict(constructor='Mine', generator=dict())),
    dict(
        optim_wrapper=dict(
            type='ApexOptimWrapper', optimizer=dict(type='SGD'))),
])
def test_amp_without_effect_is_an_error(train, cfg):
    with pytest.raises(ValueError, match='--amp has no effect.*Drop'):
        train.switch_on_amp(Config(cfg))


def test_auto_scale_lr(train):
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=256)))
    train.switch_on_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable
    with pytest.raises(ValueError, match='base_batch_size'):
        train.switch_on_auto_scale_lr(Config(dict()))


def test_resume_of_a_first_run_keeps_pretrained_weights(train, tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='pretrained.pth'))
    train.switch_on_resume(cfg, 'auto')
    assert cfg.load_from == 'pretrained.pth' and not cfg.get('resume')


def test_resume_takes_the_latest_or_the_named_checkpoint(train, tmp_path):
    latest = str(tmp_path / 'epoch_2.pth')
    torch.save(dict(meta=dict(iter=2), optimizer={}), latest)
    (tmp_path / 'last_checkpoint').write_text(latest)
    for named, expected in (('auto', latest), ('a.pth', 'a.pth')):
        cfg = Config(dict(work_dir=str(tmp_path), load_from='pretrained.pth'))
        train.switch_on_resume(cfg, named)
        assert cfg.resume and cfg.load_from == expected


def test_changes_of_a_search_are_let_through_by_its_hook(train):
    cfg = Config(dict(custom_hooks=[dict(type='mmrazor.DMSHook')]))
    train.let_search_change(cfg)
    assert cfg.custom_hooks[0] == dict(
        type='mmrazor.DMSHook', resume_with_changes=True)
    with pytest.raises(ValueError, match='no effect.*no DMSHook. Use --resu'):
        train.let_search_change(Config(dict()))


def test_train_resume_and_test(run_tool, config, tmp_path):
    """One epoch, a second one resumed with AMP, then the test."""
    work_dir = tmp_path / 'work'
    run_tool('train.py', config, '--work-dir', work_dir)
    first = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    assert first['meta']['iter'] == 4
    output = run_tool('train.py', config, '--work-dir', work_dir, '--resume',
                      '--amp', '--cfg-options', 'train_cfg.max_epochs=2')
    assert 'resumed epoch: 1, iter: 4' in output
    second = torch.load(work_dir / 'epoch_2.pth', weights_only=False)
    assert second['meta']['iter'] == 8
    weights = first['state_dict'], second['state_dict']
    assert not torch.equal(*(w['head.fc.weight'] for w in weights))
    output = run_tool('test.py', config, work_dir / 'epoch_2.pth')
    assert 'accuracy/top1' in output
