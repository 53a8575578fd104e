# Copyright (c) dms_razor contributors. All rights reserved.
"""The check that a space passes before it is used finds what rules miss."""
import pytest
import torch
from equality import assert_true, reasons, unit_table
from small_nets import IMAGES, Block, build, conv, depths, widths
from torch import nn
from torch.nn import functional as F

from dms_razor.proof.check import Checker, check_space, trial
from dms_razor.trace import record, run_model, trace
from dms_razor.tracing.builder import SpaceBuilder
from dms_razor.tracing.options import Options

OUT = dict(out=conv(16, 8))


def unchecked(net, **options):
    """The builder and the space before any check."""
    builder = SpaceBuilder(
        record(net, (IMAGES, ), run_model), Options(**options))
    return builder, builder.build()


def checker(net):
    """A checker of the network on the images."""
    return Checker(net, (IMAGES, ), run_model)


HIDDEN = dict(
    # What no rule can see: the numbers themselves.
    mean=lambda net, x: net.out(net.more(x) / x.shape[1]),
    branch=lambda net, x: net.out(net.more(x) * (2 if x.shape[1] > 8 else 1)),
)


@pytest.mark.parametrize('name', ['mean', 'branch'])
def test_code_that_computes_with_widths_is_found(name):
    net = build(HIDDEN[name], more=conv(16, 16), **OUT)
    _, space = unchecked(net)
    assert 'stem' in widths(space)
    problem = checker(net).first_problem(space)
    assert problem.module is None and 'outputs differ' in problem.reason
    space = assert_true(net, IMAGES)
    assert widths(space) == {'more': (16, 1), 'out': (8, 1)}
    assert 'changes what the network computes' in reasons(space)['stem']


def test_a_true_space_has_no_problem():
    net = build(lambda net, x: net.out(net.block(x)), block=Block(), **OUT)
    builder, space = unchecked(net)
    assert checker(net).first_problem(space) is None
    assert check_space(net, (IMAGES, ), run_model, builder, space) is space


def test_a_wrong_index_is_found():
    # One consumer of the stem has its channels in another order.
    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 16), **OUT)
    builder, space = unchecked(net)
    axis = builder.facts.axes['out.weight', 1]
    axis.labels = axis.labels.flip(0)
    problem = checker(net).first_problem(builder.build())
    assert 'outputs differ' in problem.reason


def test_a_forgotten_tensor_is_found():
    net = build(
        lambda net, x: net.out(net.norm(x)), norm=nn.BatchNorm2d(16), **OUT)
    builder, space = unchecked(net)
    del builder.facts.axes['norm.running_var', 0]
    problem = checker(net).first_problem(builder.build())
    assert problem.module == 'norm'
    assert 'running_var should contain' in problem.reason


@pytest.mark.parametrize('scale', [0., 1e-7])
def test_what_a_tiny_scale_hides_is_found(scale):

    class Hidden(nn.Module):

        def __init__(self):
            super().__init__()
            self.conv = conv(16, 16)
            self.gamma = nn.Parameter(torch.full((1, 16, 1, 1), scale))

        def forward(self, x):
            return x + self.gamma * (self.conv(x) / x.shape[1])

    net = build(lambda net, x: net.out(net.hidden(x)), hidden=Hidden(), **OUT)
    assert widths(trace(net, IMAGES)) == {'out': (8, 1)}


def test_what_fades_away_through_many_layers_is_found():
    # With PyTorch's initialisation nothing of the input arrives.
    layers = [nn.Sequential(conv(16, 16), nn.ReLU()) for _ in range(24)]
    net = build(
        lambda net, x: net.out(net.deep(net.more(x) * x.shape[1])),
        more=conv(16, 16),
        deep=nn.Sequential(*layers),
        **OUT)
    assert 'stem' not in widths(trace(net, IMAGES, depth=False))


def test_random_numbers_are_the_same_in_both_networks():
    net = build(lambda net, x: net.out(x + torch.rand(len(x), 1, 8, 8)), **OUT)
    assert_true(net, IMAGES)


def test_decisions_between_neighbours_are_the_same_in_both_networks():
    # A sum in another order would often pick another of equal candidates.
    def middle(net, x):
        x = net.more(x)
        score = (x.mean((2, 3), keepdim=True) * 1e6).sigmoid().round()
        return net.out(x * score)

    net = build(middle, more=conv(16, 16), **OUT)
    space = trace(net, IMAGES)
    assert set(widths(space)) == {'stem', 'more', 'out'}


def test_networks_that_cast_are_compared_in_their_own_types():

    class Single(nn.Module):

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 16, 1, 1))

        def forward(self, x):
            return F.conv2d(x.float(), self.weight.float())

    net = build(lambda net, x: net.out(x), out=Single())
    found = checker(net)
    _, space = unchecked(net)
    assert found.probe.stem.weight.dtype == torch.float64
    assert found.first_problem(space) is None
    assert found.probe.stem.weight.dtype == torch.float32
    assert set(unit_table(assert_true(net, IMAGES))) == {'stem', 'out'}


def test_half_precision():
    net = build(lambda net, x: net.out(x), **OUT).bfloat16()
    space = trace(net, IMAGES.bfloat16())
    assert set(widths(space)) == {'stem', 'out'}


def test_outputs_that_are_not_finite_are_compared_where_they_are():
    net = build(lambda net, x: net.out(x).relu().log(), **OUT)
    assert set(widths(trace(net, IMAGES))) == {'stem', 'out'}


def test_a_network_that_does_not_compute_the_same_twice():

    class Moody(nn.Module):
        calls = 0

        def forward(self, x):
            Moody.calls += 1
            return x * Moody.calls

    net = build(lambda net, x: net.out(net.moody(x)), moody=Moody(), **OUT)
    with pytest.raises(RuntimeError) as error:
        trace(net, IMAGES)
    message = str(error.value)
    assert 'does not compute the same twice' in message
    assert 'Make it repeatable' in message
    assert set(widths(trace(net, IMAGES, check=False))) == {'stem', 'out'}


def test_the_network_itself_is_not_pruned_or_masked():
    net = build(lambda net, x: net.out(x), **OUT)
    found = checker(net)
    assert found.probe is not net
    before = [p.clone() for p in net.parameters()]
    found.first_problem(unchecked(net)[1])
    assert all(map(torch.equal, before, net.parameters()))
    assert type(net.out) is nn.Conv2d


def test_trials_are_unlike():
    net = build(
        lambda net, x: net.out(net.grouped(net.blocks(x))),
        blocks=nn.Sequential(Block(), Block(), Block()),
        grouped=conv(16, 16, groups=4),
        out=conv(16, 8))
    _, space = unchecked(net, units={'grouped': dict(least=2, most=3)})
    depth = space.layout.depth_elements
    all_blocks, smallest, mixed = (trial(space, n) for n in range(3))
    assert all_blocks[depth].all() and not smallest[depth].any()
    for keep in (all_blocks, smallest, mixed):
        for number, unit in enumerate(space.units):
            rows = keep[space.layout.slice_of(number)].view(unit.groups, -1)
            kept, = rows.sum(1).unique().tolist()
            assert unit.least <= kept <= unit.most
            if keep is smallest:
                assert kept == unit.least
            elif unit.kind == 'width':
                assert kept < unit.size


def test_a_check_can_be_left_out():
    net = build(HIDDEN['mean'], more=conv(16, 16), **OUT)
    assert 'stem' in widths(trace(net, IMAGES, check=False))


def test_depth_alone_is_checked_too():

    class Counting(nn.Module):
        """Scales by how many of its blocks are there."""

        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x):
            there = sum(isinstance(b, Block) for b in self.blocks)
            for block in self.blocks:
                x = block(x)
            return x * there

    net = build(lambda net, x: net.out(net.stage(x)), stage=Counting(), **OUT)
    space = assert_true(net, IMAGES)
    assert not depths(space)
    assert 'removing blocks fails' in reasons(space)['stage.blocks.0']
