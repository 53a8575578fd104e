# Copyright (c) dms_razor contributors. All rights reserved.
import copy
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmrazor.registry import MODELS
from toy_models import classifier
from toy_runs import run, toy_config

from dms_razor.openmmlab.calibration import training_loader
from dms_razor.subnet import SubnetError, recalibrate

SEARCH = """
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
_base_.model.update({model})
model = dict(_delete_=True, type='mmrazor.DMS', architecture=_base_.model)
"""


def export_config(work_dir, budgets=(), export=None, **settings):
    hooks = [
        dict(type='mmrazor.DMSHook'),
        dict(
            type='mmrazor.ExportSubnetHook',
            budgets=budgets,
            picture=False,
            **(export or {}))
    ]
    return toy_config(work_dir, custom_hooks=hooks, **settings)


def report_of(folder):
    return json.loads((Path(folder) / 'report.json').read_text())


@pytest.fixture(scope='module')
def runner(tmp_path_factory):
    """A search to 50 % that exports 80 % and 1.5 M MACs on its way."""
    return run(
        export_config(
            tmp_path_factory.mktemp('export'),
            budgets=('80%', '1.5M'),
            export=dict(bn_batches=0)))


def test_end_meets_the_target(runner):
    folder = Path(runner.work_dir) / 'subnet'
    assert {'subnet.json', 'subnet.pth', 'report.md',
            'report.json'} <= {file.name
                               for file in folder.iterdir()}
    report, search = report_of(folder), runner.model.search
    assert report['asked']['target'] == search.target
    assert .99 * search.target <= report['macs']['counted'] <= search.target
    assert report['macs']['counted'] == report['macs']['searched']
    kept = [unit['kept'] for unit in report['units']]
    assert kept == search.project().tolist()


@pytest.mark.parametrize('name, share', [('subnet_80pct', .8),
                                         ('subnet_1.5M', None)])
def test_budgets_on_the_way(runner, name, share):
    report = report_of(Path(runner.work_dir) / name)
    whole = report['macs']['supernet']
    budget = 1.5e6 if share is None else share * whole
    assert report['asked']['target'] == pytest.approx(budget)
    assert .99 * budget <= report['macs']['counted'] <= budget


def test_exporting_does_not_disturb_the_search(runner, tmp_path):
    undisturbed = run(toy_config(tmp_path))
    assert torch.equal(undisturbed.model.search.bank.ratios,
                       runner.model.search.bank.ratios)
    for one, other in zip(undisturbed.model.parameters(),
                          runner.model.parameters()):
        assert torch.equal(one, other)


def test_subnet_is_what_validation_saw(runner):
    """The algorithm in eval mode, and the files with its own statistics."""
    folder, search = Path(runner.work_dir) / 'subnet', runner.model.search
    # What the ratios round to is another network.
    assert not torch.equal(search.bank.kept(), search.project())
    subnet = MODELS.build(
        dict(
            type='DMSSubModel',
            cfg=classifier(),
            subnet=str(folder / 'subnet.json'),
            checkpoint=str(folder / 'subnet.pth'))).eval()
    images = torch.randn(2, 3, 16, 16)
    flags = [(module, module.training) for module in runner.model.modules()]
    runner.model.eval()
    with torch.no_grad():
        seen = runner.model(images)
        torch.testing.assert_close(seen, subnet(images), atol=1e-5, rtol=1e-5)
    for module, flag in flags:
        module.training = flag


def test_averaged_weights_are_exported(tmp_path):
    cfg = export_config(tmp_path)
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=.1))
    runner = run(cfg)
    ema = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    exported = torch.load(
        tmp_path / 'subnet' / 'subnet.pth', weights_only=True)
    exported = exported.get('state_dict', exported)
    averaged = ema.ema_model.module.architecture.head.fc.bias
    assert torch.equal(exported['head.fc.bias'], averaged)
    assert not torch.equal(averaged, runner.model.architecture.head.fc.bias)


def test_statistics_are_those_of_the_subnet(tmp_path, runner):
    """Against the exported network itself, run on training images."""
    cfg = export_config(tmp_path, budgets=('80%', ), export=dict(bn_batches=3))
    again = run(cfg)
    assert torch.equal(again.model.search.bank.ratios,
                       runner.model.search.bank.ratios)
    states = []
    for folder in (tmp_path, Path(runner.work_dir)):
        subnet = MODELS.build(
            dict(
                type='DMSSubModel',
                cfg=classifier(),
                subnet=str(folder / 'subnet/subnet.json'),
                checkpoint=str(folder / 'subnet/subnet.pth')))
        states.append(copy.deepcopy(subnet.state_dict()))
    with training_loader(again) as loader:
        recalibrate(
            subnet,
            loader,
            3,
            forward=lambda model, batch: model(
                torch.stack([*batch['inputs']])))
    own, other = states[0], subnet.state_dict()
    for name in own:
        # the toy images are drawn with noise of a tenth
        if name.endswith(('running_mean', 'running_var')):
            torch.testing.assert_close(
                own[name], other[name], atol=.05, rtol=.05)
            assert not torch.equal(own[name], states[1][name])
        else:
            assert torch.equal(own[name], other[name]) or 'num_b' in name


@pytest.mark.parametrize('export, schedule', [
    (dict(), 'MultiStepLR'),
    (dict(retrain_base='mmpretrain::resnet/'
          'resnet50_8xb256-rsb-a3-100e_in1k.py'), 'CosineAnnealingLR'),
])
def test_retrain_config_builds_the_subnet(tmp_path, export, schedule):
    """With the search's own base, and with another recipe."""
    file = tmp_path / 'search.py'
    file.write_text(SEARCH.format(model=classifier()))
    cfg = Config.fromfile(file)
    toy = export_config(tmp_path / 'run', export=export)
    toy.model.architecture = cfg.model.architecture
    for name in list(cfg):
        cfg.pop(name)  # all but the name of the file
    cfg.update(toy._cfg_dict)
    runner = run(cfg)
    retrain = Config.fromfile(tmp_path / 'run' / 'subnet' / 'retrain.py')
    schedulers = retrain.param_scheduler
    if not isinstance(schedulers, list):
        schedulers = [schedulers]
    assert schedule in [one['type'] for one in schedulers]
    with DefaultScope.overwrite_default_scope(retrain.default_scope):
        subnet = MODELS.build(retrain.model)
    kept = runner.model.search.project()
    search = runner.model.search
    first = search.space.layout.index('backbone.layer4.0.conv1')
    assert subnet.backbone.layer4[0].conv1.out_channels == kept[first]


@pytest.mark.parametrize('settings, message', [
    (dict(budgets=('40%', )), 'does not lie between'),
    (dict(budgets=(1., )), 'does not lie between'),
    (dict(budgets=('120%', )), 'above the supernet'),
    (dict(budgets=('some', )), 'cannot be read'),
    (dict(export=dict(bn_batches=-1)), 'bn_batches'),
    (dict(export=dict(retrain_base='mmpretrain::resnet/no.py')), 'no.py'),
])
def test_bad_settings_end_before_the_first_step(tmp_path, settings, message):
    cfg = export_config(tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        run(cfg)
    assert not list(tmp_path.glob('subnet*'))


def test_search_without_config_file_says_that_nothing_is_retrained(tmp_path):
    cfg = export_config(tmp_path, max_iters=24, log_level='INFO')
    run(cfg)
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'There will be no retrain config' in log
    assert not (tmp_path / 'subnet' / 'retrain.py').exists()


@pytest.mark.parametrize('place', ['subnet', 'subnet_80pct'])
def test_a_place_that_is_taken_ends_before_the_first_step(tmp_path, place):
    (tmp_path / place).mkdir()
    (tmp_path / place / 'thesis.tex').write_text('mine')
    runner = Runner.from_cfg(export_config(tmp_path, budgets=('80%', )))
    with pytest.raises(SubnetError, match="holds 'thesis.tex' and nothing of"):
        runner.train()
    assert runner.iter == 0
