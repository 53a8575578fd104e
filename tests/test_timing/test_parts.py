# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers alone cost what they cost in the network, at every width."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor.counting import count_macs
from dms_razor.network import run_model
from dms_razor.timing.parts import COPIES, parts_of
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
        module, x = part.build(1., 1.)
        assert count_macs(module, x).total == COPIES * macs[name.split()[1]]


@pytest.mark.parametrize('name, share', [('stem', .5), ('deep', .25),
                                         ('wide', .125), ('head', .5)])
def test_a_narrower_part(found, name, share):
    _, _, parts = found
    part, = (p for n, p in parts.items() if n.split()[1] == name)
    full, narrow = (
        count_macs(*part.build(*(s if moves else 1. for moves in part.moves)))
        for s in (1., share))
    assert narrow.total == full.total * share**sum(part.moves)
    assert len(part.points((.5, 1.))) == 2**sum(part.moves)
