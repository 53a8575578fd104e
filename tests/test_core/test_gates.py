# Copyright (c) dms_razor contributors. All rights reserved.
"""MES: a Gumbel-sigmoid gate for each element."""
import math
from functools import partial

import pytest
import torch

from dms_razor.core import Bank, ElementGates, Layout, Unit

LAYOUT = Layout([Unit('a', 'width', 3, groups=2), Unit('b', 'depth', 2)])
LOGITS = [2., -1., 0., 1., 0., -1., 4., -4.]


def made(**settings):
    bank = Bank(LAYOUT, selector=partial(ElementGates, **settings))
    bank.selector.numbers = torch.tensor(LOGITS).double()
    bank.refresh()
    return bank


def test_counts_and_ranks_are_those_of_the_logits():
    bank = made()
    p = [1 / (1 + math.exp(-x)) for x in LOGITS]
    wanted = torch.tensor([sum(p[:6]) / 2, sum(p[6:])]).double()
    torch.testing.assert_close(bank.counts(), wanted)
    torch.testing.assert_close(bank.resource_masks(), torch.tensor(p).double())
    # 1.6 of 3 round to 2; in each group the two highest.
    assert bank.kept().tolist() == [2, 1]
    assert bank.hard().tolist() == [
        True, False, True, True, True, False, True, False
    ]


@pytest.mark.parametrize('tau', [.1, 1.])
def test_gates_are_drawn(tau):
    bank = made(tau=tau)
    u = bank.selector.draws.uniform.tolist()
    gates = [
        1 / (1 + math.exp(-(x + math.log(n / (1 - n))) / tau))
        for x, n in zip(LOGITS, u)
    ]
    torch.testing.assert_close(bank.masks.tolist(), gates, atol=1e-6, rtol=0)


def test_cold_gates_are_open_as_often_as_they_should():
    selector = ElementGates(LAYOUT, tau=.01)
    numbers, often = torch.tensor(LOGITS).double(), 0
    for _ in range(2000):
        selector.draws.draw()
        often = often + selector.soft(numbers, None)
    torch.testing.assert_close(
        often / 2000, numbers.sigmoid(), atol=.04, rtol=0)


def test_set_counts_shift_the_logits_of_a_unit():
    bank = made()
    bank.set_kept(torch.tensor([1, 1]))
    shift = bank.selector.numbers - torch.tensor(LOGITS)
    for u in range(2):
        mine = shift[LAYOUT.slice_of(u)]
        torch.testing.assert_close(mine, mine[:1].expand_as(mine))
    torch.testing.assert_close(bank.counts(), torch.ones(2).double())


def test_a_temperature_is_positive():
    with pytest.raises(ValueError, match='tau of the gates is 0'):
        ElementGates(LAYOUT, tau=0)
