# Copyright (c) dms_razor contributors. All rights reserved.
"""Splits and slices, with numbers from the shape and from the code."""
import pytest
import torch
from equality import assert_true
from small_nets import IMAGES, build, check, conv, widths
from torch import nn
from torch.nn import functional as F


def halves(net, a, b):
    """One half through a layer, both joined again."""
    return net.out(torch.cat([net.side(a), b], 1))


def half(x):
    """Half the channels, as the shape says."""
    return x.shape[1] // 2


@pytest.mark.parametrize(
    'middle', [
        lambda net, x: halves(net, *x.chunk(2, 1)),
        lambda net, x: halves(net, *x.split(half(x), dim=1)),
        lambda net, x: halves(net, *torch.tensor_split(x, 2, dim=1)),
        lambda net, x: halves(net, x[:, :half(x)], x[:, half(x):]),
        lambda net, x: halves(net, x.narrow(1, 0, half(x)),
                              x.narrow(1, half(x), half(x))),
    ],
    ids=['chunk', 'split', 'tensor_split', 'slices', 'narrow'])
def test_halves_are_two_groups_of_one_width(middle):
    check(
        middle, {
            'stem': (8, 2),
            'side': 8,
            'out': 8
        },
        side=conv(8, 8),
        out=conv(16, 8))


class Splitting(nn.Module):
    """A module that knows the size of the pieces it cuts off."""

    def __init__(self, cut):
        super().__init__()
        self.cut, self.piece = cut, 8
        self.inside = conv(16, 16)
        self.side = conv(8, 8)

    def forward(self, x):
        """16 channels to 16."""
        a, b = self.cut(F.relu(self.inside(x)), self.piece)
        return torch.cat([self.side(a), b], 1)


@pytest.mark.parametrize(
    'cut', [
        lambda x, n: x.split(n, 1),
        lambda x, n: x.split([n, n], 1),
        lambda x, n: (x[:, :n], x[:, n:]),
        lambda x, n: (x[:, :-n], x[:, -n:]),
    ],
    ids=['split', 'sizes', 'slices', 'from the end'])
def test_a_number_of_the_module_follows_the_pieces(cut):
    space = check(
        lambda net, x: net.out(net.block(x)), {
            'stem': 16,
            'block.inside': (8, 2),
            'block.side': 8,
            'out': 8
        },
        block=Splitting(cut),
        out=conv(16, 8))
    assert set(space.attributes['block']) == {'piece'}


def test_a_number_in_the_code_cannot_follow():
    check(
        lambda net, x: halves(net, x[:, :8], x[:, 8:]), {
            'side': 8,
            'out': 8
        }, {'stem': 'changes what the network computes'},
        side=conv(8, 8),
        out=conv(16, 8))


def test_a_share_of_the_shape_that_is_no_half_cannot_follow():
    # x.shape[1] // 4 is right for 12 + 4 channels and for none between.
    def middle(net, x):
        quarter = x.shape[1] // 4
        return halves(net, x[:, :quarter], x[:, quarter:])

    check(
        middle, {
            'side': 4,
            'out': 8
        }, {'stem': 'changes what the network computes'},
        side=conv(4, 4),
        out=conv(16, 8))


@pytest.mark.parametrize('cut', [
    lambda x: x.split(6, 1),
    lambda x: x.chunk(3, 1),
    lambda x: x.tensor_split(3, 1),
])
def test_a_smaller_last_piece_stays(cut):

    def middle(net, x):
        pieces = cut(net.more(x))
        return net.out(torch.cat(pieces[::-1], 1))

    check(
        middle, {
            'stem': 16,
            'out': 8
        }, {'more': 'of which the last is smaller'},
        more=conv(16, 16),
        out=conv(16, 8))


@pytest.mark.parametrize(
    'middle', [
        lambda net, x: net.out(x) * x[:, 5:6],
        lambda net, x: net.out(x) * x[:, 5].unsqueeze(1),
        lambda net, x: net.out(x) * x.select(1, 5).unsqueeze(1),
        lambda net, x: net.out(x[:, [3, 1, 2, 0] * 4]),
        lambda net, x: net.out(x.index_select(1, torch.arange(15, -1, -1))),
        lambda net, x: net.out(x[:, net.order]),
        lambda net, x: net.out(torch.stack(x.unbind(1)[::-1], 1)),
    ],
    ids=[
        'slice', 'number', 'select', 'list', 'index_select', 'buffer', 'unbind'
    ])
def test_channels_picked_by_number_stay(middle):
    check(
        middle, {'out': 8}, {'stem': 'by number'},
        order=torch.randperm(16),
        out=conv(16, 8))


def test_positions_may_be_picked_by_number():
    check(
        lambda net, x: net.out(x[:, :, [1, 0, 3], 2:][..., net.order]), {
            'stem': 16,
            'out': 8
        },
        order=torch.tensor([2, 0]),
        out=conv(16, 8))


def test_every_second_channel_goes_with_its_neighbour():
    check(
        lambda net, x: net.out(
            torch.cat([net.even(x[:, ::2]),
                       net.odd(x[:, 1::2])], 1)), {
                           'stem': 8,
                           'even': 6,
                           'odd': 6,
                           'out': 8
                       },
        even=conv(8, 6),
        odd=conv(8, 6),
        out=conv(12, 8))


def test_split_positions_hold_all_channels():
    check(
        lambda net, x: net.out(torch.cat(x.split(3, 2)[::-1], 2)), {
            'stem': 16,
            'out': 8
        },
        out=conv(16, 8))


def test_channels_beside_heads_cannot_be_split():

    def middle(net, x):
        x = net.all(x).view(x.shape[0], 4, 4, *x.shape[2:])
        a, b = x.split((1, 3), 2)
        return net.out(torch.cat([b, a], 2).flatten(1, 2))

    check(
        middle, {
            'stem': 16,
            'out': 8
        }, {'all': 'in several dimensions'},
        all=conv(16, 16),
        out=conv(16, 8))


def shift(x, pieces):
    """Each piece of the channels from another position (temporal shift)."""
    out = torch.zeros_like(x)
    n = x.shape[1] // pieces
    out[:, :n, 1:] = x[:, :n, :-1]
    out[:, n:, :-1] = x[:, n:, 1:]
    return out


def test_writing_halves_of_channels():
    check(
        lambda net, x: net.out(shift(net.more(x), 2)), {
            'stem': 16,
            'more': (8, 2),
            'out': 8
        },
        more=conv(16, 16),
        out=conv(16, 8))


def test_writing_a_quarter_of_the_channels_cannot_follow():
    # Wrong without an error in any shape: only the self-check can tell.
    check(
        lambda net, x: net.out(shift(net.more(x), 4)), {
            'stem': 16,
            'out': 8
        }, {'more': 'changes what the network computes'},
        more=conv(16, 16),
        out=conv(16, 8))


def write_into(x, out, **layers):
    """Layers write into parts of a tensor."""
    start = 0
    for layer in layers.values():
        part = layer(x)
        out[:, start:start + part.shape[1]] = part
        start += part.shape[1]
    return out


def test_writing_into_a_tensor_of_fixed_width():

    def middle(net, x):
        out = torch.zeros(len(x), 16, *x.shape[2:])
        return net.out(write_into(x, out, a=net.a, b=net.b))

    fixed = 'writes them into a part of a tensor of fixed width'
    check(
        middle, {
            'stem': 16,
            'out': 8
        },
        dict(a=fixed, b=fixed),
        a=conv(16, 8),
        b=conv(16, 8),
        out=conv(16, 8))


def test_writing_positions_ties_channels():

    def middle(net, x):
        out = torch.zeros_like(x)
        out[:, :, 1:] = net.a(x)[:, :, :-1]
        return net.out(out)

    check(middle, {'stem': 16, 'out': 8}, a=conv(16, 16), out=conv(16, 8))


def test_an_index_from_channels_fixes_them():

    def middle(net, x):
        best = net.score(x).flatten(1).argmax(1)
        return net.out(x.flatten(2)[torch.arange(len(x)), :, best])

    space = assert_true(
        build(middle, score=conv(16, 1), out=nn.Linear(16, 8)), IMAGES)
    assert widths(space) == {'stem': (16, 1), 'out': (8, 1)}
