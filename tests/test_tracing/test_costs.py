# Copyright (c) dms_razor contributors. All rights reserved.
"""The closed form, written down by hand for one network."""
import pytest
import torch
from equality import assert_true, closed_form, keep_of
from small_nets import Block, build, conv
from torch import nn

from dms_razor.trace import trace
from dms_razor.tracing.costs import _counted

IMAGES = torch.randn(1, 3, 8, 8)


def net():
    """A stage of two blocks, a depthwise and a grouped convolution."""
    none = nn.Identity()
    return build(
        lambda net, x: net.out(net.grouped(net.deep(net.blocks(x)))),
        blocks=nn.Sequential(Block(act=none), Block(act=none)),
        deep=conv(16, 16, groups=16),
        grouped=conv(16, 32, groups=4, bias=False),
        out=conv(32, 8, 1))


def by_hand(c, inner, g, o, blocks):
    """MACs and parameters for channels c of the stream (per group c / 4),
    inner ones of each block, g of ``grouped`` per group, o of ``out``."""
    macs = 64 * (27 * c + 9 * c + 9 * 4 * (c // 4) * g + 4 * g * o) + 5 * o
    params = 28 * c + 10 * c + 9 * (c // 4) * 4 * g + (4 * g + 1) * o
    params += 5 * o + 5
    for there, i in zip(blocks, inner):
        macs += there * 64 * 9 * 2 * c * i
        params += there * (9 * c * i + i + 9 * i * c + 2 * c)
    return macs, params


@pytest.mark.parametrize('most', [3, 2**40])
def test_rows_are_counted_as_pytorch_counts_them(most):
    """With numbers that fit into one, and that do not."""
    rows = torch.randint(3, (200, 2)) * (most // 3)
    found, entries = torch.unique(rows, dim=0, return_counts=True)
    assert _counted(rows) == (found.tolist(), entries.tolist())


def test_the_closed_form_by_hand():
    space = trace(net(), IMAGES)
    counts = dict(stem=3, grouped=2, out=5, blocks=1)
    counts.update({'blocks.0.conv1': 7, 'blocks.1.conv1': 11})
    keep = keep_of(space, lambda unit: counts[unit.name])
    there = [bool(keep[b.element]) for b in space.blocks]
    assert closed_form(space, keep) == by_hand(12, (7, 11), 2, 5, there)
    full = keep_of(space, lambda unit: unit.size)
    assert closed_form(space, full) == by_hand(16, (16, 16), 8, 8, (1, 1))
    assert space.resource.supernet() == by_hand(16, (16, 16), 8, 8, (1, 1))[0]
    least = by_hand(4, (1, 1), 1, 1, (0, 0))
    assert space.resource.minimum('macs') == least[0]
    assert space.resource.minimum('params') == least[1]


def test_costs_name_layers_and_tensors():
    space = trace(net(), IMAGES)
    macs = [c.name for c in space.resource.costs_of('macs')]
    assert macs == [
        'stem', 'blocks.0.conv1', 'blocks.0.conv2', 'blocks.1.conv1',
        'blocks.1.conv2', 'deep', 'grouped', 'out', 'head'
    ]
    params = [c.name for c in space.resource.costs_of('params')]
    assert params == [name for name, _ in net().named_parameters()]


def test_what_is_called_more_often_costs_more():
    once = build(
        lambda net, x: net.out(net.same(x)),
        same=conv(16, 16),
        out=conv(16, 8))
    twice = build(
        lambda net, x: net.out(net.same(net.same(x))),
        same=conv(16, 16),
        out=conv(16, 8))
    a, b = (trace(m, IMAGES).resource for m in (once, twice))
    assert b.supernet('macs') - a.supernet('macs') == 64 * 9 * 16 * 16
    assert b.supernet('params') == a.supernet('params')


def test_unused_parameters_count_as_parameters():
    unused = build(
        lambda net, x: net.out(x), more=conv(16, 16), out=conv(16, 8))
    assert_true(unused, IMAGES)


def test_shared_parameters_count_once():
    shared = conv(16, 16)
    assert_true(
        build(
            lambda net, x: net.out(net.a(net.b(x))),
            a=shared,
            b=shared,
            out=conv(16, 8)), IMAGES)


def test_nested_blocks():
    # A layer in a block inside a block is there if both are.
    class Outer(nn.Module):

        def __init__(self):
            super().__init__()
            self.first = conv(16, 12)
            self.inner = nn.Sequential(
                Block(12, act=nn.Identity()), Block(12, act=nn.Identity()))
            self.last = conv(12, 16)

        def forward(self, x):
            return x + self.last(self.inner(self.first(x)))

    assert_true(
        build(
            lambda net, x: net.out(net.blocks(x)),
            blocks=nn.Sequential(Outer(), Outer()),
            out=conv(16, 8)), IMAGES)


def test_a_flattened_input_counts_its_positions():
    flat = build(
        lambda net, x: net.out(x.flatten(1)), out=nn.Linear(16 * 64, 8))
    space = trace(flat, IMAGES)
    keep = keep_of(space, lambda unit: 5)
    macs, params = closed_form(space, keep)
    assert macs == 64 * 27 * 5 + 5 * 64 * 5 + 5 * 5
    assert params == 28 * 5 + (5 * 64 + 1) * 5 + 30
