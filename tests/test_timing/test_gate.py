# Copyright (c) dms_razor contributors. All rights reserved.
"""An export that is measured, by a device whose clock is a formula."""
import json
import sys
import warnings

import pytest
import torch
from matplotlib.axes import Axes
from toy_nets import make_search, plain_net

from dms_razor.core.latency import checksum
from dms_razor.counting import count_macs
from dms_razor.subnet import Manifest, build_subnet, sweep
from dms_razor.subnet.timed import Timed
from dms_razor.timing import bench
from dms_razor.timing.bench import Here
from dms_razor.timing.clock import Setting
from dms_razor.timing.gate import better, inputs_like
from dms_razor.timing.measure import measure
from dms_razor.trace import trace

IMAGES = torch.zeros(1, 3, 8, 8)


class Device:
    """.1 ms for anything, .01 for each thousand MACs, times a factor."""

    def __init__(self):
        self.factor, self.timed = 1., []

    def truth(self, model, batch=1):
        macs = count_macs(model, IMAGES).total
        return self.factor * (.1 + 1e-5 * batch * macs)

    def interleaved(self, runs, rounds):
        self.timed.append(len(runs))
        return [
            dict(
                ms=self.factor *
                (.1 + 1e-5 * count_macs(model, tuple(inputs)).total),
                spread=.01) for model, inputs in runs
        ]


@pytest.fixture(scope='module')
def device():
    with pytest.MonkeyPatch.context() as patch:
        found = Device()
        patch.setattr(bench, 'runner', lambda model, inputs, *_:
                      (model, inputs))
        patch.setattr(bench, 'interleaved', found.interleaved)
        yield found


@pytest.fixture(scope='module')
def table(device, tmp_path_factory):
    path = tmp_path_factory.mktemp('table') / 'table.json'
    measure(
        plain_net(),
        trace(plain_net(), IMAGES, check=False),
        Here(Setting('torch', 1)),
        path,
        grid=(.25, .5, .75, 1.),
        held_out=3)
    return path


@pytest.fixture
def searched(device, table):

    def search(**settings):
        settings = dict(dict(metric='latency', target='60%'), **settings)
        return make_search(
            plain_net(),
            **dict(dict(latency_table=table, check=False), **settings))

    device.factor, device.timed = 1., []
    yield search
    device.factor = 1.


def other_table(table, tmp_path, **setting):
    """The same of another machine."""
    content = json.loads(table.read_text())
    content['setting'].update(setting)
    content['checksum'] = checksum(content)
    path = tmp_path / 'other.json'
    path.write_text(json.dumps(content))
    return path


def test_what_was_promised_is_measured(device, searched, tmp_path):
    search = searched()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', 'no ratio has moved')
        export = search.export(tmp_path / 'subnet')
    timed = export.report.latency
    assert device.timed == [1]
    assert timed.measured == pytest.approx(device.truth(export.model))
    assert timed.predicted == pytest.approx(timed.measured)
    assert timed.limit == search.target >= timed.measured
    told = f'{timed.measured:.3g} ms measured (spread 1.0%)'
    for name in ('report.md', 'report.html'):
        text = (export.path / name).read_text()
        assert told in text and 'within the tolerance' in text
        assert 'torch on cpu, 1 thread, fp32' in text
    assert Manifest.load(export.path).measured == dict(
        limit=timed.limit,
        predicted=timed.predicted,
        measured=timed.measured,
        spread=.01)
    saved = json.loads((export.path / 'report.json').read_text())['latency']
    assert saved == timed.to_dict() and len(saved['points']['measured']) == 3
    assert sum(after
               for _, after in saved['layers'].values()) == pytest.approx(
                   timed.predicted)
    assert (export.path / 'latency.png').stat().st_size > 1000
    assert (export.path / 'report.html').read_text().count('<img') == 2


def test_a_sweep_is_drawn_over_what_was_measured(device, searched, tmp_path):
    drawn = []
    search = searched()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Axes, 'plot',
                      lambda self, x, y, *args, **kwargs: drawn.append((x, y)))
        found = sweep(search, tmp_path, ['60%', '80%'],
                      lambda export: dict(top=device.truth(export.model)))
    times = [
        device.truth(build_subnet(plain_net(), tmp_path / name))
        for name in ('80pct/subnet.json', '60pct/subnet.json')
    ]
    assert [point.ms for point in found.points] == pytest.approx(times)
    assert drawn[-1] == (pytest.approx(times), pytest.approx(times))
    assert '| measured (ms) |' in found.table()
    assert json.loads(
        (tmp_path /
         'sweep.json').read_text())['points'][0]['ms'] == pytest.approx(
             times[0])


@pytest.mark.parametrize('asked', [
    dict(),
    dict(
        metric=None, target=.5, constraints=dict(latency='60%', params='95%'))
])
@pytest.mark.parametrize('factor', [1.2, .8])
def test_a_table_that_is_off_is_scaled_once(device, searched, tmp_path, factor,
                                            asked):
    search = searched(**asked)
    limit = .6 * search.space.resource.supernet('latency')
    first = search.keep(search.project())
    plain = search.space.cost(first, 'latency')
    device.factor = factor
    message = f'20.0% {"slower" if factor > 1 else "faster"} than predicted'
    with pytest.warns(UserWarning, match=message) as seen:
        export = search.export(tmp_path / 'subnet', picture=False)
    assert len([w for w in seen if 'ms predicted' in str(w.message)]) == 1
    timed, real = export.report.latency, device.truth(export.model)
    assert device.timed == [1, 2] and timed.factor == pytest.approx(factor)
    assert timed.predicted == pytest.approx(timed.measured)
    assert .9 * limit < real <= limit * (1 + 1e-9)
    assert timed.measured == pytest.approx(real)
    assert [each['kept'] for each in timed.tried] == [False, True]
    assert timed.tried[0]['measured'] == pytest.approx(factor * plain)
    text = (export.path / 'report.md').read_text()
    assert 'The second is exported' in text
    assert 'above what was asked' not in text
    assert export.manifest.others['latency']['searched'] == pytest.approx(real)


def test_a_wider_tolerance_corrects_nothing(device, searched, tmp_path):
    device.factor = 1.2
    export = searched().export(
        tmp_path / 'subnet', picture=False, tolerance=.25)
    assert device.timed == [1]
    text = export.report.to_markdown()
    assert 'within the tolerance, 1' in text and 'above the limit' in text


def test_where_no_network_is_small_enough(device, searched, tmp_path):
    device.factor = 50.
    with pytest.warns(UserWarning, match='No correction: .* no network meets'):
        export = searched().export(tmp_path / 'subnet', picture=False)
    assert device.timed == [1] and not export.report.latency.tried


def test_another_limit_binds(device, searched, tmp_path):
    device.factor = 1.2
    search = searched(
        metric=None, target=.5, constraints=dict(latency='95%', params='20%'))
    with pytest.warns(UserWarning, match='the network is the same'):
        search.export(tmp_path / 'subnet', picture=False)
    assert device.timed == [1]


@pytest.mark.parametrize('setting, reason', [
    (dict(processor='Brain 2'), 'another machine: processor Brain 2 there'),
    (dict(threads=10**6), 'another machine: 1000000 threads there'),
    (dict(versions=dict(torch='0.1')), 'another machine: torch 0.1 there'),
    (dict(device='cuda'), 'another machine: device cuda there, cpu here'),
    (dict(backend='tvm'), "there is no backend 'tvm'"),
])
def test_another_machine_is_not_compared(device, searched, table, tmp_path,
                                         setting, reason):
    search = searched(latency_table=other_table(table, tmp_path, **setting))
    export = search.export(tmp_path / 'subnet', picture=False)
    assert device.timed == [] and export.report.latency.measured is None
    assert f'not measured: {reason}' in export.report.to_markdown() or \
        reason in export.report.latency.reason
    assert export.manifest.measured == {}


def test_without_onnx_runtime(device, searched, table, tmp_path, monkeypatch):
    path = other_table(table, tmp_path, backend='onnxruntime')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    export = searched(latency_table=path).export(
        tmp_path / 'subnet', picture=False)
    assert 'ONNX Runtime is not installed: pip install' in \
        (export.path / 'report.html').read_text()


def test_it_can_be_switched_off(device, searched, tmp_path):
    export = searched().export(
        tmp_path / 'subnet', picture=False, measure=False)
    assert device.timed == [] and 'not measured: measure=False' in \
        export.report.to_markdown()
    for wrong in (dict(measure='never'), dict(tolerance=-1), dict(divisor=2.5),
                  dict(divisor='some')):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            searched().export(tmp_path / 'subnet', **wrong)


def test_without_a_latency_nothing_is_timed(device, tmp_path):
    device.timed = []
    search = make_search(plain_net(), check=False)
    export = search.export(tmp_path / 'subnet', divisor=4)
    assert device.timed == [] and export.report.latency is None
    assert not (export.path / 'latency.png').exists()
    kept = {
        unit['kept']
        for unit in export.manifest.units if unit['kind'] == 'width'
    }
    assert kept <= {4, 8, 12} and kept != {12}
    assert export.manifest.macs['counted'] <= search.target
    assert 'multiples of 4 or whole: as was asked' in \
        export.report.to_markdown()
    with pytest.raises(ValueError, match='latency_table=, or give a number'):
        search.export(tmp_path / 'other', divisor='auto')


def test_the_batch_of_the_table():
    x, labels = torch.arange(6.).view(2, 3), torch.arange(2)
    found = inputs_like((x, labels, None), [[5, 3], [5]])
    assert found[0].tolist() == [x[n % 2].tolist() for n in range(5)]
    assert found[1].tolist() == [0, 1, 0, 1, 0] and found[2] is None
    assert inputs_like((x, ), [[2, 4]]) is None
    assert inputs_like((x, ), [[2, 3], [2]]) is None
    assert inputs_like((x, labels), [[2, 3]]) is None


@pytest.mark.parametrize('first, second, best', [
    (.9, .99, 1),
    (.99, .9, 0),
    (1.1, .8, 1),
    (.8, 1.01, 0),
    (1.2, 1.1, 1),
    (1.1, 1.2, 0),
])
def test_the_larger_within_the_limit(first, second, best):
    assert better(*(Timed(1., 1., measured=ms)
                    for ms in (first, second))) == best
