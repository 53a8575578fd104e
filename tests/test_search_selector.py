# Copyright (c) dms_razor contributors. All rights reserved.
"""A selector from outside the package: one number an element.

Each element has a gate of its own, the sigmoid of its number; a group is
expected to keep the sum of its gates, and keeps the most probable ones.
"""
import copy

import pytest
import torch
from torch.nn import functional as F
from toy_nets import make_search, plain_data, plain_net, train

from dms_razor import Search
from dms_razor.core import (SELECTORS, Bank, Layout, Selector, Unit,
                            hard_masks, rank_order, ranks_from_order)


class Gates(Selector):
    low, high = -12., 12.

    def __init__(self, layout, seed=0, start=4.):
        super().__init__(layout, seed)
        noise = torch.rand(
            layout.E, generator=torch.Generator().manual_seed(seed))
        self.numbers = start + .01 * noise.double()

    def soft(self, numbers, ranks):
        return numbers.sigmoid()

    def counts(self, numbers):
        sums = numbers.new_zeros(self.layout.U).index_add(
            0, self.layout.unit_of_element, numbers.sigmoid())
        return sums / self.layout.groups

    def score(self, importance):
        return self.numbers

    def set_kept(self, kept, units):
        ranks = ranks_from_order(
            rank_order(self.numbers, self.layout), self.layout)
        stay = hard_masks(kept, ranks, self.layout)
        moved = torch.where(stay, self.numbers.clamp(min=6.),
                            self.numbers.clamp(max=-6.))
        self.numbers = torch.where(units[self.layout.unit_of_element], moved,
                                   self.numbers)


@pytest.fixture(autouse=True)
def registered():
    SELECTORS.register('gates')(Gates)
    yield
    del SELECTORS['gates']


@pytest.fixture
def data():
    return plain_data()


def gate_search(net, **settings):
    return make_search(
        net, **dict(dict(selector='gates', lr=2., target=.6), **settings))


def searched(net, data, steps, **settings):
    search = gate_search(net, **settings)
    optimizer = torch.optim.SGD(net.parameters(), lr=.05)
    search.attach(optimizer)
    train(search, optimizer, data, steps)
    return search, optimizer


def test_it_searches_meets_its_budget_and_is_exported(data, tmp_path):
    net = plain_net()
    search, _ = searched(net, data, 36, width_only_steps=6)
    bank = search.bank
    assert bank.selector.numbers.shape == (bank.layout.E, )
    assert bank.depth_frozen and search.at_target
    # Elements of one unit have parted: a ratio could not say that.
    gates = bank.selector.numbers.sigmoid()
    first = gates[bank.layout.slice_of(0)]
    assert first.max() - first.min() > .1

    kept, selection = search.project(), search.keep()
    cost = search.resource(kept.double(), selection.double()).item()
    assert .99 * search.target <= cost <= search.target
    for u in range(bank.layout.U):
        place = bank.layout.slice_of(u)
        stay = selection[place]
        assert stay.sum() == kept[u]
        if 0 < kept[u] < len(stay):  # the most probable ones
            assert gates[place][stay].min() >= gates[place][~stay].max()

    export = search.export(tmp_path / 'subnet', picture=False)
    assert export.manifest.macs['counted'] == round(cost)
    net.eval(), export.model.eval()
    with search.masks('subnet'), torch.no_grad():
        torch.testing.assert_close(
            export.model(data[0]), net(data[0]), atol=1e-5, rtol=0)


def test_the_projection_moves_its_counts(data):
    search = gate_search(plain_net())
    bank = search.bank
    numbers = bank.selector.numbers
    numbers[bank.layout.slice_of(0)] = -1.  # 2.7 % instead of 98 %
    bank.refresh()
    wanted = (1 - bank.ratios) * bank.layout.size
    torch.testing.assert_close(wanted, bank.counts())
    kept = search.project(search.budget(.3))
    assert kept[0] / bank.layout.size[0] < kept[1] / bank.layout.size[1]
    bank.set_kept(kept)
    assert bank.kept().equal(kept)
    assert bank.hard().equal(bank.selector.numbers > 0)


def test_a_resumed_search_is_the_unbroken_one(data, tmp_path):
    net = plain_net()
    through, optimizer = searched(net, data, 6)
    torch.save(through.state_dict(), tmp_path / 'search.pth')
    weights = copy.deepcopy(net.state_dict())
    train(through, optimizer, data, 5)

    other = plain_net()
    other.load_state_dict(weights)
    resumed = gate_search(other, seed=5)
    state = torch.load(tmp_path / 'search.pth', weights_only=True)
    assert 'numbers' in state['bank'] and 'ratios' not in state['bank']
    resumed.load_state_dict(state, with_changes=True)  # of the seed
    optimizer = torch.optim.SGD(other.parameters(), lr=.05)
    resumed.attach(optimizer)
    train(resumed, optimizer, data, 5)
    for name in ('importance', 'order', 'masks'):
        assert getattr(resumed.bank, name).equal(getattr(through.bank, name))
    assert resumed.bank.selector.numbers.equal(through.bank.selector.numbers)


def test_states_of_other_selectors_are_refused():
    gates, ratios = gate_search(plain_net()), make_search(plain_net())
    with pytest.raises(ValueError, match='keys should be.*numbers'):
        gates.load_state_dict(ratios.state_dict(), with_changes=True)
    state = gates.state_dict()
    state['bank']['numbers'][0] = float('inf')
    before = gates.bank.selector.numbers
    with pytest.raises(ValueError, match='"numbers".*lie outside.*; load'):
        gates.load_state_dict(state)
    assert gates.bank.selector.numbers is before


def test_the_numbers_follow_both_losses(data):
    """Against central differences of the sum of both, one step of SGD."""
    net = plain_net().double()
    images, labels = data[0].double(), data[1]
    search = Search(
        net,
        images[:1],
        selector=Gates,
        total_steps=30,
        lr=1e-3,
        loss_weight=1.,
        harden=0.)
    search.own_clock = False
    search.advance(30)
    bank, numbers = search.bank, search.bank.selector.numbers.clone()
    numbers += torch.linspace(-4, 1, len(numbers))
    bank.updates = 1

    def loss(at):
        bank.selector.numbers = at.clone()
        bank.refresh()
        return search.loss(F.cross_entropy(net(images), labels))

    slopes = []
    for i in (0, 17, len(numbers) - 1):
        step = torch.zeros_like(numbers)
        step[i] = 1e-5
        slopes.append(
            (loss(numbers + step) - loss(numbers - step)).item() / 2e-5)
    loss(numbers).backward()
    search.step()
    moved = ((numbers - bank.selector.numbers) / bank.lr)[[0, 17, -1]]
    torch.testing.assert_close(
        moved, torch.tensor(slopes).double(), rtol=1e-4, atol=1e-7)


def test_classes_options_and_instances():
    layout = Layout([Unit('a', 'width', 4)])
    assert (Bank(layout, selector=Gates).selector.numbers > 3).all()
    made = Gates(layout, start=1.)
    assert Bank(layout, selector=made).selector is made
    with pytest.raises(ValueError, match='Gates.*other units'):
        Bank(Layout([Unit('b', 'width', 4)]), selector=made)
    with pytest.raises(ValueError, match='"gate".*did you mean "gates"'):
        Bank(layout, selector='gate')
    with pytest.raises(AttributeError):
        Bank(layout, selector=Gates).ratios = torch.zeros(1)


def test_steps_of_the_preflight_are_those_of_its_numbers():
    told = gate_search(plain_net(), loss_weight=1.).preflight().steps
    other = make_search(plain_net(), lr=2., loss_weight=1.)
    assert told not in (None, other.preflight().steps)
