# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: methods besides the search."""
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dms_razor import Search
from tools.compare.experiment import ExperimentError
from tools.compare.methods import METHODS, evolution, torch_pruning
from tools.compare.methods.job import cost, layers, params


def test_cost_and_layers_by_hand():
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 2))
    example = torch.zeros(1, 3, 4, 4)
    assert cost(net, example) == 4 * 5 * 27 + 40
    assert params(net) == cost(net, example, 'params') == 140 + 10 + 42
    assert layers(net) == {'0': 5, '3': 2}


def job(amount, **options):
    return SimpleNamespace(
        row=SimpleNamespace(name='tp', options=options),
        amount=amount,
        what='tp:',
        images=SimpleNamespace(example=torch.zeros(1, 10), classes=2),
        experiment=SimpleNamespace(metric='macs'))


@pytest.mark.parametrize('amount, width', [(100, 10), (95, 9), (44, 4)])
def test_the_largest_network_within_the_budget(amount, width):
    """A ratio of a layer of ten: its steps are whole tenths."""

    def pruned(ratio):
        return nn.Linear(10, 10 - int(10 * ratio))

    found = torch_pruning._largest(pruned, job(amount))
    assert found.out_features == width


def test_room_in_the_budget_is_filled_layer_by_layer():
    """Ten layers of ten: one ratio steps by ten, the layers by one."""

    def pruned(ratio, other=0., some=()):
        kept = [10 - int(10 * ratio)] * 10
        for layer in some:
            kept[layer] = 10 - int(10 * other)
        return nn.Linear(10, sum(kept), bias=False)

    assert torch_pruning._largest(pruned, job(570)).out_features == 50
    assert torch_pruning._largest(pruned, job(570), 10).out_features == 57


def test_a_budget_that_no_ratio_meets():
    with pytest.raises(ExperimentError, match='no pruning ratio .*raise'):
        torch_pruning._largest(lambda ratio: nn.Linear(10, 10), job(50))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch_pruning', None)
    with pytest.raises(ExperimentError, match='pip install torch-pruning'):
        METHODS.find('torch_pruning')(job(50))


@pytest.mark.parametrize('options, message', [
    (dict(importance='l1'), "'l1': choose one of magnitude, taylor, random"),
    (dict(scope='all'), "'all': choose one of local, global"),
])
def test_options_are_checked(options, message):
    with pytest.raises(ExperimentError, match=message):
        METHODS.find('torch_pruning')(job(50, **options))


def test_copies_have_gradients_and_outputs_stay():
    net = nn.Sequential(nn.Linear(10, 3), nn.Linear(3, 2))
    net(torch.ones(1, 10)).sum().backward()
    copied = torch_pruning._copy(net)
    for a, b in zip(net.parameters(), copied.parameters()):
        assert a is not b and torch.equal(a.grad, b.grad)
    assert torch_pruning._outputs(net, 2) == [net[1]]


def test_one_shot_trains_whole_and_random_networks_of_the_budget(monkeypatch):
    """MACs of what each step of the supernet ran, by hand."""
    net = nn.Sequential(
        nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(),
        nn.Linear(40, 2))
    search = Search(net, torch.randn(1, 8), '50%')
    macs = []

    def train(network, *_, watch):
        for step in range(6):
            first, second = (
                int(masks.sum()) for masks in search.bank.current.split(40))
            macs.append(8 * first + first * second + 2 * second)
            watch(step, None)

    monkeypatch.setattr(evolution, 'train', train)
    everything = SimpleNamespace(
        images=None, recipe=None, search_data=0, machine=None, what='', seed=0)
    evolution._train_subnets(everything, net, search)
    assert macs[::2] == [2000] * 3
    assert all(990 <= other <= 1000 for other in macs[1::2])
