# Copyright (c) dms_razor contributors. All rights reserved.
"""Resource metrics from outside the package, searched under."""
import json

import pytest
import torch
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor.core import METRICS, Cost, Metric


def activations(builder):
    """Numbers that the layers give: axis 0 of each weight, on 8 x 8."""
    return [
        Cost(cost.name, 'output', 'activations', 64., cost.axes[:1],
             cost.blocks) for cost in builder.params()
        if cost.name.endswith('.weight')
    ]


def delay(layout, counts, masks):
    """Units run one after the other, blocks only where they stay."""
    width = (~layout.is_depth) * (1 + (counts / layout.size).square())
    return width.sum(-1) + .5 * (masks * layout.depth_elements).sum(-1)


@pytest.fixture(autouse=True)
def registered():
    METRICS.register('activations')(
        Metric('activations', 'activations', activations))
    METRICS.register('delay')(Metric('delay', 'delay', value=delay))
    yield
    del METRICS['activations'], METRICS['delay']


@pytest.mark.parametrize('metric', ['activations', 'delay'])
def test_search_under_it_and_export(metric, tmp_path):
    net = plain_net()
    search = make_search(
        net, metric=metric, target=.8, width_only_steps=5, loss_weight=1.)
    report = search.preflight()
    assert set(report.supernet) == {'macs', 'params', 'activations', 'delay'}
    assert report.steps > 0 and metric in report.text()
    assert json.loads(report.to_json())[metric]['target'] == search.target
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, plain_data(), 35)
    assert search.bank.depth_frozen
    assert search.current() < .95 * search.resource.supernet(metric)

    export = search.export(tmp_path / 'subnet', picture=False)
    cost = search.resource(search.project().double(),
                           search.keep().double(), metric).item()
    assert .95 * search.target <= cost <= search.target
    assert export.manifest.macs['counted'] < report.supernet['macs']


def test_a_function_is_the_metric_it_computes():
    search = make_search(plain_net(), metric='delay')
    widths = [unit for unit in search.space.units if unit.kind == 'width']
    assert search.resource.supernet('delay') == 2 * len(widths) + 1.5
    assert search.resource.minimum('delay') == sum(
        1 + (unit.least / unit.size)**2 for unit in widths)
    assert search.current(metric='delay') == 2 * len(widths) + 1.5


def test_a_metric_registered_after_the_trace_is_told():
    search = make_search(plain_net())
    METRICS.register('late')(Metric('late', 'late', lambda builder: []))
    try:
        with pytest.raises(ValueError, match='no costs in "late".*before the'):
            search.current(metric='late')
        with pytest.raises(ValueError, match='no costs in "late"'):
            make_search(plain_net(), metric='late')
    finally:
        del METRICS['late']


def test_a_metric_has_costs_or_a_value():
    for settings in (dict(), dict(costs=activations, value=delay)):
        with pytest.raises(ValueError, match='"x" needs either costs or'):
            Metric('x', 'x', **settings)
