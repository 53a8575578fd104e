# Copyright (c) dms_razor contributors. All rights reserved.
import copy

import pytest
import torch
from equality import difference, keeps
from small_nets import IMAGES, Block, build, conv
from torch import nn

from dms_razor.trace import trace


@pytest.fixture
def space():
    """Two widths, one of four groups, and three blocks."""
    net = build(
        lambda net, x: net.out(net.grouped(net.blocks(x))),
        blocks=nn.Sequential(Block(), Block(), Block()),
        grouped=conv(16, 16, groups=4),
        out=conv(16, 8))
    return trace(net, IMAGES, units={'blocks.*.conv1': dict(fixed=True)})


def test_count(space):
    assert space.count('width') == (3, 16 + 16 + 8)
    assert space.count('depth') == (1, 3)
    assert space.count() == (4, 43)
    assert space.count('heads') == (0, 0)


def test_producers_name_layers_and_types(space):
    assert space.producers['stem'] == [('stem', 'Conv2d'),
                                       ('blocks.0.conv2', 'Conv2d'),
                                       ('blocks.1.conv2', 'Conv2d'),
                                       ('blocks.2.conv2', 'Conv2d')]
    assert space.units[0].members == tuple(
        path for path, _ in space.producers['stem'])


def test_inputs_are_remembered(space):
    assert space.input_shape == (2, 3, 8, 8)
    assert space.example_inputs[0] is IMAGES


def test_random_keeps_are_subnets(space):
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        keep = space.random_selection(generator, (.25, 1.))
        for number, unit in enumerate(space.units):
            rows = keep[space.layout.slice_of(number)].view(unit.groups, -1)
            counts = rows.sum(1).unique().tolist()
            assert len(counts) == 1
            assert counts[0] in (max(round(unit.size / 4),
                                     unit.least), unit.size)
    again = space.random_selection(torch.Generator().manual_seed(seed),
                                   (.25, 1.))
    assert torch.equal(again, keep)


def test_a_space_holds_for_copies_of_its_network(space):
    net = build(
        lambda net, x: net.out(net.grouped(net.blocks(x))),
        blocks=nn.Sequential(Block(), Block(), Block()),
        grouped=conv(16, 16, groups=4),
        out=conv(16, 8))
    keep = keeps(space, 1)[-1]
    for twin in (net, copy.deepcopy(net), net.double()):
        inputs = IMAGES.to(next(twin.parameters()).dtype)
        assert difference(twin, copy.deepcopy(space), keep, inputs) < 1e-5


def test_the_old_name_of_a_random_selection(space):
    with pytest.warns(DeprecationWarning, match='random_selection'):
        old = space.random_keep(torch.Generator().manual_seed(3), (.5, ))
    new = space.random_selection(torch.Generator().manual_seed(3), (.5, ))
    assert torch.equal(old, new)
