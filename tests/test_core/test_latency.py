# Copyright (c) dms_razor contributors. All rights reserved.
"""A table of latencies as a metric, against sums by hand."""
import json
import re
from types import SimpleNamespace

import pytest
import torch

from dms_razor.core import Axis, Cost, Layout, ResourceModel, Term, Unit
from dms_razor.core.latency import (FORMAT, LatencyError, checksum, latency_of,
                                    layers_of, poor_fit, read_table,
                                    with_latency)
from dms_razor.preflight import preflight

LAYOUT = Layout([
    Unit('a', 'width', 8),
    Unit('b', 'width', 4, step=2),
    Unit('d', 'depth', 2)
])
AXES = [
    Axis((Term(3, ()), )),
    Axis((Term(1, (1, )), )),
    Axis((Term(2, (2, )), ))
]
COSTS = [
    Cost('stem', 'conv2d', 'macs', 9., (0, 1)),
    Cost('block', 'conv2d', 'macs', 9., (1, 2), (12, )),
    Cost('mix', 'matmul', 'macs', 5., (1, 1)),
    Cost('out', 'activation', 'traffic', 64., (1, ))
]
RESOURCE = ResourceModel(AXES, COSTS, LAYOUT)


def product(first, second, base):
    return base * (.2 + first) * (.1 + second)


@pytest.fixture
def table():
    grid = (.25, .5, 1.)
    content = dict(
        format=FORMAT,
        version=1,
        layers=layers_of(RESOURCE),
        setting=dict(
            backend='torch',
            threads=1,
            device='cpu',
            precision='fp32',
            processor='mine',
            versions={}),
        input=[[1, 3, 8, 8]],
        grid=list(grid),
        parts={
            '0 stem': [[product(1., b, 2.) for b in grid] for _ in grid],
            '1 block': [[product(a, b, 7.) for b in grid] for a in grid]
        },
        coefficients=dict(base=.5, scale=1.5, rest=.01, traffic=.001))
    return dict(content, checksum=checksum(content))


@pytest.fixture
def saved(table, tmp_path):

    def save(**changes):
        path = tmp_path / 'table.json'
        path.write_text(json.dumps({**table, **changes}))
        return path

    return save


def by_hand(a, b, mask):
    """Kept counts a of 8, b of 4 steps of 2 channels."""
    stem, block = product(1., a / 8, 2.), mask * product(a / 8, b / 4, 7.)
    return .5 + 1.5 * (stem + block) + .01 * 5 * a * a + .001 * 64 * a


@pytest.mark.parametrize('fit, held_out, told', [
    (dict(measured=[1.], median_error=.15), {}, None),
    (dict(measured=[1.14], median_error=.1), {}, None),
    ({}, dict(predicted=[], measured=[], median_error=.02), None),
    (dict(measured=[1.], median_error=.27, largest_error=.73), {},
     r'off by 27% \(median, 73% at most\) from the subnets that it was fitted'
     ),
    (dict(measured=[1.2], median_error=.1), {},
     r'gives the whole network ([\d.]+) ms, which took ([\d.]+) ms'),
    ({}, dict(predicted=[], measured=[], median_error=.2, error_95=.4),
     r'off by 20% \(median, 40% at most\) from .* it was checked with'),
])
def test_a_poor_table_is_told_with_its_figures(table, fit, held_out, told):
    resource = with_latency(RESOURCE, table, 'a')
    whole = resource.supernet('latency')
    assert whole == pytest.approx(by_hand(8, 4, 1))
    fit = {**fit, 'measured': [x * whole for x in fit.get('measured', [])]}
    text = poor_fit(resource, dict(table, fit=fit, held_out=held_out))
    if told is None:
        assert text == ''
        return
    found = re.search(told, text)
    assert found and 'Measure again' in text, text
    if found.groups():
        assert [float(x)
                for x in found.groups()] == pytest.approx([whole, 1.2 * whole],
                                                          rel=1e-3)


def test_milliseconds_have_their_unit(saved):
    report = preflight(
        SimpleNamespace(
            resource=latency_of(RESOURCE, saved(), ['latency']),
            layout=LAYOUT,
            units=LAYOUT.units,
            full_width=[],
            batch_size=1,
            input_shape=(),
            training='',
            proof=None), '900ms', 'latency')
    assert re.search(r"'900ms' is 900 ms, above the supernet's [\d.]+ ms:",
                     report.problem)
    assert re.search(r'latency +supernet [\d.]+ ms, smallest [\d.]+ ms',
                     report.text())


def test_milliseconds_by_hand(saved):
    resource = latency_of(RESOURCE, saved(), ['latency'])
    assert resource.metrics == ('macs', 'traffic', 'latency') or \
        resource.metrics == ('macs', 'latency')
    counts = torch.tensor([[8, 4, 2], [5, 3, 1], [2.3, 1.7, 0]]).double()
    masks = torch.ones(3, LAYOUT.E).double()
    masks[:, 12] = torch.tensor([1., .4, 0.])
    found = resource(counts, masks, 'latency')
    expected = [by_hand(8, 4, 1), by_hand(5, 3, .4), by_hand(2.3, 1.7, 0)]
    assert found.tolist() == pytest.approx(expected)
    assert resource.supernet('latency') == pytest.approx(expected[0])
    assert resource.minimum('latency') == pytest.approx(by_hand(1, 1, 0))


def test_gradient_by_finite_differences(saved):
    resource = latency_of(RESOURCE, saved(), ['latency'])
    counts = torch.tensor([5.3, 2.1, 1.]).double().requires_grad_()
    masks = torch.full((LAYOUT.E, ), .6).double().requires_grad_()
    slopes = torch.autograd.grad(
        resource(counts, masks, 'latency'), (counts, masks))
    assert slopes[0][:2].tolist() == pytest.approx([
        (by_hand(5.3 + 1e-5, 2.1, .6) - by_hand(5.3 - 1e-5, 2.1, .6)) / 2e-5,
        (by_hand(5.3, 2.1 + 1e-5, .6) - by_hand(5.3, 2.1 - 1e-5, .6)) / 2e-5
    ])
    assert float(slopes[1][12]) == pytest.approx(
        by_hand(5.3, 2.1, 1) - by_hand(5.3, 2.1, 0))


@pytest.mark.parametrize('changes, message', [
    (dict(coefficients=dict(base=9.)), 'checksum: it was edited'),
    (dict(coefficients=None), 'not finished: run the same command'),
    (dict(format='subnet'), "format is not 'dms_razor.latency'"),
])
def test_a_damaged_table_is_one_clear_error(saved, changes, message):
    with pytest.raises(LatencyError, match=message):
        read_table(saved(**changes))


def test_no_table(saved, tmp_path):
    with pytest.raises(LatencyError, match='no table of.*measure_latency.py'):
        read_table(tmp_path / 'none.json')
    half = saved()
    half.write_text(half.read_text()[:200])
    with pytest.raises(LatencyError, match='damaged.*measure_latency.py'):
        read_table(half)
    with pytest.raises(LatencyError, match='needs latency_table=.*measure_'):
        latency_of(RESOURCE, None, ['latency'])
    with pytest.raises(LatencyError, match='has no effect'):
        latency_of(RESOURCE, saved(), ['macs'])


def test_the_table_of_another_network(saved):
    other = ResourceModel(
        AXES,
        [*COSTS[:2],
         Cost('mix', 'matmul', 'macs', 6., (1, 1)), COSTS[3]], LAYOUT)
    with pytest.raises(
            LatencyError, match='another network.*1 of its.*"mix".*measure_'):
        latency_of(other, saved(), ['latency'])
