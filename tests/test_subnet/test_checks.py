# Copyright (c) dms_razor contributors. All rights reserved.
"""The closed form against the count, layer by layer."""
import pytest
import torch
from torch import nn

from dms_razor.counting import Count, count_macs
from dms_razor.errors import SubnetError
from dms_razor.subnet.checks import check_counts, costs_by_name
from dms_razor.trace import trace


@pytest.fixture
def traced():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1),
        nn.Flatten(), nn.Linear(4 * 16, 5))
    return model, trace(model, torch.randn(2, 3, 4, 4))


def test_costs_by_name(traced):
    """Two of six and three of four channels, by hand."""
    _, space = traced
    selection = torch.tensor([1, 0, 0, 1, 0, 0, 1, 1, 0, 1]).bool()
    assert costs_by_name(space, selection, 'macs') == {
        '0': 16 * 27 * 2,
        '2': 16 * 2 * 3,
        '4': 3 * 16 * 5
    }
    assert costs_by_name(space, selection, 'macs', 2)['2'] == 2 * 16 * 6
    params = costs_by_name(space, selection, 'params', 1)
    assert params['0.weight'] == 54 and params['2.bias'] == 3


def test_what_was_counted_at_trace_time_holds(traced):
    model, space = traced
    check_counts(model, space)
    count = count_macs(model, (torch.randn(2, 3, 4, 4), ))
    assert space.counted['macs'].total == count.total
    check_counts(model, space, counts=dict(macs=count))


def test_a_difference_names_its_layers(traced):
    model, space = traced
    by_module = dict(space.counted['macs'].by_module)
    by_module['2'] += 1
    wrong = Count(sum(by_module.values()), by_module, 'a counter')
    with pytest.raises(SubnetError) as told:
        check_counts(model, space, counts=dict(macs=wrong))
    whole = 2 * 16 * 24
    assert f': 2 has {whole + 1:,} and should have {whole:,}.' in str(
        told.value)
    assert 'a counter counts' in str(told.value)
