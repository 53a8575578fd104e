# Copyright (c) dms_razor contributors. All rights reserved.
"""Arguments that contradict each other, or would have no effect."""
import pytest
import torch
from mmrazor.registry import MODELS
from toy_models import algorithm
from toy_nets import make_search, plain_net

from dms_razor import Search
from dms_razor.core import Bank, Layout, Unit
from dms_razor.masking import MaskedLayer
from dms_razor.openmmlab import ResourceConstraintLoss
from dms_razor.trace import trace

IMAGE = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def net():
    return plain_net()


@pytest.mark.parametrize('idle', [
    dict(example_inputs=IMAGE),
    dict(units={'no_such_unit': dict(fixed=True)}, depth=False),
    dict(depth=True),
    dict(width=False),
    dict(heads=False),
    dict(qk=False),
    dict(v=True),
])
def test_a_space_is_what_it_was_traced_to_be(net, idle):
    space = trace(net, IMAGE)
    names = ', '.join(f'{name}=' for name in idle)
    with pytest.raises(ValueError, match=f'{names} would.* beside space='):
        Search(net, space=space, **idle)
    search = Search(net, space=space, total_steps=9)
    assert search.space is space


@pytest.mark.parametrize(
    'name, value',
    dict(importance='snip', decay=.9, selector='dms', lr=.1, seed=1).items())
def test_a_bank_has_its_own_settings(net, name, value):
    space = trace(net, IMAGE)
    bank = Bank(space.layout, lr=.3)
    with pytest.raises(ValueError, match=f'{name}= would.* beside bank='):
        Search(net, space=space, bank=bank, **{name: value})
    search = Search(net, space=space, bank=bank)
    assert search.bank is bank and search.preflight().lr == .3


def test_a_bank_of_other_units(net):
    bank = Bank(Layout([Unit('a', 'width', 4)]))
    with pytest.raises(ValueError, match='other units'):
        Search(net, IMAGE, bank=bank)


def test_a_constraint_has_its_own_weight(net):
    constraint = ResourceConstraintLoss(10.)
    with pytest.raises(ValueError, match='loss_weight= .* beside constraint='):
        make_search(net, constraint=constraint, loss_weight=10.)
    steps = [
        make_search(plain_net(), lr=.005, **settings).preflight().steps
        for settings in (dict(constraint=constraint), dict(loss_weight=10.),
                         dict(loss_weight=1.))
    ]
    assert steps[0] == steps[1] < steps[2] / 5


def test_decay_needs_a_moving_average(net):
    with pytest.raises(ValueError, match='decay=0.9 has no effect'):
        make_search(net, importance='index', decay=.9)


@pytest.mark.parametrize('lengths', [
    dict(warmup_steps=3),
    dict(width_only_steps=3),
])
def test_lengths_beside_none(net, lengths):
    with pytest.raises(ValueError, match='total_steps is None'):
        Search(net, IMAGE, **lengths)
    assert not any(isinstance(m, MaskedLayer) for m in net.modules())


def test_without_a_length_there_is_no_target_yet(net):
    search = Search(net, IMAGE)
    loss = torch.zeros((), requires_grad=True)
    with pytest.raises(RuntimeError, match='no length yet.*total_steps'):
        search.loss(loss)
    assert not search.at_target
    search.set_length(5)
    assert search.loss(loss) == 0
    assert search.preflight().total_steps == 5


def test_two_input_shapes_of_a_config():
    cfg = algorithm(mutator=dict(input_shape=(3, 32, 32)))
    with pytest.raises(ValueError, match='beside mutator.input_shape='):
        MODELS.build(cfg)
    cfg['input_shape'] = None
    assert MODELS.build(cfg).search.space.input_shape == (1, 3, 32, 32)
