# Copyright (c) dms_razor contributors. All rights reserved.
"""Norms that keep channels apart, and norms that mix them."""
import pytest
import torch
from small_nets import check, conv
from torch import nn
from torch.nn import functional as F

OUT = dict(out=conv(16, 8))
BOTH = {'stem': 16, 'out': 8}


def last(layer, x):
    """A layer over the last dimension on the channels of images."""
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize('norm', [
    nn.BatchNorm2d(16),
    nn.BatchNorm2d(16, affine=False),
    nn.BatchNorm2d(16, track_running_stats=False),
    nn.SyncBatchNorm(16),
    nn.InstanceNorm2d(16, affine=True),
    nn.InstanceNorm2d(16, track_running_stats=True),
])
def test_norms_of_single_channels(norm):
    space = check(lambda net, x: net.out(net.norm(x)), BOTH, norm=norm, **OUT)
    affine = norm.weight is not None
    assert ('norm.weight' in space.slice_sites) == affine
    assert ('norm.running_mean' in space.slice_sites) == \
        norm.track_running_stats
    assert not space.norm_sites


@pytest.mark.parametrize('norm', [
    nn.LayerNorm(16),
    nn.LayerNorm(16, elementwise_affine=False),
    nn.RMSNorm(16),
])
def test_norms_over_channels(norm):
    space = check(
        lambda net, x: net.out(last(net.norm, x)), BOTH, norm=norm, **OUT)
    site, = space.norm_sites
    assert site.module == 'norm' and len(site.index) == 16


@pytest.mark.parametrize('groups,units', [(1, {
    'stem': 16,
    'out': 8
}), (4, {
    'stem': (4, 4),
    'out': 8
})])
def test_group_norm(groups, units):
    check(
        lambda net, x: net.out(net.norm(x)),
        units,
        norm=nn.GroupNorm(groups, 16),
        **OUT)


def test_norms_of_positions_leave_channels_alone():
    check(
        lambda net, x: net.out(net.norm(x)),
        BOTH,
        norm=nn.LayerNorm([8, 8]),
        **OUT)


def test_norms_of_channels_and_positions_keep_them():
    check(
        lambda net, x: net.out(net.norm(x)), {'out': 8},
        {'stem': 'channels and positions at once'},
        norm=nn.LayerNorm([16, 8, 8]),
        **OUT)


def test_one_norm_for_two_layers():
    check(
        lambda net, x: net.out(last(net.norm, x) + last(net.norm, net.a(x))),
        BOTH,
        norm=nn.LayerNorm(16),
        a=conv(16, 16),
        **OUT)


def test_local_response_norm_is_not_understood():
    check(lambda net, x: net.out(F.local_response_norm(x, 3)), {'out': 8},
          {'stem': 'local_response_norm, for which it is not known'}, **OUT)


def test_a_norm_with_computed_numbers():
    check(
        lambda net, x: net.out(
            F.batch_norm(x, net.mean * 1, net.variance, eps=1.)), {'out': 8},
        {'stem': 'normalises with a computed running_mean'},
        mean=torch.zeros(16),
        variance=torch.ones(16),
        **OUT)
