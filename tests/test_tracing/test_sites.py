# Copyright (c) dms_razor contributors. All rights reserved.
"""Where masks act and how tensors shrink."""
import torch
from equality import assert_true
from small_nets import IMAGES, Block, build, conv
from torch import nn

from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace


def net():
    """A batch norm and two consumers of the stem."""
    return build(
        lambda net, x: net.out(torch.cat([net.norm(x),
                                          net.side(x)], 1)),
        norm=nn.BatchNorm2d(16),
        side=conv(16, 6),
        out=conv(22, 8))


def test_masks_act_on_what_reads_channels_and_nowhere_else():
    space = trace(net(), IMAGES)
    sites = {(s.module, s.tensor, s.axis): s.index for s in space.mask_sites}
    assert set(sites) == {('side', 'weight', 1), ('out', 'weight', 1),
                          ('head', 'weight', 1)}
    stem, side = (
        space.layout.slice_of(space.layout.index(name))
        for name in ('stem', 'side'))
    assert sites['out', 'weight', 1].tolist() == [
        *range(stem.start, stem.stop), *range(side.start, side.stop)
    ]


def test_every_tensor_that_holds_channels_shrinks():
    space = trace(net(), IMAGES)
    axes = {
        name: sorted(site.axis for site in sites)
        for name, sites in space.slice_sites.items()
    }
    assert axes == {
        'stem.weight': [0],
        'stem.bias': [0],
        'norm.weight': [0],
        'norm.bias': [0],
        'norm.running_mean': [0],
        'norm.running_var': [0],
        'side.weight': [0, 1],
        'side.bias': [0],
        'out.weight': [0, 1],
        'out.bias': [0],
        'head.weight': [1]
    }
    assert all(site.name == name for name, sites in space.slice_sites.items()
               for site in sites)


def test_numbers_of_layers_follow():
    network = net()
    space = trace(network, IMAGES)
    names = {path: set(found) for path, found in space.attributes.items()}
    assert names == {
        'stem': {'out_channels'},
        'norm': {'num_features'},
        'side': {'in_channels', 'out_channels'},
        'out': {'in_channels', 'out_channels'},
        'head': {'in_features'}
    }
    keep = torch.zeros(space.layout.E, dtype=torch.bool)
    for number in range(len(space.units)):
        keep[space.layout.slice_of(number).start] = True
    subnet = slice_model(network, space, keep)
    assert str(subnet.out) == str(conv(2, 1))
    assert str(subnet.norm) == str(nn.BatchNorm2d(1))
    assert str(subnet.head) == str(nn.Linear(1, 5))


def test_tensors_that_hold_no_channels_are_left_alone():

    def middle(net, x):
        return net.out(x + net.window)

    space = assert_true(
        build(
            middle,
            window=torch.rand(1, 1, 8, 8),
            unused=nn.Parameter(torch.rand(16)),
            out=conv(16, 8)), IMAGES)
    assert not {'window', 'unused'} & set(space.slice_sites)


def test_blocks_name_their_tails():
    space = trace(
        build(
            lambda net, x: net.out(net.blocks(x)),
            blocks=nn.Sequential(Block(), Block()),
            out=conv(16, 8)), IMAGES)
    assert [b.path for b in space.blocks] == ['blocks.0', 'blocks.1']
    first = space.layout.slice_of(space.layout.index('blocks')).start
    assert [b.element for b in space.blocks] == [first, first + 1]
    assert [t.module for b in space.blocks
            for t in b.tails] == ['blocks.0.norm', 'blocks.1.norm']
