# Copyright (c) dms_razor contributors. All rights reserved.
"""Files of version 0.1.0 load, resume and export as they did then.

What is only loaded has to be the same bit by bit. What is calculated from
there is too on the processor and torch that wrote the files, which
``DMS_RAZOR_EXACT=1`` demands; elsewhere sums are rounded otherwise.
"""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import json
import os
import random
import shutil
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from dms_razor.subnet import (Manifest, build_subnet, count_macs, load_weights,
                              read_weights)

FILES = Path(__file__).resolve().parent / 'fixtures' / 'v0_1_0'
sys.path.insert(0, str(FILES))
import toys  # noqa: E402  isort: skip  (from there)

sys.path.remove(str(FILES))
EXACT = os.environ.get('DMS_RAZOR_EXACT') == '1'
SUBNETS = ('run/subnet', 'run/subnet_local', 'run_epochs/subnet')
DOUBLE = dict(rtol=1e-9, atol=1e-12)
SINGLE = dict(rtol=1e-5, atol=1e-6)
RESUMED = dict(rtol=1e-4, atol=1e-4)  # single, through twelve steps


@pytest.fixture(autouse=True)
def one_thread():
    """As the files were made: threads change the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(*path):
    return torch.load(FILES.joinpath(*path), weights_only=True)


def assert_equal(found, expected):
    """The same structure of the same tensors and numbers, bit by bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_equal(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_equal(one, other)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    else:
        assert found == expected


def as_then(found, expected):
    """A state without what version 0.1.0 did not save."""
    return {
        name:
        as_then(value, expected[name]) if isinstance(value, dict) else value
        for name, value in found.items() if name in expected
    }


def assert_close(found, expected, bounds):
    """Calculated values, in dicts or not; the same where that is asked."""
    if EXACT:
        assert_equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, **bounds)


def assert_same_search(found, expected, bounds):
    """States of searches: what is counted and ordered is always the same."""
    found = as_then(found, expected)
    assert found.keys() == expected.keys()
    assert int(found['step_count']) == int(expected['step_count'])
    bank, other = dict(found['bank']), dict(expected['bank'])
    for name in ('ratios', 'importance'):
        assert_close(bank.pop(name), other.pop(name), bounds)
    assert_equal(bank, other)


def assert_same_export(folder, expected, bounds):
    """The manifest whole, the weights within bounds."""
    found, wanted = (
        json.loads((path / 'subnet.json').read_text())
        for path in (folder, expected))
    assert found == wanted
    assert_close(
        read_weights(folder / 'subnet.pth'),
        read_weights(expected / 'subnet.pth'), bounds)


# exports


@pytest.mark.parametrize('name', toys.EXPORTS)
def test_subnet_of_the_standard_network(name):
    """Numbers from the file alone, outputs as the exported network's."""
    case, folder = toys.EXPORTS[name], FILES / name
    net = toys.fill(case['net']().to(case['dtype']), seed=9)
    subnet = build_subnet(net, folder / 'subnet.json', folder / 'subnet.pth')
    assert_equal(dict(subnet.state_dict()), load(name, 'subnet.pth'))
    seen = load(name, 'outputs.pt')
    bounds = DOUBLE if case['dtype'] == torch.float64 else SINGLE
    assert_close(toys.scores(subnet, seen['inputs']), seen['outputs'], bounds)
    manifest = Manifest.load(folder)
    assert manifest.removed
    assert count_macs(subnet,
                      seen['inputs'][:1]).macs == manifest.macs['counted']
    if name != 'export_cnn':
        assert any(
            type(module).__name__.startswith('Slim')
            for module in subnet.modules())


def test_subnet_from_scratch():
    """Without weights, and of a part alone."""
    case, folder = toys.EXPORTS['export_vit'], FILES / 'export_vit'
    net = case['net']().to(case['dtype'])
    part = build_subnet(net.backbone, folder / 'subnet.json', part='backbone')
    weights = read_weights(folder / 'subnet.pth', part='backbone')
    assert {
        name: value.shape
        for name, value in weights.items()
    } == {
        name: value.shape
        for name, value in part.state_dict().items()
    }


@pytest.mark.parametrize('name', toys.EXPORTS)
def test_saved_search_is_exported_again(name, tmp_path):
    """By a search that takes up the saved state."""
    case, state = toys.EXPORTS[name], load(name, 'supernet.pt')
    net = toys.network(case)
    settings = dict(toys.EXPORT_SETTINGS)
    if name == 'export_cnn':
        # Read by two layers that share a weight, which 0.1.0 left whole.
        settings['units'] = {'last': dict(fixed=True)}
    search = toys.search_of(net, case, settings)
    net.load_state_dict(state['model'])
    search.load_state_dict(state['search'])
    assert_equal(
        as_then(search.state_dict(), state['search']), state['search'])
    search.export(tmp_path / 'subnet', picture=False)
    bounds = DOUBLE if case['dtype'] == torch.float64 else SINGLE
    assert_same_export(tmp_path / 'subnet', FILES / name, bounds)


@pytest.mark.parametrize(
    'folder',
    ['plain/subnet', 'export_cnn', 'export_vit', 'export_c2f', *SUBNETS])
def test_manifest_is_written_as_it_was_read(folder):
    path = FILES / folder / 'subnet.json'
    assert Manifest.load(path).to_json() == path.read_text(encoding='utf-8')


# the plain-Python search


def test_plain_search_goes_on(tmp_path):
    """From the middle to the end that the unbroken search came to."""
    case, middle = toys.PLAIN, load('plain', 'middle.pt')
    net = case['net']().to(case['dtype']).train()
    search = toys.search_of(net, case, dict(case['settings'], seed=5))
    net.load_state_dict(middle['model'])
    optimizer = toys.optimizer_of(net)
    optimizer.load_state_dict(middle['optimizer'])
    search.load_state_dict(middle['search'])
    assert_equal(
        as_then(search.state_dict(), middle['search']), middle['search'])
    assert_equal(dict(net.state_dict()), dict(middle['model']))
    assert_equal(optimizer.state_dict(), middle['optimizer'])

    search.attach(optimizer)
    toys.train(search, optimizer, case, case['middle'], case['end'])
    end = load('plain', 'end.pt')
    assert_same_search(search.state_dict(), end['search'], DOUBLE)
    assert_equal(search.project(), end['kept'])
    assert_close(dict(net.state_dict()), dict(end['model']), DOUBLE)
    subnet = search.export(tmp_path / 'subnet', picture=False).model
    assert_same_export(tmp_path / 'subnet', FILES / 'plain/subnet', DOUBLE)
    seen = load('plain', 'subnet', 'outputs.pt')
    assert_close(toys.scores(subnet, seen['inputs']), seen['outputs'], DOUBLE)


def test_plain_search_s_end_is_exported_again(tmp_path):
    case, end = toys.PLAIN, load('plain', 'end.pt')
    net = case['net']().to(case['dtype'])
    search = toys.search_of(net, case, case['settings'])
    net.load_state_dict(end['model'])
    search.load_state_dict(end['search'])
    assert search.bank.depth_frozen
    assert_equal(search.project(), end['kept'])
    search.export(tmp_path / 'subnet', picture=False)
    assert_same_export(tmp_path / 'subnet', FILES / 'plain/subnet', DOUBLE)
    subnet = build_subnet(case['net']().to(case['dtype']),
                          FILES / 'plain/subnet',
                          FILES / 'plain/subnet/subnet.pth')
    seen = load('plain', 'subnet', 'outputs.pt')
    assert_close(toys.scores(subnet, seen['inputs']), seen['outputs'], DOUBLE)


# searches through mmengine's runner


class Loaded(Hook):
    """Keeps what a runner holds after it has loaded a checkpoint.

    And draws random numbers, whose generators must be restored after it.
    """
    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.model = {
            name: value.clone()
            for name, value in runner.model.state_dict().items()
        }
        self.search = runner.model.search.state_dict()
        self.momentum = [
            state['momentum_buffer'].clone()
            for state in runner.optim_wrapper.state_dict()['state'].values()
        ]
        torch.rand(1), random.random(), np.random.rand()


def search_config(name, work_dir, monkeypatch):
    """The config of a run, in a folder of its own."""
    monkeypatch.chdir(FILES / name)  # it names base.py
    cfg = Config.fromfile('search.py')
    # What 0.1.0 did unless it was told otherwise.
    cfg.model.search.fall, cfg.model.search.harden = 1., 0.
    cfg.model.resource_loss = dict(loss_weight=1.)
    cfg.model.mutator = {'lr': 5e-3, **cfg.model.get('mutator', {})}
    for hook in cfg.custom_hooks:
        if hook['type'] == 'mmrazor.ExportSubnetHook':
            hook['bn_batches'] = 0
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{name}_{uuid.uuid4()}'
    return cfg


def trained_weights(checkpoint):
    """The weights that training goes on with.

    With averaged weights mmengine keeps the others under their name.
    """
    if 'ema_state_dict' not in checkpoint:
        return dict(checkpoint['state_dict'])
    return {
        name[len('module.'):]: value
        for name, value in checkpoint['ema_state_dict'].items()
        if name.startswith('module.')
    }


@pytest.mark.parametrize('name', toys.RUNS)
def test_run_is_resumed(name, tmp_path, monkeypatch):
    path = FILES / name / toys.RUNS[name]
    cfg = search_config(name, tmp_path, monkeypatch)
    cfg.load_from, cfg.resume = str(path), True
    runner, loaded = Runner.from_cfg(cfg), Loaded()
    runner.register_hook(loaded)
    runner.train()

    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu')
    assert_equal(loaded.model, trained_weights(checkpoint))
    saved = checkpoint['dms']
    assert_equal(as_then(loaded.search['bank'], saved['bank']), saved['bank'])
    assert int(loaded.search['step_count']) == checkpoint['meta']['iter']
    assert_equal(loaded.momentum, [
        state['momentum_buffer']
        for state in checkpoint['optimizer']['state'].values()
    ])

    end, search = load(name, 'end.pt'), runner.model.search
    assert_same_search(search.state_dict(), end['search'], RESUMED)
    assert_equal(search.project(), end['kept'])
    assert_close(dict(runner.model.state_dict()), dict(end['model']), RESUMED)
    for subnet in sorted((FILES / name).glob('subnet*')):
        found = tmp_path / subnet.name
        assert_same_export(found, subnet, RESUMED)
        one = Config.fromfile(found / 'retrain.py').to_dict()
        other = retrain_config(subnet, tmp_path / 'moved')
        for cfg, folder in ((one, found), (other, tmp_path / 'moved')):
            for key in ('subnet', 'checkpoint'):
                value = cfg['model'][key]
                cfg['model'][key] = value and Path(value).relative_to(folder)
        assert one == other


@pytest.mark.parametrize('trains', [True, False])
@pytest.mark.parametrize('name', toys.RUNS)
def test_checkpoint_is_loaded_without_resuming(name, trains, tmp_path,
                                               monkeypatch):
    """A new search gets the weights alone, an evaluation the search too."""
    path = FILES / name / toys.RUNS[name]
    cfg = search_config(name, tmp_path, monkeypatch)
    cfg.load_from = str(path)
    runner = Runner.from_cfg(cfg)
    if trains:
        assert runner.train_loop.iter == 0
    runner.call_hook('before_run')
    runner.load_or_resume()
    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu')
    assert_equal(dict(runner.model.state_dict()), trained_weights(checkpoint))
    bank = runner.model.search.bank
    if trains:
        assert bank.updates == 0
    else:
        then = checkpoint['dms']['bank']
        assert_equal(as_then(bank.state_dict(), then), then)


# retrain configs


def retrain_config(folder, moved):
    """A retrain.py read from a copy of its folder.

    One that names the local base by its path when it was written gets its
    path of today, as a user would write it there.
    """
    shutil.rmtree(moved, ignore_errors=True)
    shutil.copytree(folder, moved)
    text = (moved / 'retrain.py').read_text()
    text = text.replace(f'{toys.NEUTRAL}/run/base.py',
                        str(FILES / 'run/base.py'))
    (moved / 'retrain.py').write_text(text)
    return Config.fromfile(moved / 'retrain.py').to_dict()


@pytest.mark.parametrize('name', SUBNETS)
def test_retrain_config_builds_the_subnet(name, tmp_path):
    cfg = retrain_config(FILES / name, tmp_path / 'moved')
    folder = str(tmp_path / 'moved')
    assert cfg['model']['subnet'] == f'{folder}/subnet.json'
    scratch = name == 'run/subnet'
    assert cfg['model']['checkpoint'] == (None if scratch else
                                          f'{folder}/subnet.pth')
    assert cfg['optim_wrapper']['optimizer']['weight_decay'] == .0001
    local = name == 'run/subnet_local'
    assert cfg['train_cfg']['max_epochs'] == (3 if local else 200)
    assert cfg['train_dataloader']['batch_size'] == (4 if local else 16)
    with DefaultScope.overwrite_default_scope(cfg['default_scope']):
        model = MODELS.build(cfg['model'])
    if scratch:
        load_weights(model, FILES / name / 'subnet.pth')
    else:
        model.init_weights()  # as a runner does
    assert_equal(dict(model.state_dict()), load(name, 'subnet.pth'))
    seen = load(name, 'outputs.pt')
    assert_close(
        toys.classifier_scores(model, seen['inputs']), seen['outputs'], SINGLE)
