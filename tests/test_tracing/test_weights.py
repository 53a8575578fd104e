# Copyright (c) dms_razor contributors. All rights reserved.
"""Weights that are computed, or read by another module than their own."""
import pytest
import torch
from equality import assert_counts, assert_true, difference, keeps, reasons
from small_nets import IMAGES, widths
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from trained_nets import assert_true_in_training

from dms_razor.subnet import build_subnet, export_subnet
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace

TOKENS = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(5))


class Standardised(nn.Conv2d):
    """Takes mean and variance over each filter, in the way it is told."""

    def __init__(self, way, *args, **settings):
        super().__init__(*args, **settings)
        self.way = way
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1))

    def forward(self, x):
        weight = self.way(self, self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding,
                        self.dilation, self.groups)


def var_mean(conv, weight):
    var, mean = torch.var_mean(
        weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
    return (weight - mean) / (var + 1e-5).sqrt()


def flat(conv, weight):
    flat = weight.view(len(weight), -1)
    mean = flat.mean(1, keepdim=True).view(-1, 1, 1, 1)
    std = flat.std(dim=1, keepdim=True).view(-1, 1, 1, 1)
    return conv.gain * (weight - mean) / (std + 1e-5)


def one_after_the_other(conv, weight):
    mean = weight.mean(2, keepdim=True).mean(3, True).mean(dim=1, keepdim=True)
    weight = weight - mean
    return weight / (weight.view(len(weight), -1).std(1) + 1e-5).view(
        -1, 1, 1, 1)


def batch_norm(conv, weight):
    return F.batch_norm(
        weight.reshape(1, len(weight), -1),
        None,
        None, (conv.gain * .5).view(-1),
        training=True,
        momentum=0.).reshape_as(weight)


def scaled(conv, weight):
    return weight * conv.gain + 0.


WAYS = [var_mean, flat, one_after_the_other, batch_norm, scaled]


def images(make):
    """Convolutions, a grouped one with them, scores."""
    return nn.Sequential(
        make(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(),
        make(12, 8, 3, groups=2), nn.ReLU(), make(8, 16, 1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize('way', WAYS)
def test_standardised_convolutions(way):

    def make(*args, **settings):
        return Standardised(way, *args, **settings)

    space = assert_true(images(make), IMAGES, bound=1e-4)
    assert widths(space) == {'0': (6, 2), '3': (4, 2), '5': (16, 1)}
    assert set(reasons(space)) == {'9'}
    assert_true_in_training(images(make))


@pytest.mark.parametrize('norm',
                         [parametrizations.weight_norm, old_weight_norm])
def test_weight_norm(norm, tmp_path):

    def make():
        torch.manual_seed(0)
        return images(
            lambda *args, **settings: norm(nn.Conv2d(*args, **settings)))

    space = trace(make(), IMAGES)
    assert widths(space) == {'0': (6, 2), '3': (4, 2), '5': (16, 1)}
    assert {s.how
            for s in space.mask_sites if s.module != '9'
            } == {'early' if norm is old_weight_norm else 'plain'}
    if norm is parametrizations.weight_norm:
        assert_true(make(), IMAGES)
        assert_true_in_training(make())
    net = make().double()
    keep = space.random_selection(torch.Generator().manual_seed(1))
    assert difference(net, space, keep, IMAGES.double()) < 1e-12
    net = make()
    done = export_subnet(tmp_path / 'subnet', net, space, keep, picture=False)
    assert done.model[5].out_channels == done.manifest.units[-1]['kept']
    built = build_subnet(make(), done.path, done.path / 'subnet.pth')
    assert torch.equal(built(IMAGES), done.model(IMAGES))


class Asking(nn.Module):
    """Features are centred while they train: so train mode is recorded."""

    def forward(self, x):
        return x - x.mean((2, 3), keepdim=True) if self.training else x


def spectral(norm, ask=False):
    """Convolutions, one of them transposed, and a linear layer with it."""
    torch.manual_seed(0)
    return nn.Sequential(
        norm(nn.Conv2d(3, 12, 3)), nn.BatchNorm2d(12), nn.ReLU(),
        norm(nn.ConvTranspose2d(12, 8, 2)), nn.Tanh(),
        norm(nn.Conv2d(8, 16, 2), n_power_iterations=2),
        Asking() if ask else nn.Tanh(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        norm(nn.Linear(16, 6)), nn.ReLU(), nn.Linear(6, 5))


@pytest.mark.parametrize('ask', [False, True])
@pytest.mark.parametrize('norm',
                         [parametrizations.spectral_norm, old_spectral_norm])
def test_spectral_norm(norm, ask, tmp_path):
    net, images = spectral(norm, ask).double(), IMAGES[:1].double()
    space = trace(spectral(norm, ask), IMAGES[:1])
    assert widths(space) == {
        '0': (12, 1),
        '3': (8, 1),
        '5': (16, 1),
        '9': (6, 1)
    }
    assert set(reasons(space)) == {'11'}
    for keep in keeps(space, 2):
        assert difference(net, space, keep, images) < 1e-12
        assert_counts(slice_model(net, space, keep), space, keep, images)
    assert_true_in_training(spectral(norm, ask))
    done = export_subnet(
        tmp_path / 'subnet', spectral(norm, ask), space, keep, picture=False)
    built = build_subnet(
        spectral(norm, ask), done.path, done.path / 'subnet.pth').eval()
    assert torch.equal(built(IMAGES), done.model.eval()(IMAGES))


def test_spectral_norm_of_a_grouped_convolution_stays():
    norm = parametrizations.spectral_norm
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), norm(nn.Conv2d(12, 8, 3, groups=2)), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(96, 5))
    space = assert_true(net, IMAGES[:1])
    assert widths(space) == {'3': (6, 1)}
    assert 'in a way that is not understood' in reasons(space)['0']


@pytest.mark.parametrize('dim', [1, None])
def test_a_norm_over_several_outputs_reads_the_masks_of_outputs_too(dim):
    net = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(16, 24), dim=dim), nn.ReLU(),
        nn.Linear(24, 3))
    space = assert_true(net, TOKENS, batch_size=2)
    assert widths(space) == {'0': (24, 1)}
    assert ('0.parametrizations.weight', 0) in {(s.module, s.axis)
                                                for s in space.mask_sites}


class Reading(nn.Module):
    """What ``run(net, x)`` does with layers and parameters."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        self.head = nn.Linear(24, 3)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.head(self.run(self, x).relu())


def parameter(*shape):
    return nn.Parameter(
        torch.randn(shape, generator=torch.Generator().manual_seed(3)) * .3)


@pytest.mark.parametrize('run,size', [
    (lambda net, x: F.linear(x, net.fc.weight, net.fc.bias), 1),
    (lambda net, x: net.fc(F.linear(net.fc(x).relu(), net.fc.weight.t())), 1),
    (lambda net, x: net.fc(x) @ net.square, 2),
    (lambda net, x: torch.matmul(net.fc(x), net.square.t()), 2),
    (lambda net, x: F.linear(net.fc(x), net.square), 2),
])
def test_a_weight_of_another_layer_or_a_bare_parameter(run, size):
    net = Reading(run, fc=nn.Linear(16, 24), square=parameter(24, 24))
    space = assert_true(net, TOKENS, batch_size=2)
    assert [n for n, _ in widths(space).values()] == [24] * size
    assert set(reasons(space)) <= {'head'}
    assert 'fc' in widths(space) or 'fc' in space.units[0].members
    assert_true_in_training(net, TOKENS)


@pytest.mark.parametrize('run,reason', [
    (lambda net, x: F.linear(net.fc(x), net.square.softmax(0)), 'computed'),
    (lambda net, x: F.linear(net.fc(x), net.square.cumsum(1)), 'computed'),
    (lambda net, x: net.fc(x) * net.square.sum() + F.linear(
        net.fc(x), net.square.tanh()), 'elsewhere'),
    (lambda net, x: net.fc(x) @ (net.square @ net.square), ''),
])
def test_what_is_not_understood_stays_and_is_named(run, reason):
    net = Reading(run, fc=nn.Linear(16, 24), square=parameter(24, 24))
    with pytest.raises(ValueError, match='nothing can be pruned') as error:
        trace(net, TOKENS, batch_size=2)
    assert reason in str(error.value)


def test_a_parameter_of_an_outer_module_stays():

    class Inner(nn.Module):

        def __init__(self, weight):
            super().__init__()
            self.held = [weight]

        def forward(self, x):
            return F.linear(x, self.held[0])

    net = Reading(
        lambda net, x: net.inner(net.fc(x)),
        fc=nn.Linear(16, 24),
        square=parameter(24, 24))
    net.inner = Inner(net.square)
    with pytest.raises(ValueError, match='belongs to another module'):
        trace(net, TOKENS, batch_size=2)
