# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers that are left alone: frozen, outside of ``only``, without effect."""
import pytest
import torch
from mmrazor.registry import MODELS
from torch import nn
from toy_models import algorithm

from dms_razor import Search
from dms_razor.subnet import count_macs
from dms_razor.trace import trace

X = torch.randn(1, 3, 8, 8)


class Residual(nn.Module):

    def __init__(self):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(8, 12, 3, 1, 1), nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 8, 3, 1, 1)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.norm(self.conv1(x))))


class Net(nn.Module):
    """A backbone with blocks, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3), Residual(), Residual())
        self.head = nn.Sequential(
            nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))

    def forward(self, x):
        return self.head(self.backbone(x)).mean((2, 3))


def members(space):
    return {member for unit in space.units for member in unit.members}


def reasons(space):
    return {stay.module: stay.reason for stay in space.full_width}


def changed(net, space):
    """Parameters that some subnet has fewer numbers of."""
    names = {name for name, sites in space.slice_sites.items()}
    return {name.rpartition('.')[0]
            for name in names} | {block.path
                                  for block in space.blocks}


def test_only_a_part():
    assert 'head.0' in members(trace(Net(), X))
    space = trace(Net(), X, only='backbone.*')
    assert members(space) == {
        'backbone.0', 'backbone.1', 'backbone.2', 'backbone.1.conv1',
        'backbone.1.conv2', 'backbone.2.conv1', 'backbone.2.conv2'
    }
    assert reasons(space)['head.0'] == \
        '"head.0" is not in only=\'backbone.*\''
    space = trace(Net(), X, only=['head.*', 'backbone.2*'])
    # The stream of the backbone has members outside.
    assert members(space) == {'head.0', 'backbone.2', 'backbone.2.conv1'}
    assert [block.path for block in space.blocks] == ['backbone.2']
    assert 'backbone.1' in reasons(space)


def test_only_goes_with_units():
    space = trace(
        Net(), X, only='backbone.*', units={'*.conv1': dict(fixed=True)})
    assert not {'backbone.1.conv1', 'head.0'} & members(space)


@pytest.mark.parametrize('only, error, match', [
    ('neck.*', ValueError, "only='neck.*' matches no.*backbone, head. Corr"),
    ([], TypeError, 'no name pattern'),
    (['head.*', 3], TypeError, 'no name pattern'),
    ('head.1', ValueError, 'nothing can be pruned.*is not in only='),
])
def test_only_what_is_not_there(only, error, match):
    with pytest.raises(error, match=match):
        trace(Net(), X, only=only)


def test_frozen_layers_are_left_alone():
    net = Net()
    net.backbone.requires_grad_(False)
    whole = trace(net, X)
    assert {'backbone.0', 'backbone.1.conv1'} <= changed(net, whole)
    space = trace(net, X, frozen=False)
    assert changed(net, space) == {'head.0', 'head.2'}
    assert members(space) == {'head.0'} and not space.blocks
    assert 'frozen=False' in reasons(space)['backbone.1']
    assert 'requires_grad=False' in reasons(space)['backbone.0']


def test_a_frozen_norm_goes_with_its_channels():
    net = Net()
    net.backbone[1].norm.requires_grad_(False)
    space = trace(net, X, frozen=False)
    assert 'backbone.1.conv1' in members(space)


def test_a_frozen_layer_keeps_what_it_reads():
    net = Net()
    net.head[2].requires_grad_(False)
    assert 'head.0' not in members(trace(net, X, frozen=False))


def test_frozen_is_a_switch():
    with pytest.raises(TypeError, match="frozen='no' is neither"):
        trace(Net(), X, frozen='no')
    with pytest.raises(TypeError, match='frosen'):
        Search(Net(), X, frosen=False)


def test_both_in_a_config():
    settings = dict(only='backbone.*', frozen=False)
    model = algorithm(mutator=dict(type='mmrazor.DMSMutator', **settings))
    search = MODELS.build(model).search
    assert all(m.startswith('backbone.') for m in members(search.space))
    template = MODELS.build(model).mutator.config_template()
    assert {k: template[k] for k in settings} == settings


class Idle(Net):
    """Runs layers for nothing."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 16, 3), nn.Conv2d(16, 4, 3)

    def forward(self, x):
        x = self.backbone(x)
        self.second(self.first(x))
        return self.head(x).mean((2, 3))


def test_layers_without_effect_are_counted_and_named():
    net, space = Idle(), trace(Idle(), X)
    extra = 16 * 8 * 9 * 16 + 4 * 16 * 9 * 4
    assert space.resource.supernet() == count_macs(net, X).macs == \
        count_macs(Net(), X).macs + extra
    for path in ('first', 'second'):
        assert 'nothing that the network returns depends' in reasons(
            space)[path]
    assert not {'first', 'second'} & members(space)
    # What it reads is pruned as without it.
    assert members(space) == members(trace(Net(), X))


class Beside(Net):
    """Adds to a stream for nothing: the stream is pruned all the same."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.backbone(x)
        x + self.idle(x)
        return self.head(x).mean((2, 3))


def test_channels_that_others_make_too():
    space = trace(Beside(), X)
    assert 'backbone.0' in members(space)


def test_whole_numbers_are_a_result():
    """A class alone comes of these layers: too little to prove them."""

    class Both(Net):

        def __init__(self):
            super().__init__()
            self.more = nn.Sequential(
                nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 4, 1))

        def forward(self, x):
            x = self.backbone(x)
            return self.head(x), self.more(x).mean((2, 3)).argmax(1)

    assert 'more.0' in members(trace(Both(), X, check=False))


class Auxiliary(Net):
    """Always runs a head that only training returns."""

    def __init__(self):
        super().__init__()
        self.more = nn.Sequential(
            nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 4, 1))

    def forward(self, x):
        x = self.backbone(x)
        more = self.more(x).mean((2, 3))
        return (self.head(x), more) if self.training else self.head(x)


def test_what_training_alone_returns_is_not_without_effect():
    space = trace(Auxiliary(), X)
    assert 'nothing that' not in reasons(space).get('more.0', '')
    assert 'more.0' in members(space)


class Unseen(Idle):
    """What looks like it goes through code that no recording sees."""

    def forward(self, x):
        x = self.backbone(x)
        hidden = self.first(x).detach().double().numpy().mean()
        self.second(self.first(x))
        return self.head(x).mean((2, 3)) * float(hidden)


def test_what_other_code_uses_is_not_without_effect():
    net = Unseen()
    weight = net.first.weight.detach().clone()
    space = trace(net, X)
    assert 'nothing that' not in reasons(space)['first']
    assert 'nothing that' in reasons(space)['second']
    assert torch.equal(net.first.weight, weight)
