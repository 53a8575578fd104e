# Copyright (c) dms_razor contributors. All rights reserved.
"""Tables of a device whose clock is a formula: what comes out is known."""
import json

import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.core.latency import LatencyError, checksum
from dms_razor.counting import count_macs
from dms_razor.timing import bench
from dms_razor.timing import measure as module
from dms_razor.timing.bench import Here
from dms_razor.timing.clock import Setting
from dms_razor.timing.measure import measure, resampled, spread_subnets
from dms_razor.trace import trace

GRID = (.25, .5, .75, 1.)
IMAGES = torch.zeros(1, 3, 8, 8)


def truth(model, inputs):
    """Milliseconds: .1 for anything, and .01 for each thousand MACs."""
    return .1 + 1e-5 * count_macs(model, tuple(inputs)).total


@pytest.fixture
def device(monkeypatch):
    """What was timed, in turn; networks as (number of modules, MACs)."""
    timed = []
    monkeypatch.setattr(bench, 'runner', lambda model, inputs, *_:
                        (model, inputs))

    def interleaved(runs, rounds):
        timed.extend(runs)
        return [dict(ms=truth(*run), spread=0.) for run in runs]

    monkeypatch.setattr(bench, 'interleaved', interleaved)
    return timed


@pytest.fixture(scope='module')
def space():
    return trace(plain_net(), IMAGES, check=False)


def make(space, path, **settings):
    return measure(
        plain_net(),
        space,
        Here(Setting('torch', 1)),
        path,
        grid=GRID,
        **settings)


def test_the_table_predicts_other_subnets(device, space, tmp_path):
    table = make(space, tmp_path / 'table.json', held_out=4)
    other = table['held_out']
    assert other['spearman'] == pytest.approx(1)
    assert other['predicted'] == pytest.approx(other['measured'])
    assert other['error_95'] < 1e-6 and len(other['macs']) == 4
    assert table['fit']['largest_error'] < 1e-6
    assert table['setting']['threads'] == 1 and table['input'] == [[
        1, 3, 8, 8
    ]]
    found = space.limiting(['latency'], tmp_path / 'table.json')
    assert found.resource.metrics == ('macs', 'params', 'latency')
    for selection in spread_subnets(space, 6, seed=7)[1:]:
        macs = space.cost(selection, 'macs')
        assert found.cost(selection,
                          'latency') == pytest.approx(.1 + 1e-5 * macs)


def test_equal_layers_are_measured_once(device, space, tmp_path):
    """Six layers of the blocks are one part; the stem's input and the head's
    output do not move."""
    table = make(space, tmp_path / 'table.json', whole=3)
    assert sorted(len(p) for p in table['points'].values()) == [4, 4, 16]
    assert len(device) == 2 * 24 + 3 and len(table['parts']) == 8


class Killed(BaseException):
    pass


def test_what_was_killed_goes_on(device, space, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'SAVE_EVERY', 1)

    def stop(done, of):
        if done == 10:
            raise Killed

    path = tmp_path / 'table.json'
    with pytest.raises(Killed):
        make(space, path, progress=stop)
    assert len(device) == 2 * 10
    with pytest.raises(LatencyError, match='not finished'):
        space.limiting(['latency'], path)
    seen = []
    make(space, path, whole=3, progress=lambda done, of: seen.append(of))
    assert seen == [24] * 24
    assert len(device) == 2 * (10 + 14) + 3
    whole = json.loads(path.read_text())
    path.unlink()
    assert make(space, path, whole=3)['parts'] == whole['parts']


def test_a_file_of_something_else_is_not_overwritten(device, space, tmp_path):
    path = tmp_path / 'table.json'
    make(space, path, whole=3)
    before = path.read_text()
    with pytest.raises(LatencyError, match='its setting differ'):
        measure(plain_net(), space, Here(Setting('torch', 2)), path, grid=GRID)
    other = trace(plain_net(), torch.zeros(1, 3, 16, 16), check=False)
    with pytest.raises(LatencyError, match='layers and input differ'):
        make(other, path)
    assert path.read_text() == before
    path.write_text('not a table')
    with pytest.raises(LatencyError, match='is no table'):
        make(space, path)
    with pytest.raises(LatencyError, match='for another network'):
        path.write_text(before)
        other.limiting(['latency'], path)


@pytest.mark.parametrize('target', ['50%', '.3ms'])
def test_a_search_under_it(device, space, tmp_path, target):
    make(space, tmp_path / 'table.json')
    net = plain_net()
    search = make_search(
        net,
        target=target,
        metric='latency',
        latency_table=tmp_path / 'table.json')
    whole = .1 + 1e-5 * count_macs(net, IMAGES).total
    amount = .5 * whole if target == '50%' else .3
    assert search.target == pytest.approx(amount)
    assert 'latency' in search.preflight().text()
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, plain_data(), 30)
    assert search.current() == pytest.approx(amount, rel=1e-4)
    export = search.export(tmp_path / 'subnet', picture=False)
    taken = truth(export.model, (IMAGES, ))
    assert .95 * amount < taken <= amount * (1 + 1e-9)
    costs = export.manifest.others['latency']
    assert costs['searched'] == pytest.approx(taken)


def test_beside_another_budget(device, space, tmp_path):
    make(space, tmp_path / 'table.json')
    search = make_search(
        plain_net(),
        constraints=dict(latency='60%', params='30%'),
        latency_table=tmp_path / 'table.json')
    shares = search.limits.shares(search.project(), search.keep().double())
    assert .95 < max(shares.values()) <= 1


def test_a_table_for_a_search_in_steps(device, space, tmp_path, monkeypatch):
    """Nothing but multiples of the step is timed, but for finding it."""
    monkeypatch.setattr(module, 'divisor_of', lambda table: (4, 'as told'))
    monkeypatch.setattr(module, 'measure_steps', lambda *args: None)
    table = make(
        space, tmp_path / 'table.json', held_out=3, in_steps=True, whole=4)
    widths = {
        int(w)
        for points in table['points'].values()
        for name in points
        for w in name.split()
    }
    assert {w for w in widths if w % 4} <= {3, 10}  # image and classes
    for selection in (*spread_subnets(space, 4, 0, 4),
                      *spread_subnets(space, 4, 1, 4)):
        for unit, kept in zip(space.units, space.counts(selection)):
            assert unit.kind == 'depth' or int(kept) % 4 == 0
    assert table['held_out']['error_95'] < 1e-6


def test_the_papers_quadratic(device, space, tmp_path):
    """The device's time is one: a product of both widths, and a constant."""
    table = make(space, tmp_path / 'table.json', curve='quadratic')
    assert table['curve'] == 'quadratic'
    assert table['fit']['largest_error'] < 1e-6
    found = space.limiting(['latency'], tmp_path / 'table.json')
    for selection in spread_subnets(space, 4, seed=7)[1:]:
        macs = space.cost(selection, 'macs')
        assert found.cost(selection,
                          'latency') == pytest.approx(.1 + 1e-5 * macs)
    content = dict(table, curve='cubic')
    content['checksum'] = checksum(content)
    (tmp_path / 'table.json').write_text(json.dumps(content))
    with pytest.raises(LatencyError, match="curve='cubic', which this ver"):
        space.limiting(['latency'], tmp_path / 'table.json')


def test_other_places_on_straight_lines():
    """By hand; below 0 there is no time."""
    rows = torch.tensor([[1., 0.], [3., 4.], [3., 8.]]).double()
    wanted = torch.tensor([1., 2., 3., 6., 9.]).double()
    assert resampled(rows, [2, 4, 8], wanted).tolist() == [[0, 0], [1, 0],
                                                           [2, 2], [3, 6],
                                                           [3, 9]]
    assert resampled(rows[:1], [2], wanted[:2]).tolist() == [[1, 0], [1, 0]]


def test_ranks():
    """By hand: squared differences of ranks are 1, 1, 0, 0."""
    first = torch.tensor([3., 9., 20., 21.])
    second = torch.tensor([.2, .1, .3, .7])
    assert module.spearman(first, second) == pytest.approx(1 - 6 * 2 / 60)
