# Copyright (c) dms_razor contributors. All rights reserved.
"""Pooling, means and softmax over positions pass channels, over channels not.
"""
import pytest
import torch
from small_nets import check, conv
from torch import nn
from torch.nn import functional as F

OUT = dict(out=conv(16, 8))
BOTH = {'stem': 16, 'out': 8}


@pytest.mark.parametrize(
    'middle', [
        lambda x: F.max_pool2d(x, 3, 2) + F.avg_pool2d(x, 3, 2),
        lambda x: F.lp_pool2d(x + .1, 2, 2) - F.adaptive_max_pool2d(x, 4),
        lambda x: F.interpolate(x, scale_factor=2, mode='bilinear'),
        lambda x: F.interpolate(F.adaptive_avg_pool2d(x, (3, 1)), size=7),
        lambda x: x - x.mean((2, 3), True) / (1 + x.var(3, keepdim=True)),
        lambda x: x * x.amax(dim=(-1, -2))[..., None, None],
        lambda x: x.max(3, keepdim=True)[0] + x.min(2, keepdim=True).values,
        lambda x: x.softmax(3) + x.flatten(2).softmax(-1).view_as(x),
        lambda x: x.cumsum(2) + x.sort(3)[0] + x.topk(8, 3)[0],
        lambda x: F.normalize(x, dim=2) + x.norm(2, 3, True),
        lambda x: x / torch.linalg.vector_norm(x + 1, 2, (2, 3), True),
        lambda x: x + x.std((2, 3), keepdim=True) + x.sum(3)[..., None],
    ],
    ids=[
        'pools', 'more pools', 'resize', 'adaptive', 'moments', 'amax', 'max',
        'softmax', 'sort', 'normalize', 'vector_norm', 'sums'
    ])
def test_over_positions(middle):
    check(lambda net, x: net.out(middle(x)), BOTH, **OUT)


def test_flags_over_channels():
    check(lambda net, x: net.out(x * (x >= 0).all()), {'out': 8},
          {'stem': 'computes all over its channels'}, **OUT)


@pytest.mark.parametrize(
    'middle', [
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x * x.amax((1, 2, 3), True),
        lambda x: x + x.max(),
        lambda x: x.softmax(1),
        lambda x: F.normalize(x),
        lambda x: x / (x + 1).norm(2, 1, True),
        lambda x: x / torch.linalg.vector_norm(x + 1, 2, 1, True),
        lambda x: x.cumsum(1),
        lambda x: x.sort(1)[0],
        lambda x: x.amin(()) + x,
        lambda x: x * x.std(),
    ],
    ids=[
        'mean', 'amax', 'max', 'softmax', 'normalize', 'norm', 'vector_norm',
        'cumsum', 'sort', 'amin', 'std'
    ])
def test_over_channels(middle):
    # One more layer, so that something can be pruned at all.
    check(lambda net, x: net.out(middle(x)), {'out': 8},
          {'stem': 'mixes channels'}, **OUT)


def test_means_of_groups_of_channels():
    # c channels make one: they all stay, as any number of them could not.
    check(
        lambda net, x: net.out(x.view(len(x), 4, -1, 8, 8).mean(2)),
        {'out': 8}, {'stem': 'pruning it changes what the network computes'},
        out=conv(4, 8))


def test_means_over_groups_of_channels():
    check(
        lambda net, x: net.out(x.view(len(x), 4, -1, 8, 8).mean(1)), {
            'stem': 4,
            'out': 8
        },
        out=conv(4, 8))


def test_unpooling_at_the_places_of_the_maxima():

    def middle(net, x):
        x, places = F.max_pool2d(x, 2, return_indices=True)
        return net.out(F.max_unpool2d(x.sigmoid(), places, 2))

    check(middle, BOTH, count=False, **OUT)


def test_sampling_at_computed_places():

    def middle(net, x):
        places = net.places(x).tanh().permute(0, 2, 3, 1)
        return net.out(F.grid_sample(x, places, align_corners=False))

    check(
        middle,
        BOTH, {'places': 'takes them as places'},
        places=conv(16, 2),
        **OUT)


def test_spatial_transformer():

    def middle(net, x):
        moves = net.moves(x.mean((2, 3))).view(-1, 2, 3)
        places = F.affine_grid(moves, x.shape, align_corners=False)
        return net.out(F.grid_sample(x, places, align_corners=False))

    check(
        middle, BOTH, {'moves': 'affine_grid'}, moves=nn.Linear(16, 6), **OUT)


def test_values_read_into_python():
    check(lambda net, x: net.out(x / float(x[0, 0, 0, 0].item() + 2)),
          {'out': 8}, {'stem': 'by number'}, **OUT)
    check(
        lambda net, x: net.out(x / float(x.square().sum(
            (2, 3)).tolist()[0][3])), {'out': 8},
        {'stem': 'reads their values into Python'}, **OUT)
    check(lambda net, x: net.out(x + torch.from_numpy(x.numpy() * 2)),
          {'out': 8}, {'stem': 'reads their values into Python'}, **OUT)
