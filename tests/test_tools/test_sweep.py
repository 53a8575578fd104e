# Copyright (c) dms_razor contributors. All rights reserved.
"""Several budgets from one checkpoint of a search."""
import json
from functools import partial

import pytest
from in_process import call
from mmengine.config import Config
from toy_runs import run, toy_config


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
    """The folder of a search, with its config and a checkpoint."""
    folder = tmp_path_factory.mktemp('search')
    cfg = toy_config(folder)
    cfg.custom_imports = dict(imports=['dms_razor.openmmlab'])
    cfg.dump(folder / 'search.py')
    plain = Config(cfg.to_dict())
    plain.model = plain.model.architecture
    plain.dump(folder / 'plain.py')
    run(cfg)
    return folder


@pytest.fixture
def sweep(load_tool, monkeypatch, capsys, searched):
    return partial(call, load_tool, monkeypatch, capsys, 'sweep',
                   searched / 'search.py',
                   sorted(searched.glob('*.pth'))[-1], '--budgets')


def test_each_budget_is_exported_and_trained(sweep, searched, tmp_path,
                                             load_tool, monkeypatch):
    ran = []

    class Runner:
        """Stands for a training."""

        def __init__(self, cfg):
            self.cfg = cfg

        def train(self):
            ran.append(self.cfg)

        def val(self):
            return {'top1': 90. + len(ran), 'confusion': object()}

        test = val

    monkeypatch.setattr(load_tool('sweep'), 'build_runner', Runner)
    found = sweep('80%', '90%', '--out-dir', tmp_path / 'out',
                  '--retrain-base', searched / 'plain.py')
    assert found.returncode == 0, found.stderr
    assert [cfg.work_dir for cfg in ran] == [
        str(tmp_path / 'out' / 'training' / name)
        for name in ('90pct', '80pct')
    ]
    assert {cfg.model.type for cfg in ran} == {'DMSSubModel'}
    points = json.loads((tmp_path / 'out/sweep.json').read_text())['points']
    assert [point['scores']
            for point in points] == [dict(top1=91.),
                                     dict(top1=92.)]
    for point, budget in zip(points, (.9, .8)):
        assert .95 * budget < point['cost'] / point['of'] <= budget
        assert f'| {point["budget"]} |' in found.stdout
    assert (tmp_path / 'out' / 'sweep.png').exists()


def test_export_only(sweep, searched):
    found = sweep('80%', '--no-train', '--finetune', '--retrain-base',
                  searched / 'plain.py')
    assert found.returncode == 0, found.stderr
    cfg = Config.fromfile(searched / 'sweep' / '80pct' / 'retrain.py')
    assert cfg.model.checkpoint.endswith('subnet.pth')
    assert not (searched / 'sweep' / 'training').exists()


def test_messages(sweep, tmp_path):
    for words, message in ((['2', '--no-train'], 'cannot be reached'),
                           (['80%', '0.8', '--no-train'], 'each once'),
                           (['80%'], 'name one with --retrain-base')):
        found = sweep(*words, '--out-dir', tmp_path / 'none')
        assert found.returncode == 1 and message in found.stderr
        assert not (tmp_path / 'none').exists()
