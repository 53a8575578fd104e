# Copyright (c) dms_razor contributors. All rights reserved.
import io

import pytest
import torch

from dms_razor.core import Bank, Layout, Unit
from .helpers import MaskedNet, task_loss

LAYOUT = MaskedNet.layout


def advance(bank, steps):
    net = MaskedNet()
    for _ in range(steps):
        (task_loss(net, bank.current) + bank.loss_anchor() +
         bank.current.sum()).backward()
        assert bank.update(lambda counts, masks: counts.sum() * .1)
    return bank


def test_a_resumed_search_is_the_same_search():
    whole = advance(Bank(LAYOUT, lr=.01), 9)
    buffer = io.BytesIO()
    torch.save(advance(Bank(LAYOUT, lr=.01), 4).state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    resumed = Bank(LAYOUT, lr=.01, seed=7)  # another first order
    assert resumed.load_state_dict(state) is None
    assert resumed.updates == 4
    advance(resumed, 5)
    for name in ('ratios', 'importance', 'order', 'ranks', 'masks'):
        assert getattr(resumed, name).equal(getattr(whole, name)), name


def test_the_order_of_ties_is_part_of_it():
    bank, other = Bank(LAYOUT, seed=1), Bank(LAYOUT, seed=2)
    assert not other.order.equal(bank.order)
    other.load_state_dict(bank.state_dict())
    assert other.order.equal(bank.order)
    kept = torch.tensor([3, 2, 2, 1, 1])
    bank.set_kept(kept)
    other.set_kept(kept)
    assert other.hard().equal(bank.hard())


def test_frozen_depth_is_part_of_it():
    bank = advance(Bank(LAYOUT, lr=.01), 5)
    bank.freeze_depth(torch.tensor([6, 4, 4, 2, 1]))
    other = Bank(LAYOUT)
    other.load_state_dict(bank.state_dict())
    assert other.depth_frozen and other.masks.equal(bank.masks)


def test_states_are_copies():
    bank = advance(Bank(LAYOUT), 3)
    state = bank.state_dict()
    state['ratios'].fill_(.5)
    assert not bank.ratios.equal(state['ratios'])
    other = Bank(LAYOUT)
    other.load_state_dict(state)
    state['ratios'].fill_(.25)
    assert bool((other.ratios == .5).all())


def change(name, value):

    def apply(state):
        if value is None:
            del state[name]
        elif callable(value):
            state[name] = value(state[name])
        else:
            state[name] = value

    return apply


@pytest.mark.parametrize('spoil, message', [
    (change('order', None), 'not the state of a search'),
    (change('extra', torch.ones(1)), 'not the state of a search.*extra'),
    (change('ratios', [0.] * 5), '"ratios" of the saved search is a list'),
    (change('ratios', lambda t: t[:3]), r'"ratios".*\(3,\).*\(5,\)'),
    (change('ratios', lambda t: t.float()), '"ratios".*float32.*float64'),
    (change('ratios', lambda t: t + 2), r'"ratios".*outside \[0, 1\]'),
    (change('ratios', lambda t: t * float('nan')), '"ratios".*outside'),
    (change('importance', lambda t: t - 1), '"importance".*negative'),
    (change('importance', lambda t: t / 0), '"importance".*not finite'),
    (change('order', lambda t: t.flip(0)), '"order".*every element'),
    (change('order', lambda t: t * 0), '"order".*every element'),
    (change('layout', lambda t: t[:4]), 'has 4 units, this network has 5'),
    (change('layout', lambda t: t[:, :3]), '"layout".*another version'),
])
def test_other_states_are_refused_and_change_nothing(spoil, message):
    state = advance(Bank(LAYOUT), 2).state_dict()
    spoil(state)
    bank = advance(Bank(LAYOUT), 3)
    before = bank.state_dict()
    with pytest.raises(ValueError, match=f'(?s){message}.*; load a check'):
        bank.load_state_dict(state)
    assert all(v.equal(before[k]) for k, v in bank.state_dict().items())


def test_units_of_another_network_are_named():
    units = list(LAYOUT.units)
    units[1] = Unit('other', 'width', 4)
    other = Bank(Layout(units))
    with pytest.raises(ValueError, match='1 units.*the first: other'):
        other.load_state_dict(Bank(LAYOUT).state_dict())


def test_a_plain_checkpoint_is_no_state():
    with pytest.raises(ValueError, match='not the state of a search'):
        Bank(LAYOUT).load_state_dict([1, 2])
