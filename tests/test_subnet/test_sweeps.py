# Copyright (c) dms_razor contributors. All rights reserved.
"""One search, several budgets."""
import builtins
import json

import pytest
import torch
from matplotlib.figure import Figure
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.counting import count_macs, count_params
from dms_razor.subnet import build_subnet, sweep
from dms_razor.subnet.sweeps import Point, Sweep, draw_sweep


@pytest.fixture
def search():
    search = make_search(plain_net(), target='40%')
    optimizer = torch.optim.SGD(search.model.parameters(), lr=.05)
    train(search.attach(optimizer), optimizer, plain_data(), 30)
    return search


def test_every_budget_is_met_and_the_folders_build(search, tmp_path):
    image = torch.zeros(1, 3, 8, 8)
    whole = search.resource.supernet('macs')
    ratios = search.bank.ratios.clone()
    found = sweep(
        search, tmp_path, ['40%', .8, '60%'],
        lambda export: {'macs again': count_macs(export.model, image).total})
    assert [point.budget for point in found.points] == ['0.8', '60%', '40%']
    for point, budget in zip(found.points, (.8, .6, .4)):
        subnet = build_subnet(plain_net(),
                              tmp_path / point.folder / 'subnet.json')
        macs = count_macs(subnet, image).total
        assert .97 * budget * whole < macs <= budget * whole
        assert point.macs == point.cost == macs == point.scores['macs again']
        assert point.params == count_params(subnet)
    assert torch.equal(search.bank.ratios, ratios), 'the search can go on'
    told = json.loads((tmp_path / 'sweep.json').read_text())
    assert told['points'][1]['folder'] == '60pct'
    assert (tmp_path / 'sweep.md').read_text() == found.table() + '\n'
    assert (tmp_path / 'sweep.png').stat().st_size > 1000
    # at its own budget it is what the search exports
    own = search.export(tmp_path / 'own', picture=False)
    assert own.report.cost('macs') == found.points[-1].macs


def test_without_a_finish_there_is_no_picture(search, tmp_path):
    found = sweep(search, tmp_path, ['60%'], picture=False)
    assert found.points[0].scores == {}
    assert not list(tmp_path.rglob('*.png'))


def test_what_was_finished_is_on_disk_when_the_next_breaks(search, tmp_path):
    done = []

    def finish(export):
        done.append(export)
        if len(done) == 2:
            raise KeyboardInterrupt
        return dict(top=1.)

    with pytest.raises(KeyboardInterrupt):
        sweep(search, tmp_path, ['60%', '40%'], finish, picture=False)
    told = json.loads((tmp_path / 'sweep.json').read_text())
    assert [point['scores'] for point in told['points']] == [dict(top=1.)]


@pytest.mark.parametrize('budgets, finish, message', [
    ([], None, 'give at least one'),
    (['50%', .5], None, 'each once'),
    (['50%', '2%%'], None, 'cannot be read'),
    (['50%', 7], None, 'cannot be reached'),
    (['50%'], lambda export: 76.1, r'returned 76.1 for the budget 50%'),
    (['50%'], lambda export: dict(top='good'), 'has to return numbers'),
])
def test_messages(search, tmp_path, budgets, finish, message):
    with pytest.raises(ValueError, match=message):
        sweep(search, tmp_path, budgets, finish, picture=False)
    if finish is None:
        assert not list(tmp_path.iterdir())


def test_the_table():
    found = Sweep('macs', [
        Point('75%', '75pct', 7.5e6, 1e7, 7500000, 1000, {'top-1': 91.25}),
        Point('50%', '50pct', 4.9e6, 1e7, 4900000, 500)
    ])
    assert repr(found).splitlines() == [
        '| budget | MACs | of the supernet | parameters | top-1 |',
        '| --- | --- | --- | --- | --- |',
        '| 75% | 7.5 M | 75.0 % | 1 K | 91.25 |',
        '| 50% | 4.9 M | 49.0 % | 500 |  |'
    ]


def test_the_picture_has_each_point(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        Figure, 'savefig', lambda self, path, **settings:
        (figures.append(self), path.touch()))
    points = [
        Point(f'{n}%', '', n, 200, n, n, dict(a=n / 10, b=n * 2.))
        for n in (100, 50)
    ]
    points[1].scores.pop('b')
    draw_sweep(Sweep('params', points), tmp_path / 'a.png')
    upper, lower = figures[0].axes
    assert upper.lines[0].get_xydata().tolist() == [[50, 10], [25, 5]]
    assert lower.lines[0].get_xydata().tolist() == [[50, 200]]
    assert upper.get_xlabel() == 'parameters (% of the supernet)'
    assert lower.get_ylabel() == 'b'


def test_without_matplotlib_the_table_is_there(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith('matplotlib'):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    Sweep('macs', [Point('1', '1', 1., 2., 1, 1, dict(a=1.))]).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'sweep.json', 'sweep.md'
    ]


def test_a_search_of_several_limits_is_refused_before_anything(tmp_path):
    """It had ended in a KeyError, with the first export written."""
    limits = dict(macs='50%', params='60%')
    search = make_search(plain_net(), target=None, constraints=limits)
    with pytest.raises(ValueError, match='macs and params at once: export'):
        sweep(search, tmp_path / 'sweep', ['80%', '50%'])
    assert not (tmp_path / 'sweep').exists()
