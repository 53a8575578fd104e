# Copyright (c) dms_razor contributors. All rights reserved.
import json
from functools import partial

import pytest
import torch
from in_process import call
from toy_runs import run, toy_config


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
    """A search's config and its checkpoints."""
    folder = tmp_path_factory.mktemp('search')
    cfg = toy_config(folder, **{'default_hooks.checkpoint.interval': 12})
    cfg.custom_imports = dict(imports=['dms_razor.openmmlab'])
    cfg.dump(folder / 'search.py')
    return folder, run(cfg)


@pytest.fixture
def export(load_tool, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return partial(call, load_tool, monkeypatch, capsys, 'export_subnet')


def report_of(folder):
    return json.loads((folder / 'report.json').read_text())


def test_last_checkpoint_gives_what_the_search_would(searched, export):
    folder, runner = searched
    result = export(folder / 'search.py', folder / 'iter_24.pth',
                    '--no-picture')
    assert result.returncode == 0, result.stderr
    assert '# Searched subnet' in result.stdout
    report = report_of(folder / 'subnet')
    kept = [unit['kept'] for unit in report['units']]
    assert kept == runner.model.search.project().tolist()
    weights = torch.load(folder / 'subnet/subnet.pth', weights_only=True)
    weights = weights.get('state_dict', weights)
    assert torch.equal(weights['head.fc.bias'],
                       runner.model.architecture.head.fc.bias)


def test_earlier_checkpoint_and_another_budget(searched, export, tmp_path):
    folder, _ = searched
    result = export(folder / 'search.py', folder / 'iter_12.pth', '--target',
                    '70%', '--out-dir', 'other', '--no-picture')
    assert result.returncode == 0, result.stderr
    macs = report_of(tmp_path / 'other')['macs']
    assert .99 * .7 <= macs['counted'] / macs['supernet'] <= .7


def test_what_cannot_be_exported(searched, export, tmp_path):
    folder, runner = searched
    torch.save(
        dict(state_dict=runner.model.state_dict()), tmp_path / 'plain.pth')
    checkpoint = torch.load(folder / 'iter_24.pth', weights_only=False)
    del checkpoint['state_dict']['architecture.backbone.conv1.weight']
    torch.save(checkpoint, tmp_path / 'broken.pth')
    for name, options, message in (
        ('plain.pth', [], 'holds no search'),
        ('broken.pth', [], 'backbone.conv1.weight'),
        (folder / 'iter_24.pth', ['--target', '2'], 'cannot be reached'),
        (folder / 'iter_24.pth', ['--target', '2%%'], 'cannot be read'),
    ):
        result = export(folder / 'search.py', name, '--out-dir', 'none',
                        *options)
        assert result.returncode == 1
        assert message in result.stderr, result.stderr
        assert 'Traceback' not in result.stderr
        assert not (tmp_path / 'none').exists()
