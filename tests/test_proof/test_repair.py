# Copyright (c) dms_razor contributors. All rights reserved.
"""What is done about a space that does not hold."""
import pytest
import torch
from equality import assert_true, reasons
from small_nets import IMAGES, Block, build, conv, widths
from torch import nn
from torch.nn import functional as F

from dms_razor.proof.check import Checker
from dms_razor.proof.trials import trial
from dms_razor.trace import trace

OUT = dict(out=conv(16, 8))


class Sized(nn.Module):
    """Views its channels by a number of its own, which cannot follow."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = conv(16, 16), conv(16, 16)
        self.shape = dict(channels=16)

    def forward(self, x):
        y = self.conv1(x).view(len(x), self.shape['channels'], -1)
        return self.conv2(F.relu(y).view_as(x))


def test_only_the_channels_that_fail_are_fixed():
    net = build(
        lambda net, x: net.out(net.after(net.sized(net.before(x)))),
        before=conv(16, 16),
        sized=Sized(),
        after=conv(16, 12),
        out=conv(12, 8))
    space = assert_true(net, IMAGES)
    assert set(widths(space)) == {'stem', 'sized.conv2', 'after', 'out'}
    found = reasons(space)
    for name in ('before', 'sized.conv1'):  # what view and view_as tell apart
        assert 'invalid for input' in found[name]


def test_a_class_that_fails_twice_is_fixed_everywhere(monkeypatch):
    trials = []
    problem = Checker.problem

    def counting(self, *args):
        trials.append(1)
        return problem(self, *args)

    monkeypatch.setattr(Checker, 'problem', counting)
    net = build(
        lambda net, x: net.out(net.many(x)),
        many=nn.Sequential(*[Sized() for _ in range(8)]),
        **OUT)
    space = assert_true(net, IMAGES, number=1)
    assert set(widths(space)) == {'many.7.conv2', 'out'}
    assert 'Sized "many.1" cannot run with fewer channels' in reasons(
        space)['many.6.conv1']
    assert len(trials) < 20  # not eight times a search for the culprit


class Wide(nn.Module):
    """A stage whose caller asks it how wide its output is."""

    def __init__(self, width):
        super().__init__()
        self.conv = conv(16, width)
        self.out_channels = width

    def forward(self, x):
        return self.conv(x).flatten(2).transpose(1, 2)


class Asking(nn.Module):
    """Shapes the output of its stages by numbers it asks for."""

    def __init__(self):
        super().__init__()
        self.stage, self.last = Wide(12), conv(12, 8)

    def forward(self, x):
        x = self.stage(x)
        x = x.view(len(x), 8, 8, self.stage.out_channels)
        return self.last(x.permute(0, 3, 1, 2))


def test_a_number_that_callers_ask_for_follows():
    net = build(lambda net, x: net.asking(x), asking=Asking())
    space = assert_true(net, IMAGES)
    assert 'asking.stage.conv' in widths(space)
    assert set(space.attributes['asking.stage']) == {'out_channels'}


def test_a_removed_block_that_is_asked_for_a_number_keeps_no_width():
    """VAN asks the last block of each stage: widths of two stages stayed."""

    class Sizes(nn.Module):

        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList(
                nn.ModuleList(Block(n, act=nn.Identity()) for _ in range(2))
                for n in (16, 12))
            self.between, self.last = conv(16, 12), conv(12, 8)
            for stage in self.stages:
                for block in stage:
                    block.out_channels = block.conv2.out_channels

        def forward(self, x):
            for number, stage in enumerate(self.stages):
                for block in stage:
                    x = block(x)
                x = x.flatten(2).view(len(x), block.out_channels, 8, 8)
                x = self.last(x) if number else self.between(x)
            return x

    net = build(lambda net, x: net.sizes(x), sizes=Sizes())
    space = assert_true(net, IMAGES, number=1)
    assert len(widths(space)) == 2 + 4 + 1, 'streams, blocks, last'
    found = reasons(space)
    for block in ('0.0', '0.1', '1.0', '1.1'):
        assert "no attribute 'out_channels'" in found[f'sizes.stages.{block}']


def test_a_number_that_only_looks_alike_does_no_harm():

    class Alike(nn.Module):

        def __init__(self):
            super().__init__()
            self.piece = self.times = 8
            self.conv = conv(8, 8)

        def forward(self, x):
            a, b = x.split(self.piece, 1)
            return torch.cat([self.conv(a) * self.times, b], 1)

    net = build(lambda net, x: net.out(net.alike(x)), alike=Alike(), **OUT)
    space = assert_true(net, IMAGES)
    assert 'stem' not in widths(space)  # either number would be wrong alone


def test_repairs_come_to_an_end_with_everything_fixed():
    net = build(
        lambda net, x: net.out(x) *
        (1 + net.stem.out_channels + net.out.out_channels), **OUT)
    with pytest.raises(ValueError, match='nothing can be pruned'):
        trace(net, IMAGES)


class Standardised(nn.Conv2d):
    """As in networks without norms: variance 0 of one number is an error."""

    def forward(self, x):
        weight = F.batch_norm(
            self.weight.view(1, len(self.weight), -1), None, None, None, None,
            True, 0., 1e-6)
        return F.conv2d(x, weight.view_as(self.weight), self.bias)


@pytest.mark.parametrize('options, counts', [
    ({}, range(2, 13)),
    (dict(least=1), range(2, 13)),
    (dict(choices=[1, 3, 12]), (3, 12)),
])
def test_two_channels_stay_where_one_does_not_run(options, counts):
    net = build(
        lambda net, x: net.out(net.b(F.relu(net.a(x)))),
        a=conv(16, 12),
        b=Standardised(12, 10, 1),
        out=conv(10, 8))
    space = assert_true(net, IMAGES, units=dict(a=options))
    unit, = (u for u in space.units if u.name == 'a')
    assert tuple(unit.allowed) == tuple(counts)
    net.b.weight = nn.Parameter(net.b.weight[:, :1])  # what one would do
    with pytest.raises(ValueError, match='more than 1 value'):
        net.b(torch.ones(2, 1, 8, 8))


def test_nothing_to_choose_where_one_channel_does_not_run():
    net = build(
        lambda net, x: net.out(net.b(net.a(x))),
        a=conv(16, 12),
        b=Standardised(12, 10, 1),
        out=conv(10, 8))
    space = assert_true(net, IMAGES, units=dict(a=dict(choices=[1, 12])))
    assert 'does not run on one channel' in reasons(space)['a']


class Counting(nn.Module):
    """Looks at a layer that is not its own, and at none of its inputs."""

    def __init__(self, other):
        super().__init__()
        self.other = (other, )

    def forward(self, x):
        if len(self.other[0].weight) != 12:
            raise ValueError('it wants twelve')
        return x


def test_each_unit_is_told_the_problem_that_is_its_own():
    """Halving stopped at what fails by itself, later in the network."""
    late = conv(16, 12)
    net = build(
        lambda net, x: net.out(net.late(net.sized(net.gate(x)))),
        gate=Counting(late),
        sized=Sized(),
        late=late,
        out=conv(12, 8))
    found = reasons(assert_true(net, IMAGES, number=1))
    assert 'it wants twelve' in found['late']
    assert 'invalid for input' in found['sized.conv1']
    assert 'twelve' not in found['sized.conv1']


class Told(nn.Module):
    """Mixes an image given as tokens, and tells the next one its size."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(16, 12), nn.Linear(12, 16)
        self.mix = nn.Conv2d(12, 12, 3, padding=1, groups=12)

    def forward(self, x, size):
        y = self.into(x).transpose(1, 2).unflatten(2, [*size])
        y = self.mix(y)
        return self.out(y.flatten(2).transpose(1, 2)), y.shape[2:]


class Telling(nn.Module):
    """MViT: widths of all that fails stayed, then those of the culprit."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.parts = nn.ModuleList(Told() for _ in range(3))

    def forward(self, x):
        size, x = x.shape[2:], x.flatten(2).transpose(1, 2)
        for norm, part in zip(self.norms, self.parts):
            y, size = part(norm(x), size)
            x = x + y
        return x.transpose(1, 2).unflatten(2, [*size])


def test_what_a_removed_branch_does_not_tell_costs_no_width():
    net = build(
        lambda net, x: net.out(net.many(x)),
        many=nn.Sequential(Telling(), conv(16, 16), Telling()),
        **OUT)
    space = assert_true(net, IMAGES, number=1)
    parts = [f'many.{m}.parts.{n}' for m in (0, 2) for n in range(3)]
    assert set(widths(space)) == {
        'stem', 'many.1', 'out', *(f'{part}.into' for part in parts)
    }
    found = reasons(space)
    for part in parts:
        assert 'removing blocks fails' in found[part]


class Windows(nn.Module):
    """Cuts its channels up by a list in which a number stands twice."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.convs = nn.ModuleList(conv(n, n, groups=n) for n in sizes)

    def forward(self, x):
        parts = torch.split(x, self.sizes, 1)
        return torch.cat([c(x) for c, x in zip(self.convs, parts)], 1)


def test_numbers_in_a_list_follow_the_pieces_in_their_places():
    """Also if the module runs several times (as in CoaT)."""
    net = build(
        lambda net, x: net.out(net.cut(F.relu(net.cut(net.more(x))))),
        more=conv(16, 32),
        cut=Windows([8, 12, 12]),
        out=conv(32, 8))
    space = assert_true(net, IMAGES)
    sizes = [unit.size for unit in space.units if unit.name != 'stem']
    assert sizes.count(12) == 2 and 8 in sizes
    places = [space.attributes['cut'][f'sizes.{n}'] for n in range(3)]
    assert [len(place) for place in places] == [8, 12, 12]
    assert not set(places[1].tolist()) & set(places[2].tolist())


def test_units_of_few_choices_have_unlike_counts():
    net = build(lambda net, x: net.out(net.more(x)), more=conv(16, 16), **OUT)
    units = {'stem': dict(divisor=8), 'more': dict(divisor=8)}
    space = trace(net, IMAGES, units=units, check=False)
    kept = {
        unit.name: int(rows.sum())
        for unit, rows in zip(space.units, space.rows(trial(space, 2)))
    }
    assert kept['stem'] != kept['more'] and {1, 2
                                             } == {kept['stem'], kept['more']}
