# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/train.py and tools/test.py run a subnet with its own weights only."""
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from toy_runs import run, toy_config

from dms_razor.subnet import SubnetError


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
    """Folder of a search with its subnet and its last checkpoint."""
    folder = tmp_path_factory.mktemp('searched')
    cfg = toy_config(folder, **{'default_hooks.checkpoint.interval': 24})
    runner = run(cfg)
    runner.model.search.export(folder / 'subnet')
    return folder


@pytest.fixture
def runner(searched, tmp_path, load_tool):
    """Makes the runner of the subnet from a checkpoint, as the tools do."""

    def make(checkpoint, guard=True):
        cfg = toy_config(tmp_path, load_from=str(searched / checkpoint))
        cfg.model = dict(
            type='mmrazor.DMSSubModel',
            cfg=cfg.model.architecture,
            subnet=str(searched / 'subnet' / 'subnet.json'))
        cfg.custom_hooks = []
        if guard:
            load_tool('_launch').guard_subnet(cfg)
        return Runner.from_cfg(cfg)

    return make


def test_its_own_weights(runner):
    made = runner('subnet/subnet.pth')
    made.load_or_resume()


def test_the_checkpoint_of_the_search_is_refused(runner):
    with pytest.raises(SubnetError, match='iter_24.pth.*of this very'):
        runner('iter_24.pth').load_or_resume()


def test_without_the_guard_it_would_be_taken(runner):
    made = runner('iter_24.pth', guard=False)
    before = made.model.head.fc.weight.clone()
    made.load_or_resume()
    assert torch.equal(before, made.model.head.fc.weight)


@pytest.mark.parametrize('kind', ['DMSSubModel', 'mmrazor.DMSDistill'])
def test_models_that_are_guarded(load_tool, kind):
    cfg = Config(dict(model=dict(type=kind), custom_hooks=[dict(type='A')]))
    load_tool('_launch').guard_subnet(cfg)
    assert [hook['type'] for hook in cfg.custom_hooks
            ] == ['A', 'mmengine.SubnetCheckpointHook']


def test_other_models_are_left_alone(load_tool):
    cfg = Config(dict(model=dict(type='ImageClassifier')))
    load_tool('_launch').guard_subnet(cfg)
    assert 'custom_hooks' not in cfg
