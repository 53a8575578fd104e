# Copyright (c) dms_razor contributors. All rights reserved.
"""Splitting up and flattening dimensions that hold channels."""
import pytest
import torch
from small_nets import check, conv
from torch import nn
from torch.nn import functional as F

OUT = dict(out=conv(16, 8))


def shuffle(x, groups):
    """Channel shuffle as ShuffleNet writes it."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


@pytest.mark.parametrize(
    'shuffled', [
        lambda x: shuffle(x, 4),
        nn.ChannelShuffle(4),
        lambda x: F.channel_shuffle(x, 4),
        lambda x: x.unflatten(1, (4, -1)).swapaxes(1, 2).flatten(1, 2),
    ],
    ids=['view', 'module', 'function', 'unflatten'])
def test_shuffled_channels_of_one_place_go_together(shuffled):
    space = check(lambda net, x: net.out(shuffled(x)), {
        'stem': 4,
        'out': 8
    }, **OUT)
    index = space.slice_sites['stem.weight'][0].index
    assert index.tolist() == list(range(4)) * 4
    index = space.slice_sites['out.weight'][1].index
    assert index.tolist() == sorted(list(range(4)) * 4)


def test_a_shuffle_between_grouped_convolutions():
    check(
        lambda net, x: net.out(shuffle(net.grouped(x), 2)), {
            'stem': (8, 2),
            'grouped': (4, 2),
            'out': (4, 2)
        },
        grouped=conv(16, 16, groups=2),
        out=conv(16, 8, groups=2))


def test_shuffled_halves():
    check(
        lambda net, x: net.out(shuffle(torch.cat([net.a(x), net.b(x)], 1), 2)),
        {
            'stem': 16,
            'a': 8,
            'out': 8
        },
        a=conv(16, 8),
        b=conv(16, 8),
        **OUT)


def test_parts_in_their_order_only_stay_equally_wide():
    check(lambda net, x: net.out(x.view(len(x), 4, -1, 8, 8).flatten(1, 2)), {
        'stem': (4, 4),
        'out': 8
    }, **OUT)


def test_stacked_in_order_and_interleaved():
    layers = dict(a=conv(16, 8), b=conv(16, 8), **OUT)
    check(
        lambda net, x: net.out(
            torch.stack([net.a(x), net.b(x)], 1).flatten(1, 2)), {
                'stem': 16,
                'a': (8, 2),
                'out': 8
            }, **layers)
    check(
        lambda net, x: net.out(
            torch.stack([net.a(x), net.b(x)], 2).flatten(1, 2)), {
                'stem': 16,
                'a': 8,
                'out': 8
            }, **layers)


def test_selective_kernels():
    # Softmax over branches and a sum over them: place by place.
    def middle(net, x):
        a, b = net.a(x), net.b(x)
        gates = net.gates(net.squeeze((a + b).mean((2, 3))).relu())
        gates = gates.view(len(x), 2, -1, 1, 1).softmax(1)
        both = torch.stack([a, b], 1)
        return net.out((both * gates).sum(1))

    check(
        middle, {
            'stem': 16,
            'a': 12,
            'squeeze': 4,
            'out': 8
        },
        a=conv(16, 12),
        b=conv(16, 12),
        squeeze=nn.Linear(12, 4),
        gates=nn.Linear(4, 24),
        out=conv(12, 8))


def test_channels_as_batch():
    # Each channel alone: none is mixed with another.
    def middle(net, x):
        single = x.reshape(-1, 1, 8, 8)
        return net.out(net.blur(single).view(x.shape))

    check(middle, {'stem': 16, 'out': 8}, blur=conv(1, 1), **OUT)


def test_half_of_the_channels_as_batch():

    def middle(net, x):
        x = net.narrow(x.reshape(2 * len(x), -1, 8, 8))
        return net.out(x.view(len(x) // 2, -1, 8, 8))

    check(
        middle, {
            'stem': 8,
            'narrow': 6,
            'out': 8
        },
        narrow=conv(8, 6),
        out=conv(12, 8))


@pytest.mark.parametrize('flat', [
    lambda x: x.flatten(1),
    lambda x: x.reshape(len(x), -1),
    lambda x: x.view(x.size(0),
                     x.size(1) * 9),
    nn.Flatten(),
])
def test_flattened_channels_and_positions(flat):
    space = check(
        lambda net, x: net.out(flat(F.adaptive_avg_pool2d(x, 3))), {
            'stem': 16,
            'out': 8
        },
        out=nn.Linear(16 * 9, 8))
    index = space.slice_sites['out.weight'][1].index
    assert index.tolist() == sorted(list(range(16)) * 9)


def test_flattened_positions_and_channels():
    check(
        lambda net, x: net.out(x.permute(0, 2, 3, 1).flatten(1)), {
            'stem': 16,
            'out': 8
        },
        out=nn.Linear(64 * 16, 8))


def test_a_written_out_size_cannot_follow():
    check(
        lambda net, x: net.out(F.adaptive_avg_pool2d(x, 3).view(-1, 144)),
        {'out': 8}, {'stem': 'invalid for input of'},
        out=nn.Linear(144, 8))


def test_batch_and_positions_flattened_together():

    def middle(net, x):
        batch, channels, height, width = x.shape
        x = net.out(x.permute(0, 2, 3, 1).reshape(-1, channels))
        return x.view(batch, height, width, -1).permute(0, 3, 1, 2)

    check(middle, {'stem': 16, 'out': 8}, out=nn.Linear(16, 8))
