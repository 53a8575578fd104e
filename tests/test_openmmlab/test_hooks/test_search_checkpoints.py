# Copyright (c) dms_razor contributors. All rights reserved.
"""What DMSHook makes of the checkpoints that a runner loads."""
import pytest
import torch
from mmengine.runner import Runner
from mmrazor.registry import MODELS
from toy_models import classifier
from toy_runs import run, same_search, toy_config


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A search with a checkpoint at its end."""
    return run(
        toy_config(
            tmp_path_factory.mktemp('plain'),
            **{'default_hooks.checkpoint.interval': 24}))


def save_plain(path, **backbone):
    torch.manual_seed(5)
    model = MODELS.build(classifier(**backbone))
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return model


def test_plain_checkpoint_becomes_the_supernet(tmp_path):
    model = save_plain(tmp_path / 'plain.pth')
    cfg = toy_config(
        tmp_path, load_from=str(tmp_path / 'plain.pth'), log_level='INFO')
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.)
    runner = run(cfg)
    for name, value in model.named_parameters():
        assert torch.equal(value,
                           runner.model.state_dict()[f'architecture.{name}'])
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert f'Supernet: {len(model.state_dict())} tensors' in log


def test_checkpoint_of_another_network_is_refused(tmp_path):
    save_plain(tmp_path / 'wide.pth', base_channels=16, stem_channels=16)
    cfg = toy_config(tmp_path, load_from=str(tmp_path / 'wide.pth'))
    cfg.model.architecture.head.in_channels = 64
    with pytest.raises(ValueError, match='wide.pth does not hold'):
        run(cfg)


def test_search_checkpoint_gives_its_weights_to_a_new_search(plain, tmp_path):
    cfg = toy_config(
        tmp_path, max_iters=1, load_from=f'{plain.work_dir}/iter_24.pth')
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.)
    cfg.model.search = dict()
    runner = run(cfg)
    assert runner.model.search.bank.ratios.eq(0).all()
    weight = 'architecture.head.fc.weight'
    assert torch.equal(runner.model.state_dict()[weight],
                       plain.model.state_dict()[weight])


def test_resuming_what_is_no_search(tmp_path):
    save_plain(tmp_path / 'plain.pth')
    cfg = toy_config(
        tmp_path, resume=True, load_from=str(tmp_path / 'plain.pth'))
    with pytest.raises(ValueError, match='holds no search'):
        run(cfg)


@pytest.mark.parametrize('change', [
    dict(target=.6),
    dict(search=dict(iters=16, width_only_iters=4)),
])
def test_a_search_resumes_as_it_was_begun(plain, tmp_path, change):
    cfg = toy_config(
        tmp_path, resume=True, load_from=f'{plain.work_dir}/iter_24.pth')
    cfg.model.update(change)
    name = 'target' if 'target' in change else 'total_steps 20, now 16'
    with pytest.raises(
            ValueError, match=f'other settings: {name}.*--resume-with-ch'):
        run(cfg)
    cfg.custom_hooks[0].resume_with_changes = True
    assert run(cfg).model.search.step_count == 24


def test_evaluating_a_search_checkpoint(plain, tmp_path):
    cfg = toy_config(tmp_path, load_from=f'{plain.work_dir}/iter_24.pth')
    cfg.test_dataloader = dict(
        cfg.train_dataloader,
        sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.test_evaluator, cfg.test_cfg = dict(type='Accuracy'), dict()
    runner = Runner.from_cfg(cfg)
    runner.test()
    assert same_search(plain, runner)
