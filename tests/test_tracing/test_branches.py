# Copyright (c) dms_razor contributors. All rights reserved.
"""Branches that another module's forward adds; the truth is a sliced copy."""
import pytest
import torch
from equality import (assert_true, difference, keep_of, outputs, randomise,
                      reasons)
from small_nets import IMAGES, HandingOn, conv, depths, widths
from torch import nn
from torch.nn import functional as F
from trained_nets import assert_true_in_training

from dms_razor.subnet import build_subnet, export_subnet
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace

TOKENS = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(5))
ALL = slice(None)


class Adding(nn.Module):
    """``proj``, what ``run(net, x)`` does with it, ``head``.

    Args:
        run (Callable): Adds branches.
        layers (nn.Module): Attributes.
    """

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        self.proj, self.head = nn.Linear(16, 16), nn.Linear(16, 3)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.head(self.run(self, self.proj(x)))


def mlp(hidden=24, *last):
    return nn.Sequential(
        nn.Linear(16, hidden), nn.GELU(), nn.Linear(hidden, 16), *last)


def several(make, number=3):
    return nn.ModuleList(make() for _ in range(number))


def traced(run, **layers):
    torch.manual_seed(0)
    return assert_true(Adding(run, **layers), TOKENS, batch_size=2)


def gone(space):
    """Block -> modules that go with it, zeros marked."""
    return {
        block.path: [part.path + '!' * part.zero for part in block.stand_ins]
        for block in space.blocks
    }


def test_a_loop_over_layers_in_the_network_itself():

    def run(net, x):
        for norm, layer in zip(net.norms, net.layers):
            x = x + layer(norm(x))
        return x

    space = traced(
        run, norms=several(lambda: nn.LayerNorm(16)), layers=several(mlp))
    assert depths(space) == {'layers': ('layers.0', 'layers.1', 'layers.2')}
    assert gone(space)['layers.1'] == ['norms.1', 'layers.1!']
    assert len(widths(space)) == 4 and set(reasons(space)) == {'head'}


def test_additions_in_place_and_an_activation_behind():

    class Images(nn.Module):

        def __init__(self):
            super().__init__()
            self.stem, self.head = conv(3, 16), nn.Linear(16, 3)
            self.layers = several(lambda: nn.Sequential(
                conv(16, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 16),
                nn.BatchNorm2d(16)))

        def forward(self, x):
            x = self.stem(x).tanh()
            for layer in self.layers:
                y = layer(x)
                y += x
                x = F.mish(y)
            return self.head(x.mean((2, 3)))

    net = Images()
    space = assert_true(net, IMAGES)
    assert depths(space) == {'layers': ('layers.0', 'layers.1', 'layers.2')}
    assert [t.fold for b in space.blocks for t in b.tails] == [True] * 3
    assert_true_in_training(Images())


class Encoder(nn.Module):
    """Post-norm; the scale and the dropout of branches stand beside them."""

    def __init__(self, tuples=False):
        super().__init__()
        self.mix, self.tuples = Mix(tuples), tuples
        self.drop = nn.Dropout(.1)
        self.scale = nn.Parameter(torch.rand(16))
        self.fc1, self.fc2 = nn.Linear(16, 24), nn.Linear(24, 16)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)

    def forward(self, x):
        y = self.mix(tokens=x)
        y = self.drop(y[0] if self.tuples else y)
        x = self.norm1(x + self.scale * y)
        return self.norm2(self.fc2(F.relu(self.fc1(x))) + x)


class Mix(nn.Module):

    def __init__(self, tuples):
        super().__init__()
        self.inner, self.tuples = mlp(12), tuples

    def forward(self, tokens):
        y = self.inner(tokens) - tokens.mean(1, True)
        return (y, y.mean(1)) if self.tuples else y


@pytest.mark.parametrize('tuples', [False, True])
def test_post_norm_layers_lose_their_sublayers(tuples):

    def make():
        return Adding(
            lambda net, x: net.layers(x),
            layers=nn.Sequential(Encoder(tuples), Encoder(tuples)))

    space = assert_true(make(), TOKENS, batch_size=2)
    assert depths(space) == {
        'layers':
        ('layers.0.mix', 'layers.0.fc2', 'layers.1.mix', 'layers.1.fc2')
    }
    assert gone(space)['layers.0.fc2'] == ['layers.0.fc1', 'layers.0.fc2!']
    assert {b.branch[0].outputs for b in space.blocks[::2]} == {2 * tuples}
    assert not space.blocks[0].tails[0].fold and space.blocks[1].tails[0].fold
    assert_true_in_training(make(), TOKENS)


def test_branches_side_by_side_share_the_norm_in_front():

    def run(net, x):
        y = net.norm(x)
        return x + net.left(y) + net.right(y)

    space = traced(run, norm=nn.LayerNorm(16), left=mlp(), right=mlp(20))
    assert gone(space) == {'left': ['left!'], 'right': ['right!']}


def test_what_cannot_go_is_named():

    def own_product(net, x):
        y = net.value(x)
        return x + net.out(net.query(x) @ y.transpose(1, 2) @ y)

    space = traced(
        own_product,
        query=nn.Linear(16, 16),
        value=nn.Linear(16, 16),
        out=nn.Linear(16, 16))
    assert not space.blocks
    assert 'run by no module' in reasons(space)['out']

    space = traced(lambda net, x: x + net.layer(x).relu(), layer=mlp())
    assert not space.blocks
    assert 'not the output of a module' in reasons(space)['layer']

    layer = nn.Linear(16, 16)
    space = traced(
        lambda net, x: net.again(x + net.layer(x)), layer=layer, again=layer)
    assert not space.blocks


def test_inner_features_that_are_read_elsewhere():

    def run(net, x):
        inner = net.first(x)
        return x + net.second(inner.relu()), inner

    class Both(Adding):

        def forward(self, x):
            x, inner = self.run(self, self.proj(x))
            return self.head(x + self.up(inner))

    net = Both(
        run,
        first=nn.Linear(16, 24),
        second=nn.Linear(24, 16),
        up=nn.Linear(24, 16))
    space = assert_true(net, TOKENS, batch_size=2)
    assert 'used outside' in reasons(space)['second']


def test_of_branches_in_branches_the_inner_ones_are_the_elements():

    def run(net, x):
        y = x
        for layer in net.layers:
            y = y + layer(y)
        return x + net.last(y)

    space = traced(run, layers=several(mlp), last=nn.Linear(16, 16))
    assert set(gone(space)) == {'layers.0', 'layers.1', 'layers.2'}


def test_neither_the_whole_network_nor_a_piece_of_a_split_is_a_stream():

    def run(net, x):
        left, right = x.chunk(2, -1)
        return torch.cat([left + net.layer(right), right], -1)

    space = traced(run, layer=nn.Linear(8, 8))
    assert not space.blocks
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    whole = type('Whole', (nn.Module, ),
                 dict(forward=lambda self, x: x + self.net(x)))()
    whole.net = net
    assert not trace(whole, TOKENS, batch_size=2).blocks


def test_options_leave_branches_alone():

    def run(net, x):
        for layer in net.layers:
            x = x + layer(x)
        return x

    net = Adding(run, layers=several(mlp))
    net.layers[1][0].requires_grad_(False)
    space = trace(net, TOKENS, batch_size=2, frozen=False)
    assert depths(space) == {'layers': ('layers.0', 'layers.2')}
    space = trace(net, TOKENS, batch_size=2, only='layers.2')
    assert depths(space) == {'layers': ('layers.2', )}
    assert not trace(net, TOKENS, batch_size=2, depth=False).blocks


@pytest.mark.parametrize('tuples', [False, True])
def test_an_export_is_built_again(tmp_path, tuples):

    def make():
        torch.manual_seed(0)
        return Adding(
            lambda net, x: net.layers(x),
            layers=nn.Sequential(Encoder(tuples), Encoder(tuples)))

    net = make()
    space = trace(net, TOKENS, batch_size=2)
    keep = keep_of(space, lambda unit: unit.size
                   if unit.kind == 'width' else 1)
    done = export_subnet(tmp_path / 'subnet', net, space, keep, picture=False)
    assert len(done.manifest.branches) == 3
    built = build_subnet(make(), done.path, done.path / 'subnet.pth')
    for found in (built, slice_model(net, space, keep)):
        assert torch.equal(
            outputs(found, TOKENS)[0],
            outputs(done.model, TOKENS)[0])
    part = done.manifest.part('layers.1')
    assert set(part.branches) == {
        path[len('layers.1.'):]
        for path in done.manifest.branches if path.startswith('layers.1.')
    }


class Reversible(nn.Module):
    """A coupling that goes backward by itself, as reversible networks do."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return F.leaky_relu(x + self.inner(x))

    def backward_pass(self, x):
        """Would call backward on what ``inner`` returns."""


def test_what_goes_backward_by_itself_keeps_its_branches():
    layers = several(Reversible)
    space = traced(lambda net, x: run_all(net.layers, x), layers=layers)
    assert not space.blocks and 'layers.0' in reasons(space)


def run_all(layers, x):
    for layer in layers:
        x = layer(x)
    return x


@pytest.mark.parametrize('bare', [False, True])
def test_what_a_branch_hands_on_is_not_lost(bare):
    """Each subnet of depth alone: the middle one may not go."""
    net, x = HandingOn(bare), torch.randn(1, 5).double()
    net = randomise(net).double().eval()
    space = trace(net, x, check=False)
    gone = {block.path for block in space.blocks}
    assert 'parts.1' not in gone
    for unit, number in ((u, n) for n, u in enumerate(space.units)
                         if u.kind == 'depth'):
        for element in range(unit.size):
            keep = torch.ones(space.layout.E, dtype=torch.bool)
            keep[space.layout.slice_of(number).start + element] = False
            assert difference(net, space, keep, x) < 1e-12
