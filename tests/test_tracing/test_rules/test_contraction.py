# Copyright (c) dms_razor contributors. All rights reserved.
"""Convolutions and linear layers of every kind."""
import pytest
import torch
from equality import assert_true, reasons
from small_nets import IMAGES, Net, build, check, conv, widths
from torch import nn
from torch.nn import functional as F

OUT = dict(out=conv(16, 8))
BOTH = {'stem': 16, 'out': 8}
UNOWNED = 'a weight in conv2d that is computed or belongs to another module'


def test_grouped_convolution():
    space = check(
        lambda net, x: net.out(net.grouped(x)), {
            'stem': (4, 4),
            'grouped': (6, 4),
            'out': 8
        },
        grouped=conv(16, 24, groups=4),
        out=conv(24, 8))
    site = [s for s in space.slice_sites['grouped.weight'] if s.axis == 1][0]
    assert (site.groups, len(site.index)) == (4, 16)


def test_grouped_convolutions_of_other_groups():
    check(
        lambda net, x: net.out(net.two(net.four(x))), {
            'stem': (4, 4),
            'four': (6, 4),
            'two': (12, 2),
            'out': 8
        },
        four=conv(16, 24, groups=4),
        two=conv(24, 24, groups=2),
        out=conv(24, 8))


def test_groups_that_do_not_nest_stay():
    check(
        lambda net, x: net.out(net.three(net.four(x))), {
            'stem': (4, 4),
            'three': (8, 3),
            'out': 8
        }, {'four': 'cannot be kept equal'},
        four=conv(16, 24, groups=4),
        three=conv(24, 24, groups=3),
        out=conv(24, 8))


def test_a_concatenation_with_groups_at_its_seam():
    check(
        lambda net, x: net.out(
            net.grouped(torch.cat([net.a(x), net.b(x)], 1))), {
                'stem': 16,
                'a': (8, 2),
                'grouped': (8, 2),
                'out': 8
            },
        a=conv(16, 8),
        b=conv(16, 8),
        grouped=conv(16, 16, groups=2),
        **OUT)


def test_surplus_channels_of_a_group_stay():
    # 4 + 8 channels in two groups of 6: the second group has 2 less of b.
    def middle(net, x):
        x = torch.cat([net.a(x), net.b(x)], 1)
        return net.out(net.grouped(x))

    space = assert_true(
        build(
            middle,
            a=conv(16, 2),
            b=conv(16, 10),
            grouped=conv(12, 12, groups=2),
            out=conv(12, 8)), IMAGES)
    assert 'cannot be kept equal' in reasons(space)['b']
    assert widths(space)['grouped'] == (6, 2)


@pytest.mark.parametrize('multiplier', [1, 2])
def test_depthwise_convolution(multiplier):
    space = check(
        lambda net, x: net.out(net.norm(net.depthwise(x))),
        BOTH,
        depthwise=conv(16, 16 * multiplier, groups=16),
        norm=nn.BatchNorm2d(16 * multiplier),
        out=conv(16 * multiplier, 8))
    numbers = space.attributes['depthwise']
    assert {
        n: len(index)
        for n, index in numbers.items()
    } == dict(
        in_channels=16, groups=16, out_channels=16 * multiplier)


def test_depthwise_convolution_of_the_images():
    net = Net(lambda net, x: net.out(x), **OUT)
    net.stem = nn.Sequential(conv(3, 3, groups=3), conv(3, 16))
    assert widths(assert_true(net, IMAGES)) == {
        'stem.1': (16, 1),
        'out': (8, 1)
    }


def test_transposed_convolutions():
    up = dict(kernel_size=2, stride=2)
    check(
        lambda net, x: net.out(net.up(x)), {
            'stem': 16,
            'up': 12,
            'out': 8
        },
        up=nn.ConvTranspose2d(16, 12, **up),
        out=conv(12, 8))
    space = check(
        lambda net, x: net.out(net.up(x)),
        BOTH,
        up=nn.ConvTranspose2d(16, 16, groups=16, **up),
        **OUT)
    assert set(
        space.attributes['up']) == {'in_channels', 'out_channels', 'groups'}
    reason = 'is a grouped transposed convolution'
    check(
        lambda net, x: net.out(net.up(x)), {'out': 8},
        dict(stem=reason, up=reason),
        up=nn.ConvTranspose2d(16, 12, groups=4, **up),
        out=conv(12, 8))


@pytest.mark.parametrize('dims', [1, 3])
def test_one_and_three_dimensions(dims):
    kind = getattr(nn, f'Conv{dims}d')
    up = getattr(nn, f'ConvTranspose{dims}d')
    norm = getattr(nn, f'BatchNorm{dims}d')
    net = nn.Sequential(
        kind(3, 8, 3), norm(8), nn.SiLU(), kind(8, 8, 2, groups=2),
        up(8, 6, 2, 2), kind(6, 6, 1, groups=6), nn.Flatten(),
        nn.Linear(6 * 6**dims, 4))
    space = assert_true(net, torch.randn(2, 3, *[6] * dims))
    assert widths(space) == {'0': (4, 2), '3': (4, 2), '4': (6, 1)}


@pytest.mark.parametrize('batch', [1, 3])
def test_one_position(batch):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))
    assert widths(assert_true(net, torch.randn(batch, 3, 1, 1))) == {
        '0': (8, 1)
    }


def test_an_image_without_a_batch():
    net = nn.Sequential(conv(3, 8), conv(8, 4))
    with pytest.raises(ValueError, match='without a batch dimension'):
        assert_true(net, torch.randn(3, 6, 6), count=False)


def test_one_layer_called_twice():
    check(
        lambda net, x: net.out(net.same(net.same(x))),
        BOTH,
        same=conv(16, 16),
        **OUT)


def test_one_layer_with_two_inputs():
    check(
        lambda net, x: net.out(
            torch.cat([net.same(net.a(x)),
                       net.same(net.b(x))], 1)), {
                           'stem': 16,
                           'a': 12,
                           'same': 16,
                           'out': 8
                       },
        a=conv(16, 12),
        b=conv(16, 12),
        same=conv(12, 16),
        out=conv(32, 8))


def test_one_depthwise_layer_with_two_inputs():
    check(
        lambda net, x: net.out(
            torch.cat([net.same(x), net.same(net.a(x))], 1)),
        BOTH,
        a=conv(16, 16),
        same=conv(16, 16, groups=16),
        out=conv(32, 8))


def test_one_layer_under_two_names():
    same = conv(16, 16)
    check(
        lambda net, x: net.out(net.same(net.again(x))),
        BOTH,
        again=same,
        same=same,
        **OUT)


def test_layers_that_share_a_weight_are_cut_alike():
    a, b = conv(16, 12), conv(16, 12)
    b.weight = a.weight
    check(
        lambda net, x: net.out(torch.cat([net.a(x), net.b(net.c(x))], 1)), {
            'stem': 16,
            'a': 12,
            'out': 8
        }, {},
        a=a,
        b=b,
        c=conv(16, 16),
        out=conv(24, 8))


@pytest.mark.parametrize('weight,prunable', [
    (lambda layer: layer.weight, True),
    (lambda layer: layer.weight * 2, False),
])
def test_a_weight_used_from_outside_too(weight, prunable):
    # First the layer, then its weight: the layer must not be cut either.
    reason = 'computed from what is used elsewhere too'
    stays = {} if prunable else {'stem': reason, 'layer': reason}
    check(
        lambda net, x: net.out(
            net.layer(x) + F.conv2d(x, weight(net.layer), padding=1)),
        dict(stem=16, layer=16, out=8) if prunable else dict(out=8),
        stays,
        layer=conv(16, 16),
        **OUT)


def test_a_weight_looked_at_from_outside_keeps_its_layer():
    check(
        lambda net, x: net.out(net.layer(x)) * net.layer.weight.norm(),
        {'out': 8}, {
            'stem': 'mixes channels: it takes their norm',
            'layer': 'mixes channels: it takes their norm'
        },
        layer=conv(16, 16),
        **OUT)


def test_a_weight_that_is_transposed_elsewhere():

    def middle(net, x):
        x = net.encode(net.narrow(x).mean((2, 3)))
        return F.linear(x, net.encode.weight.t())

    check(
        middle, {
            'stem': 16,
            'narrow': 8,
            'encode': 12
        },
        narrow=conv(16, 8),
        encode=nn.Linear(8, 12))


def test_standardised_weights_of_another_layer_stay():

    def middle(net, x):
        weight = net.layer.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        return net.out(F.conv2d(x, weight - mean, padding=1))

    check(
        middle, {'out': 8}, {
            'stem': 'mixes its entries (mean)',
            '': 'mixes its entries (mean)'
        },
        layer=conv(16, 16),
        **OUT)


class Kernel(nn.Module):
    """A layer of one's own with a parameter of one's own name."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(16, 16, 3, 3) * .1)

    def forward(self, x):
        return F.conv2d(x, self.kernel, padding=1)


def test_a_parameter_of_any_name_is_masked():
    space = check(
        lambda net, x: net.out(net.own(x)), {
            'stem': 16,
            'own': 16,
            'out': 8
        },
        own=Kernel(),
        **OUT)
    assert 'kernel' in {site.tensor for site in space.mask_sites}


class Biased(nn.Module):
    """A linear layer whose bias is computed."""

    def __init__(self, bias, size):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 16) * .2)
        self.shift = nn.Parameter(torch.rand(size))
        self.compute = bias

    def forward(self, x):
        return F.linear(x, self.weight, self.compute(self.shift))


@pytest.mark.parametrize('bias,size,units,stays', [
    (lambda b: b * 2, 12, {
        'layer': 12
    }, {}),
    (lambda b: torch.cat([b, torch.zeros(6)]), 6, {
        'layer': 6
    }, {
        'layer': 'partly: Biased "layer" adds a bias that is computed'
    }),
    (lambda b: torch.ones(12), 12, {}, {
        'layer': 'adds a bias that is computed'
    }),
])
def test_a_computed_bias(bias, size, units, stays):
    check(
        lambda net, x: net.out(net.layer(x.mean((2, 3)))),
        dict({'stem': 16}, **units, out=8),
        stays,
        layer=Biased(bias, size),
        out=nn.Linear(12, 8))


def test_a_constant_as_input():
    check(
        lambda net, x: net.out(x + net.const(torch.ones(1, 4, 8, 8))),
        BOTH,
        const=conv(4, 16),
        **OUT)
    check(
        lambda net, x: net.out(x + net.const(net.query)),
        dict(BOTH),
        const=conv(4, 16),
        query=nn.Parameter(torch.rand(1, 4, 8, 8)),
        **OUT)


def test_linear_layers_over_positions():
    # Token mixing as in MLP-Mixer: the channels pass.
    check(lambda net, x: net.out(net.mix(x)), BOTH, mix=nn.Linear(8, 8), **OUT)
    check(
        lambda net, x: net.out(
            net.mix(F.gelu(net.more(x.flatten(2)))).view_as(x)),
        BOTH,
        more=nn.Linear(64, 12),
        mix=nn.Linear(12, 64),
        **OUT)


def test_convolutions_along_channels_keep_them():
    # Efficient channel attention.
    def middle(net, x):
        gate = x.mean((2, 3))[:, None]
        return net.out(x * net.along(gate)[:, 0, :, None, None].sigmoid())

    reason = 'convolves along its channels'
    check(
        middle, {'out': 8},
        dict(stem=reason, along=reason),
        along=nn.Conv1d(1, 1, 3, padding=1),
        **OUT)
