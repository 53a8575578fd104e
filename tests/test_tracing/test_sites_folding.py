# Copyright (c) dms_razor contributors. All rights reserved.
"""Which norms carry the masks of the layer behind them, and which cannot.

That a folded mask computes the same is tested by every comparison of masked
and sliced networks; here it is told where masks act.
"""
import pytest
import torch
from equality import assert_true
from small_nets import IMAGES, Net, conv
from torch import nn
from torch.nn import functional as F

from dms_razor import Search
from dms_razor.masking import attach, unmask
from dms_razor.trace import trace


class ChannelsLast(nn.LayerNorm):
    """Layer norm over the channels of images."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def masked_layers(net):
    """Layers whose parameters read the masks of what ``conv1`` makes."""
    space = trace(net, IMAGES)
    unit = next(u for u in space.units if u.name.startswith('conv1'))
    elements = space.layout.slice_of(space.units.index(unit))
    return {
        f'{site.module}.{site.tensor}'
        for site in space.mask_sites
        if int(site.index.max()) in range(elements.start, elements.stop)
    }


def chain(norm, activation):
    """conv1, norm, activation, conv2."""

    def middle(net, x):
        return net.conv2(activation(net.norm(net.conv1(x))))

    torch.manual_seed(0)
    return Net(middle, 8, conv1=conv(16, 12), norm=norm, conv2=conv(12, 8))


def same(x):
    return x


AFFINE = {'norm.weight', 'norm.bias'}


@pytest.mark.parametrize('norm,activation,carriers', [
    (nn.BatchNorm2d(12), F.relu, AFFINE),
    (nn.BatchNorm2d(12), same, AFFINE),
    (nn.GroupNorm(1, 12), F.leaky_relu, AFFINE),
    (ChannelsLast(12), same, {'conv2.weight'}),
    (nn.BatchNorm2d(12), F.silu, {'conv2.weight'}),
    (nn.BatchNorm2d(12, affine=False), F.relu, {'conv2.weight'}),
])
def test_what_carries_the_masks(norm, activation, carriers):
    net = chain(norm, activation)
    assert masked_layers(net) == carriers
    assert_true(net, IMAGES)


@pytest.mark.parametrize('norm,carriers', [
    (nn.LayerNorm(12), AFFINE),
    (nn.LayerNorm(12, bias=False), {'norm.weight'}),
    (nn.RMSNorm(12) if hasattr(nn, 'RMSNorm') else nn.LayerNorm(
        12, bias=False), {'norm.weight'}),
    (nn.LayerNorm(12, elementwise_affine=False), {'conv2.weight'}),
])
def test_norms_of_tokens(norm, carriers):

    def middle(net, x):
        x = net.conv1(x).flatten(2).transpose(1, 2)
        x = net.conv2(net.norm(x))
        return x.transpose(1, 2)[..., None]

    torch.manual_seed(0)
    net = Net(middle, 8, conv1=conv(16, 12), norm=norm, conv2=nn.Linear(12, 8))
    assert masked_layers(net) == carriers
    assert_true(net, IMAGES)


def test_a_norm_that_something_else_reads_carries_nothing():

    def middle(net, x):
        x = net.norm(net.conv1(x))
        return net.conv2(x) + net.conv3(x)

    torch.manual_seed(0)
    net = Net(
        middle,
        8,
        conv1=conv(16, 12),
        norm=nn.BatchNorm2d(12),
        conv2=conv(12, 8),
        conv3=conv(12, 8))
    assert masked_layers(net) == {'conv2.weight', 'conv3.weight'}


@pytest.mark.parametrize('selector,harden', [('dms', True), ('get', False)])
def test_what_is_masked_out_hears_what_it_was_good_for(selector, harden):
    """A rectifier passes no gradient at 0; masks written in by hand do."""
    net = chain(nn.BatchNorm2d(12), F.relu).double().eval()
    images = IMAGES.double()
    search = Search(net, images, '50%', selector=selector, seed=0)
    layout = search.space.layout
    unit = next(u for u in layout.units if u.name.startswith('conv1'))
    number = layout.units.index(unit)
    elements, kept = layout.slice_of(number), layout.size.clone()
    kept[number] = 5
    search.bank.set_kept(kept)
    if harden:
        search.bank.harden()
    net(images).square().sum().backward()
    masks = search.bank.current.detach()[elements].double()
    found = search.bank.masks.grad[elements].double()
    assert sorted(masks.round().tolist()) == 7 * [0.] + 5 * [1.]
    assert bool(((masks - masks.round()).abs() < 1e-6).all())
    search.close()
    by_hand = masks.round().requires_grad_()

    def middle(net, x):
        x = F.relu(net.norm(net.conv1(x)))
        return net.conv2(x * by_hand.view(1, -1, 1, 1))

    net.middle = middle
    net(images).square().sum().backward()
    assert torch.allclose(found, by_hand.grad, rtol=1e-4)
    assert bool((by_hand.grad[masks < .5].abs() > 1e-3).any())


@pytest.mark.parametrize('activation', [F.relu, F.silu])
def test_gradients_are_those_of_masked_activations(activation):
    """Against masks written into the forward pass by hand, float64."""
    net = chain(nn.BatchNorm2d(12), activation).double().eval()
    images = IMAGES.double()
    space = trace(net, images)
    unit = next(u for u in space.units if u.name.startswith('conv1'))
    elements = space.layout.slice_of(space.units.index(unit))
    masks = torch.ones(space.layout.E, dtype=torch.float64)
    masks[elements] = torch.linspace(.05, .95, 12, dtype=torch.float64)
    by_sites = masks.clone().requires_grad_()
    attach(net, space, lambda: by_sites)
    net(images).square().sum().backward()
    unmask(net)
    by_hand = masks.clone().requires_grad_()

    def middle(net, x):
        x = activation(net.norm(net.conv1(x)))
        return net.conv2(x * by_hand[elements].view(1, -1, 1, 1))

    net.middle = middle
    net(images).square().sum().backward()
    assert torch.allclose(by_sites.grad[elements], by_hand.grad[elements])
