# Copyright (c) dms_razor contributors. All rights reserved.
"""A branch that was not taken may read what it likes: that stays."""
import pytest
import torch
from equality import randomise, reasons
from small_nets import IMAGES, Block, build, conv, depths, widths
from torch import nn
from torch.nn import functional as F

from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import record, run_model, trace
from dms_razor.tracing.unseen import unseen

OUT = dict(out=conv(16, 8))


def branch(extra, **layers):
    """``extra(net, x)`` joins on images larger than 16 pixels alone."""

    def run(net, x):
        y = net.out(net.more(x))
        return y + extra(net, x) if x.shape[-1] > 16 else y

    return build(run, more=conv(16, 16), **layers, **OUT)


def runs_large(net, space):
    """The smallest subnet runs the branch that was never seen."""
    keep = torch.zeros(space.layout.E, dtype=torch.bool)
    for number, unit in enumerate(space.units):
        rows = keep[space.layout.slice_of(number)].view(unit.groups, -1)
        rows[:, :unit.least] = True
    subnet = slice_model(net, space, keep).eval()
    with torch.no_grad():
        return subnet(torch.rand(2, 3, 20, 20)).shape == (2, 5)


@pytest.mark.parametrize('extra, layers, stays', [
    (lambda net, x: net.side(x), dict(side=conv(16, 8)), {'stem', 'more'}),
    (lambda net, x: net.side(net.norm(x)),
     dict(norm=nn.BatchNorm2d(16), side=conv(16, 8)), {'stem', 'more'}),
    (lambda net, x: net.side(torch.cat([x, x], 1)), dict(side=conv(32, 8)),
     {'stem', 'more', 'out'}),
    (lambda net, x: net.side(F.adaptive_avg_pool2d(x, 8).flatten(1))[
        ..., None, None], dict(side=nn.Linear(1024, 8)), {'stem', 'more'}),
    (lambda net, x: net.side(x),
     dict(side=nn.Sequential(conv(16, 4), nn.ReLU(), conv(4, 8))),
     {'stem', 'more'}),
])
def test_what_it_may_read_stays(extra, layers, stays):
    net = randomise(branch(extra, **layers))
    if not stays >= {'out'}:
        # What it may be added to is as wide as what it returns.
        stays = stays | {'out'}
    with pytest.raises(ValueError, match='"(side|norm)" was not run') as told:
        trace(net, IMAGES)
    assert all(f'{layer}: ' in str(told.value) for layer in stays)


def test_what_it_cannot_read_is_searched():
    net = branch(
        lambda net, x: net.side(net.thin(x)),
        inner=nn.Sequential(conv(16, 12), nn.ReLU(), conv(12, 16)),
        thin=conv(16, 24),
        side=conv(24, 8))
    old = net.middle
    net.middle = lambda net, x: old(net, net.inner(x))
    space = trace(net, IMAGES)
    assert widths(space) == {'inner.0': (12, 1)}
    told = reasons(space)
    assert told['side'].startswith('eval mode did not run it')
    assert 'may read' in told['inner.2'] and 'thin' in told
    assert runs_large(net, space)


class Careful(Block):
    """A block with another way for large images."""

    def __init__(self):
        super().__init__()
        self.large = conv(16, 16)

    def forward(self, x):
        return super().forward(x if x.shape[-1] < 16 else self.large(x))


def test_blocks_with_an_unseen_part_stay():
    net = randomise(
        build(
            lambda net, x: net.out(net.blocks(x)),
            blocks=nn.Sequential(Careful(), Careful(), Block()),
            **OUT))
    space = trace(net, IMAGES)
    assert 'blocks.0' not in depths(space).get('blocks', ())
    assert 'its part "blocks.0.large" was not run' in reasons(
        space)['blocks.0']
    assert 'stem' not in widths(space)
    assert runs_large(net, space)


def test_both_modes_count():
    """Neither mode ran it is said where both were recorded."""

    def run(net, x):
        if net.training:
            x = net.only(x)
        return net.out(x if x.shape[-1] < 16 else net.side(x))

    net = build(run, only=conv(16, 16), side=conv(16, 16), **OUT)
    space = trace(net, IMAGES)
    told = reasons(space)
    assert told['side'].startswith('neither eval nor train mode ran it')
    assert 'train mode alone' not in told.get('side', '')


def test_weights_that_are_read_without_a_call_were_seen():
    net = build(
        lambda net, x: net.out(x * net.gate.weight.mean()),
        gate=nn.Linear(3, 3),
        table=nn.Embedding(4, 9),
        group=nn.ModuleList([conv(16, 16), nn.Identity()]),
        shared=nn.Linear(8, 5),
        **OUT)
    net.shared.weight = net.head.weight
    net.shared.bias = net.head.bias
    assert unseen(record(net, (IMAGES, ), run_model)) == ['table', 'group']


def test_scripted_modules_were_seen():
    net = build(
        lambda net, x: net.out(net.script(x)),
        script=torch.jit.script(nn.Sequential(conv(16, 16), nn.ReLU())),
        **OUT)
    assert unseen(record(net, (IMAGES, ), run_model)) == []
