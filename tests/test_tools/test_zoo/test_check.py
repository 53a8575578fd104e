# Copyright (c) dms_razor contributors. All rights reserved.
"""The fast part of the coverage table, and what makes a row."""
import pytest
import torch
from torch import nn

from dms_razor.trace import trace
from tools.zoo.backbones import FAST, build_case
from tools.zoo.check import Pooled, check_network, randomise, removable_shares


@pytest.mark.parametrize('name', FAST)
def test_fast_rows_are_equal(name):
    row = check_network(name, *build_case(name))
    assert not row.problem and row.equal and row.difference < 1e-5
    assert row.train_difference < 1e-9
    assert row.share > .99 and row.width_share > .9
    assert list(row.fixed) == ['output of the network']


class Wrong(nn.Module):
    """Channels counted in code that no tracer sees: half of what is there."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.flag = torch.zeros(1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * (x.shape[1] / 8))


def test_a_network_that_cannot_be_pruned_truly_names_what_stays():
    image = torch.randn(1, 3, 4, 4)
    row = check_network('wrong', Pooled(Wrong(), image), image)
    assert row.equal and any('first' in module
                             for modules in row.fixed.values()
                             for module in modules)


class Slow(nn.Module):
    """In training it counts its channels, which nobody has seen."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.first(x)
        if self.training and x.shape[0] == 2:
            x = x * (x.shape[1] / 8)
        return self.last(x)


def test_a_difference_in_train_mode_alone_is_seen(monkeypatch):
    image = torch.randn(1, 3, 4, 4)
    net = Pooled(Slow(), image)
    assert check_network('slow', net, image).equal  # the proof fixes it
    monkeypatch.setattr('tools.zoo.check.trace',
                        lambda *args: trace(*args, check=False))
    row = check_network('slow', net, image)
    assert row.difference < 1e-6 and row.train_difference > 1e-2
    assert row.problem == 'supernet and subnet differ'


def test_a_failure_is_in_the_row_not_raised():
    row = check_network('none', nn.Sequential(nn.ReLU(), nn.Linear(2, 2)),
                        torch.randn(1, 3))
    assert not row.equal and 'RuntimeError' in row.problem


def test_shares_of_parameters():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 5, 1, bias=False),
        nn.Flatten(), nn.Linear(5 * 4, 2, bias=False))
    units = {'1': dict(fixed=True)}
    space = trace(randomise(model), torch.randn(1, 3, 4, 4), units=units)
    shares = removable_shares(model, space)
    expected = (27 * 8 + 8 * 5) / (27 * 8 + 40 + 40)
    assert shares['share'] == shares['width_share'] == pytest.approx(expected)
