# Copyright (c) dms_razor contributors. All rights reserved.
"""Moving data moves channels; order and width have to survive pruning."""
import pytest
import torch
from small_nets import check, conv
from torch import nn
from torch.nn import functional as F

OUT = dict(out=conv(16, 8))
BOTH = {'stem': 16, 'out': 8}


@pytest.mark.parametrize(
    'middle', [
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda x: x.transpose(1, 3).mT.transpose(-1, -2).transpose(1, 3),
        lambda x: x.unsqueeze(2).squeeze(2).movedim(1, 0).swapaxes(0, 1),
        lambda x: x.view(x.size(0), x.size(1), -1).view_as(x),
        lambda x: x.double().float().detach().clone().to(x.dtype),
        lambda x: x.flip(1).flip(2) + x.flip(3).flip(1),
        lambda x: x.roll((1, 2), (2, 3)).rot90(1, (2, 3)),
        lambda x: x.repeat(1, 1, 2, 1).repeat_interleave(2, 3).tile(
            1, 1, 1, 2),
        lambda x: F.pad(x, (1, 2, 3, 4), value=.5)[..., 1:],
        lambda x: F.pad(x, (1, 2, 3, 4), mode='reflect'),
        lambda x: torch.stack([x, x]).flatten(0, 1).unflatten(0, (2, -1))[1],
    ],
    ids=[
        'permute', 'transpose', 'squeeze', 'view', 'cast', 'flip', 'rotate',
        'repeat positions', 'pad', 'mirror', 'stack'
    ])
def test_channels_pass(middle):
    check(lambda net, x: net.out(middle(x)), BOTH, **OUT)


def test_the_same_channels_twice():
    check(lambda net, x: net.out(torch.cat([x, x], 1)), BOTH, out=conv(32, 8))


def test_numpys_name_of_a_dimension():
    check(
        lambda net, x: net.out(torch.cat([x, x], axis=1)),
        BOTH,
        out=conv(32, 8))


def test_concatenation_of_several_widths():
    check(
        lambda net, x: net.out(torch.concat((x, net.a(x), net.b(x)), 1)), {
            'stem': 16,
            'a': 6,
            'b': 5,
            'out': 8
        },
        a=conv(16, 6),
        b=conv(16, 5),
        out=conv(27, 8))


def test_dense_connections():

    def middle(net, x):
        features = [x]
        for layer in (net.a, net.b):
            features.append(layer(torch.cat(features, 1)))
        return net.out(torch.cat(features, 1))

    check(
        middle, {
            'stem': 16,
            'a': 4,
            'b': 4,
            'out': 8
        },
        a=conv(16, 4),
        b=conv(20, 4),
        out=conv(24, 8))


@pytest.mark.parametrize('other, more', [
    (lambda net, x: net.side(x), dict(side=conv(16, 16))),
    (lambda net, x: x * 2, {}),
    (lambda net, x: net.token.expand(len(x), -1, -1, x.shape[3]),
     dict(token=nn.Parameter(torch.rand(1, 16, 1, 1)))),
])
def test_joined_along_positions_they_are_the_same(other, more):
    check(
        lambda net, x: net.out(
            F.avg_pool2d(torch.cat([x, other(net, x)], 2), 3)), BOTH, **more,
        **OUT)


def test_joined_with_constants_they_stay():
    check(
        lambda net, x: net.out(
            torch.cat([x, torch.ones(len(x), 16, 1, x.shape[3])], 2)),
        {'out': 8}, {'stem': 'constants of fixed width'}, **OUT)


@pytest.mark.parametrize(
    'middle,more', [
        (lambda x: F.pad(x, (0, 0, 0, 0, 4, 4)), 24),
        (lambda x: torch.cat([x, x.new_zeros(len(x), 8, 8, 8)], 1), 24),
        (lambda x: torch.cat([x, torch.zeros(len(x), 8, 8, 8)], 1), 24),
    ],
    ids=['pad', 'new_zeros', 'zeros'])
def test_padded_channels_stay_and_the_others_go(middle, more):
    # A shortcut of ResNets for small images: what is added to it stays where
    # it was padded.
    check(lambda net, x: net.out(middle(x)), BOTH, out=conv(more, 8))


def test_padding_tells_what_is_added_to_it():
    check(
        lambda net, x: net.out(F.pad(x, (0, 0, 0, 0, 4, 4)) + net.more(x)), {
            'stem': 16,
            'out': 8
        }, {'more': 'partly: Net pads its channels'},
        more=conv(16, 24),
        out=conv(24, 8))


def test_negative_padding_of_channels():
    check(
        lambda net, x: net.out(F.pad(x, (0, 0, 0, 0, -4, -4))), {'out': 8},
        {'stem': 'crops or mirrors'},
        out=conv(8, 8))


@pytest.mark.parametrize('middle', [
    lambda x: x.roll(3, 1),
    lambda x: torch.roll(x, (1, 1), dims=(1, 2)),
    lambda x: x.roll(16),
])
def test_channels_that_go_round_stay(middle):
    # Right by chance in one half of all subnets: no check on one may do.
    check(lambda net, x: net.out(middle(x)), {'out': 8},
          {'stem': 'rolls its channels'}, **OUT)


def test_gathering_positions():

    def middle(net, x):
        x = x.flatten(2).transpose(1, 2)
        best = net.score(x)[..., 0].topk(5, 1)[1]
        index = best[..., None].expand(-1, -1, x.shape[-1])
        return net.out(x.gather(1, index)).mean(1)

    check(
        middle,
        BOTH, {'score': 'takes them as indices'},
        score=nn.Linear(16, 1),
        out=nn.Linear(16, 8))


@pytest.mark.parametrize('middle', [
    lambda net, x: x.gather(1, net.index),
    lambda net, x: torch.take_along_dim(x, net.index, 1),
])
def test_gathering_channels(middle):
    check(
        lambda net, x: net.out(middle(net, x)), {'out': 8},
        {'stem': 'picks channels by number'},
        index=torch.randint(16, (2, 16, 8, 8)),
        **OUT)


@pytest.mark.parametrize('middle', [
    lambda x: F.pixel_unshuffle(x, 2),
    lambda x: torch.cat([
        x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2,
                                                                  1::2]
    ], 1),
])
def test_positions_become_channels(middle):
    check(lambda net, x: net.out(middle(x)), BOTH, out=conv(64, 8))


def test_channels_become_positions():
    # Four channels make one place of 2 x 2: they go together.
    check(
        lambda net, x: net.out(F.pixel_shuffle(x, 2)), {
            'stem': 4,
            'out': 8
        },
        out=conv(4, 8))


def test_unfold():
    check(
        lambda net, x: net.out(F.unfold(x, 3).transpose(1, 2)).mean(1),
        BOTH,
        out=nn.Linear(16 * 9, 8))
    check(lambda net, x: net.out(x.unfold(2, 3, 2).mean(-1)), BOTH, **OUT)


def test_reinterpreted_bits_stay():
    check(
        lambda net, x: net.out(x.view(torch.int32).view(torch.float32)),
        {'out': 8}, {'stem': 'reinterprets the bits'},
        count=False,
        **OUT)
