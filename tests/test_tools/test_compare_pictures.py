# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: the pictures, and the curves of Figure 2."""
import sys

import pytest
import torch
from test_compare_results import run

from tools.compare.experiment import Experiment, Row
from tools.compare.pictures import draw, mask_curve, used_selectors


def test_mask_curve_is_the_paper_s():
    masks, slopes = mask_curve('dms', 20)
    # half of 20 stay: m = sigmoid(20 (c' - .5)), c' the middle of a rank
    ranks = (torch.arange(20).double() + .5) / 20
    expected = torch.sigmoid(20 * (ranks - .5))
    torch.testing.assert_close(masks, expected)
    torch.testing.assert_close(slopes, -20 * expected * (1 - expected))


def test_other_selectors_in_the_same_picture():
    masks, slopes = mask_curve('get', 10)
    assert masks.round().tolist() == [0.] * 5 + [1.] * 5
    assert slopes.tolist() == [-1.] * 10
    # importances are the normalised ranks here, so it is the paper's curve
    for found, expected in zip(
            mask_curve('unnormalised', 20), mask_curve('dms', 20)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.fixture
def experiment():
    return Experiment(
        print, [
            Row('dms'),
            Row('even', 'uniform'),
            Row('other', search=dict(selector='mes')),
            Row('third', search=dict(selector='unnormalised'))
        ],
        budgets=('50%', '30%'))


def searched(label, macs):
    trace = [
        dict(
            step=step,
            target=macs,
            soft=macs,
            hard=macs,
            ratios=[.1 * step, 0.],
            kept=[10 - step, 3],
            widest='width',
            masks=[0., .5, 1.]) for step in range(2)
    ]
    structure = [
        dict(name=kind, kind=kind, kept=9, total=10)
        for kind in ('width', 'depth')
    ]
    return {
        **run('dms', 0, 60., label, search_cpu_seconds=1.), 'macs': macs,
        'trace': trace,
        'structure': structure
    }


def test_everything_that_is_there_is_drawn(experiment, tmp_path, capsys):
    even = {**run('even', 0, 58., search_cpu_seconds=0.), 'trace': []}
    pictures = draw(
        experiment,
        [searched('50%', 5), searched('30%', 3), even], tmp_path)
    assert {path.name
            for path in pictures} == {
                'accuracy_macs.png', 'accuracy_cost.png', 'masks.png',
                'structure_dms_50pct.png', 'structure_dms_30pct.png'
            }
    output = capsys.readouterr().out
    for path in pictures:
        assert path.read_bytes().startswith(b'\x89PNG')
        assert f'Picture   {path}' in output


def test_selectors_of_rows_that_ran(experiment):
    assert used_selectors(experiment, {'dms', 'even'}) == ['dms']
    assert used_selectors(experiment, {'third', 'other'}) == ['unnormalised']


def test_without_matplotlib_there_are_tables_alone(experiment, tmp_path,
                                                   monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    assert draw(experiment, [searched('50%', 5)], tmp_path) == []
    assert 'matplotlib is not installed' in capsys.readouterr().out
