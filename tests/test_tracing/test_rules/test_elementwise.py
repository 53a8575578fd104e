# Copyright (c) dms_razor contributors. All rights reserved.
"""Sums, products and activations: what meets what."""
import pytest
import torch
from small_nets import check, conv
from torch import nn
from torch.nn import functional as F

OUT = dict(out=conv(16, 8))
BOTH = {'stem': 16, 'out': 8}


@pytest.mark.parametrize(
    'middle', [
        lambda x: F.gelu(x) - F.hardswish(x).clamp(max=1.),
        lambda x: 2**x.tanh() + 1 / (1 + x.abs()) - (3 - x)**2,
        lambda x: torch.where(x > .1, x, -x) * ~(x > .4),
        lambda x: x.lerp(x.square(), .3).maximum(x / 2),
        lambda x: F.dropout(x.masked_fill(x < .2, 0.), training=False),
        lambda x: x.add_(1).mul_(x).relu_(),
        lambda x: torch.addcmul(x, x, x, value=.1) * ((x > 0) | (x > 1)),
        lambda x: torch.ops.aten.relu(x) + torch.ops.aten.sigmoid.default(x),
    ],
    ids=[
        'activations', 'reflected', 'conditions', 'blends', 'masks',
        'in place', 'logic', 'aten'
    ])
def test_entry_by_entry(middle):
    check(lambda net, x: net.out(middle(x)), BOTH, **OUT)


def test_what_is_added_shares_a_width():
    check(
        lambda net, x: net.out(
            net.a(x) * net.b(x).sigmoid() + net.c(x.mean(
                (2, 3)))[:, :, None, None]), {
                    'stem': 16,
                    'a': 12,
                    'out': 8
                },
        a=conv(16, 12),
        b=conv(16, 12),
        c=nn.Linear(16, 12),
        out=conv(12, 8))


@pytest.mark.parametrize('shape', [(1, 16, 1, 1), (16, 1, 1), (16, 8, 8)])
def test_parameters_and_buffers_as_wide_as_channels_are_cut(shape):
    space = check(
        lambda net, x: net.out(x * net.scale + net.shift),
        BOTH,
        scale=nn.Parameter(torch.rand(shape)),
        shift=torch.rand(shape),
        **OUT)
    axis = len(shape) - 3
    for name in ('scale', 'shift'):
        site, = space.slice_sites[name]
        assert (site.axis, len(site.index)) == (axis, 16)


@pytest.mark.parametrize('scale', [
    nn.Parameter(torch.rand(1)),
    nn.Parameter(torch.rand(())),
    nn.Parameter(torch.rand(1, 1, 1, 1)),
    torch.rand(1, 8, 1),
])
def test_one_number_for_all_channels_ties_nothing(scale):
    check(
        lambda net, x: net.out(x + net.scale * net.side(x)),
        BOTH,
        scale=scale,
        side=conv(16, 16),
        **OUT)


def test_weights_of_a_fusion_tie_nothing():

    def middle(net, x):
        weights = net.weights.relu()
        weights = weights / (weights.sum() + 1e-4)
        return net.out(weights[0] * x + weights[1] * net.side(x))

    check(
        middle,
        BOTH,
        weights=nn.Parameter(torch.rand(2)),
        side=conv(16, 16),
        **OUT)


@pytest.mark.parametrize('gate', [
    lambda x, gate: x * gate,
    lambda x, gate: gate + x,
    lambda x, gate: x * gate.expand_as(x),
    lambda x, gate: x * gate.expand(-1, x.shape[1], -1, -1),
    lambda x, gate: torch.where(gate > .5, x, gate),
])
def test_a_gate_of_one_channel_leaves_the_others_free(gate):
    check(
        lambda net, x: net.out(gate(x,
                                    net.gate(x).sigmoid())),
        BOTH, {'gate': 'applies it to many channels'},
        gate=conv(16, 1),
        **OUT)


@pytest.mark.parametrize('constant', [
    lambda x: torch.rand(16, 1, 1),
    lambda x: torch.rand(x.shape),
    lambda x: torch.rand(2, 16, 8, 8),
])
def test_a_constant_as_wide_as_channels_fixes_them(constant):
    check(lambda net, x: net.out(x + constant(x)), {'out': 8},
          {'stem': 'constant tensor of fixed width'}, **OUT)


@pytest.mark.parametrize('constant', [
    lambda x: torch.ones(8, 8),
    lambda x: torch.ones(1, 1, 1, 1).type_as(x),
    lambda x: x.new_full((2, 1, 8, 1), 2.),
    lambda x: torch.arange(8.).to(x),
])
def test_constants_over_positions_are_harmless(constant):
    check(lambda net, x: net.out(x * constant(x)), BOTH, **OUT)


@pytest.mark.parametrize('window', [
    nn.Parameter(torch.rand(8, 1)),
    torch.rand(1, 1, 8, 8),
])
def test_a_window_over_positions_ties_nothing(window):
    check(lambda net, x: net.out(x * net.window), BOTH, window=window, **OUT)


def test_channels_across_channels_stay():

    def middle(net, x):
        rows = net.rows(x.mean((2, 3)))[:, :, None, None]
        columns = net.columns(x.mean((2, 3)))[:, None, :, None]
        return net.out((rows * columns).mean((1, 3)))

    reason = 'across other channels'
    check(
        middle, {
            'stem': 16,
            'out': 8
        },
        dict(rows=reason, columns=reason),
        rows=nn.Linear(16, 6),
        columns=nn.Linear(16, 7),
        out=nn.Linear(7, 8))


@pytest.mark.parametrize('slopes', [1, 16])
def test_prelu(slopes):
    space = check(
        lambda net, x: net.out(net.act(x - .3)),
        BOTH,
        act=nn.PReLU(slopes),
        **OUT)
    attributes = space.attributes.get('act', {})
    assert set(attributes) == ({'num_parameters'} if slopes > 1 else set())


def test_copying_into_an_activation_ties_both():
    check(
        lambda net, x: net.out(torch.zeros_like(x).copy_(net.side(x))),
        BOTH,
        side=conv(16, 16),
        **OUT)


def test_copying_into_a_constant_keeps_the_channels():

    def middle(net, x):
        y = torch.zeros(2, 16, 8, 8)
        y[:, :].copy_(net.side(x))
        return net.out(y) + net.other(x)

    check(
        middle, {
            'stem': 16,
            'out': 8
        }, {'side': 'constant tensor of fixed width'},
        side=conv(16, 16),
        other=conv(16, 8),
        **OUT)


def test_adding_to_a_slice_ties_what_is_added():
    check(
        lambda net, x: net.out(net.add(x)),
        dict(BOTH, **{'add.more': 8}),
        add=AddToHalf(),
        **OUT)


class AddToHalf(nn.Module):

    def __init__(self):
        super().__init__()
        self.more, self.side = conv(16, 16), conv(16, 8)

    def forward(self, x):
        y = self.more(x)
        n = y.shape[1] // 2
        y[:, :n] += self.side(x)
        y[:, n:].mul_(self.side(x).sigmoid())
        return y


def test_writing_into_a_buffer_keeps_the_channels():
    check(
        lambda net, x: net.out(x) + net.out(net.memory.copy_(net.side(x))),
        {'out': 8}, {
            'stem': 'writes them into a buffer',
            'side': 'writes them into a buffer'
        },
        memory=torch.zeros(2, 16, 8, 8),
        side=conv(16, 16),
        **OUT)
