# Copyright (c) dms_razor contributors. All rights reserved.
"""SNS: a Gumbel softmax over the counts that a unit may keep."""
from functools import partial

import pytest
import torch

from dms_razor.core import Bank, Layout, NumberChoice, Unit

LAYOUT = Layout([
    Unit('a', 'width', 3),
    Unit('b', 'width', 6, groups=2, choices=(2, 5)),
    Unit('c', 'depth', 2),
])
LOGITS = [1., 0., 2.] + [0., 1.] + [-1., .5]


def made(**settings):
    bank = Bank(LAYOUT, selector=partial(NumberChoice, **settings))
    # The first element of a unit is the least important one.
    bank.importance = torch.arange(float(LAYOUT.E)).double()
    bank.selector.numbers = torch.tensor(LOGITS).double()
    bank.refresh()
    return bank


def by_hand(noise=None, tau=1.):
    """Masks and counts as sums over candidates, in loops."""
    numbers, noise = iter(LOGITS), iter(noise or [0.] * 8)
    masks, counts = [], []
    for unit in LAYOUT.units:
        logits = [(0. if count == 0 else next(numbers)) + next(noise)
                  for count in unit.allowed]
        chances = (torch.tensor(logits).double() / tau).softmax(0).tolist()
        counts.append(sum(p * c for p, c in zip(chances, unit.allowed)))
        masks += unit.groups * [
            sum(p for p, c in zip(chances, unit.allowed)
                if place >= unit.size - c) for place in range(unit.size)
        ]
    return torch.tensor(masks).double(), torch.tensor(counts).double()


def test_masks_are_weighted_prefix_masks():
    bank = made()
    masks, counts = by_hand()
    torch.testing.assert_close(bank.resource_masks(), masks)
    torch.testing.assert_close(bank.counts(), counts)
    # 2.15, 4.2 of 2 and 5, and 1.3 of 0, 1 and 2
    assert bank.kept().tolist() == [2, 5, 1]


@pytest.mark.parametrize('tau', [.3, 1.])
def test_the_network_sees_a_draw(tau):
    bank = made(tau=tau)
    noise = bank.selector.draws.gumbel.tolist()
    torch.testing.assert_close(
        bank.masks.detach().double(),
        by_hand(noise, tau)[0],
        atol=1e-6,
        rtol=0)


def test_each_count_above_none_has_a_number():
    bank = made()
    assert bank.selector.numbers.numel() == 3 + 2 + 2
    before = bank.selector.numbers
    bank.set_kept(torch.tensor([2, 5, 0]))
    tilt = (bank.selector.numbers - before)[:3].diff()
    torch.testing.assert_close(tilt[0], tilt[1])
    torch.testing.assert_close(bank.counts()[0], torch.tensor(2.).double())


def test_far_numbers_come_back():
    layout = Layout([Unit('a', 'width', 1000)])
    bank = Bank(layout, selector='sns')
    bank.set_kept(torch.tensor([1]))
    selector = bank.selector
    assert (selector.numbers >= selector.low).all()
    assert (selector.numbers <= selector.high).all()
    leaf = selector.numbers.clone().requires_grad_()
    slope, = torch.autograd.grad(selector.counts(leaf).sum(), leaf)
    assert slope[-1] > 1e-5


def test_a_temperature_is_positive():
    with pytest.raises(ValueError, match='tau of the choices is -1'):
        NumberChoice(LAYOUT, tau=-1)
