# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers alone cost what they cost in the network, at every width."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor.counting import count_macs
from dms_razor.network import run_model
from dms_razor.timing.parts import COPIES, Part, parts_of
from dms_razor.trace import trace


class Mixed(nn.Module):
    """Plain, strided, depthwise and grouped layers, one that runs twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False)
        self.grouped = nn.Conv2d(16, 24, 1, groups=4)
        self.wide = nn.Conv2d(24, 32, 3, dilation=2, padding=2)
        self.twice = nn.Linear(32, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.wide(F.relu(self.grouped(self.deep(F.relu(self.stem(x))))))
        x = F.relu(self.twice(F.relu(self.twice(x.mean((2, 3))))))
        return self.head(x)


@pytest.fixture(scope='module')
def found():
    torch.manual_seed(0)
    net, images = Mixed(), torch.randn(2, 3, 16, 16)
    space = trace(net, images, check=False)
    return net, images, parts_of(net, space, (images, ), run_model)


def test_which_layers_are_parts(found):
    _, _, parts = found
    assert [name.partition(' ')[2]
            for name in parts] == ['stem', 'deep', 'wide', 'head']
    moves = {name.split()[1]: part.moves for name, part in parts.items()}
    assert moves == dict(
        stem=(False, True),
        deep=(True, False),
        wide=(True, True),
        head=(True, False))


def test_a_part_at_full_width_costs_what_the_layer_costs(found):
    net, images, parts = found
    macs = count_macs(net, images).by_module
    for name, part in parts.items():
        module, x = part.build(*part.widths)
        assert count_macs(module, x).total == COPIES * macs[name.split()[1]]


@pytest.mark.parametrize('name, widths', [('stem', (3, 8)), ('deep', (4, 4)),
                                          ('wide', (6, 4)), ('head', (16, 5))])
@pytest.mark.parametrize('copies', [1, COPIES])
def test_a_narrower_part(found, name, widths, copies):
    _, _, parts = found
    part, = (p for n, p in parts.items() if n.split()[1] == name)
    full = count_macs(*part.build(*part.widths, 1)).total
    narrow = count_macs(*part.build(*widths, copies)).total
    shares = [a / b for a, b in zip(widths, part.widths)]
    of = shares[0] if part.depthwise else shares[0] * shares[1]
    assert narrow == full * of * copies


def test_next_to_nothing_is_returned(found):
    """Of images one position, of features one: what a network hands on from
    layer to layer is not copied out either."""
    _, _, parts = found
    for name, part in parts.items():
        module, x = part.build(*part.widths)
        flat = not part.options
        shape = (2, 1) if flat else (2, part.widths[1], 1, 1)
        assert [y.shape for y in module(x)] == [shape] * COPIES, name


@pytest.mark.parametrize('step, widths', [
    (1, [7, 15, 31, 47, 64]),
    (8, [8, 16, 32, 48, 64]),
    (24, [16, 16, 40, 40, 64]),
    (4, [8, 16, 32, 48, 64]),
])
def test_widths_that_subnets_have(step, widths):
    """Where any number may stay, no multiples of 4 but the full width."""
    part = Part((3, 64), (False, True), (1, step), (1, 3, 8, 8), False, (),
                False)
    grid = (.125, .25, .5, .75, 1.)
    assert [part.width(1, share) for share in grid] == widths
    assert part.across(grid, 0) == [3]
    assert part.points(grid) == [(3, w) for w in sorted(set(widths))]


class Joined(nn.Module):
    """Widths in steps: a concatenation, and channels times positions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 16, 1) for _ in range(2))
        self.third = nn.Conv2d(32, 8, 1)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = torch.cat((self.first(x), self.second(x)), 1)
        return self.head(F.relu(self.third(x)).flatten(1))


def test_in_what_steps_a_width_changes():
    net, images = Joined(), torch.zeros(1, 3, 4, 4)
    space = trace(
        net,
        images,
        units=dict(first=dict(divisor=8), second=dict(divisor=4)),
        check=False)
    parts = parts_of(net, space, (images, ), run_model)
    assert {
        name.split()[1]: part.steps
        for name, part in parts.items()
    } == dict(
        first=(1, 8), second=(1, 4), third=(4, 1), head=(16, 1))
