# Copyright (c) dms_razor contributors. All rights reserved.
import json
from pathlib import Path

import pytest
from mmrazor.registry import HOOKS
from toy_runs import run, toy_config

from dms_razor.openmmlab.hooks.structure import structure_scalars


@pytest.fixture(scope='module')
def runner(tmp_path_factory):
    hooks = [
        dict(type='mmrazor.DMSHook'),
        dict(type='mmrazor.StructureLogHook', interval=4, table_interval=12)
    ]
    return run(
        toy_config(
            tmp_path_factory.mktemp('log'),
            custom_hooks=hooks,
            log_level='INFO'))


def scalars_of(runner):
    """What mmengine's visualizer wrote, as its backends show it."""
    file = next(Path(runner.work_dir).glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_scalars_reach_the_visualizer(runner):
    lines = [line for line in scalars_of(runner) if 'dms/hard' in line]
    assert [line['step'] for line in lines] == [4, 8, 12, 16, 20, 24]
    last, search = lines[-1], runner.model.search
    whole = search.resource.supernet()
    assert last['dms/hard'] == pytest.approx(search.current(hard=True) / whole)
    choices = runner.model.mutator.current_choices
    assert last['dms/blocks/backbone.layer1'] == (
        choices['backbone.layer1'] / 2)
    stage = [
        value for name, value in choices.items()
        if name.startswith('backbone.layer4.')
    ]
    assert last['dms/kept/backbone.layer4'] == pytest.approx(
        sum(stage) / (64 * 3))


def test_log_line_says_asked_and_reached(runner):
    lines = [line for line in scalars_of(runner) if 'dms/asked' in line]
    asked = [line['dms/asked'] for line in lines]
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] == .5 and all('dms/current' in line for line in lines)


def test_tables_for_people(runner):
    log = next(Path(runner.work_dir).glob('*/*.log')).read_text()
    assert log.count('Structure after 12 iterations, macs: asked') == 1
    assert log.count('Structure after 24 iterations') == 2  # and at the end
    assert 'backbone.layer4' in log.split('Structure after 24')[-1]
    assert 'Pre-flight of the search space' in log
    assert 'Depth is frozen' in log


def test_scalars_are_shares(runner):
    scalars = structure_scalars(runner.model.search)
    assert all(0 <= value <= 1 for value in scalars.values())


@pytest.mark.parametrize(
    'settings', [dict(interval=0), dict(table_interval=-1)])
def test_intervals_are_positive(settings):
    with pytest.raises(ValueError, match='interval'):
        HOOKS.build(dict(type='mmrazor.StructureLogHook', **settings))
