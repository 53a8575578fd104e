# Copyright (c) dms_razor contributors. All rights reserved.
"""What holds a network to its target, by a weight or exactly."""
import math

import pytest
import torch

from dms_razor.core import Axis, Cost, Layout, ResourceModel, Term, Unit
from dms_razor.core.bank import Bank
from dms_razor.core.constraint import Constraint

LAYOUT = Layout([Unit('a', 'width', 10), Unit('b', 'width', 10)])
RESOURCE = ResourceModel(
    [Axis((Term(1, (1 + i, )), )) for i in range(2)],
    [Cost(f'c{i}', 'Conv2d', 'macs', 1 + i, (i, ))
     for i in range(2)], LAYOUT)  # k_a + 2·k_b, at most 30


def counts(*kept):
    return torch.tensor(kept, dtype=torch.float64)


def bank_of(lr=.1):
    bank = Bank(LAYOUT, lr=lr)
    for _ in range(2):
        move(bank, lambda: bank.update())
    return bank


def move(bank, update):
    bank.masks.grad = torch.zeros(LAYOUT.E)
    bank.scale.grad = torch.ones(())
    assert update()


def test_loss_and_excess_by_hand():
    masks = torch.ones(LAYOUT.E, dtype=torch.float64)
    weighted = Constraint(RESOURCE, 'macs', None, 2.)
    assert weighted.loss(10., counts(4, 8),
                         masks).item() == pytest.approx(2 * math.log(2))
    assert weighted.loss(30., counts(4, 8), masks) == 0
    exact = Constraint(RESOURCE, 'macs', None, None)
    assert exact.weight == 'auto'
    assert exact.loss(10., counts(4, 8), masks).item() == pytest.approx(
        math.log(2))  # shown as with a weight of 1
    for target in (10., 40.):
        assert exact.excess(target, counts(4, 8),
                            masks).item() == pytest.approx(
                                math.log(20 / target))


def test_exactly_or_by_weight():
    exact, weighted = (
        Constraint(RESOURCE, 'macs', None, weight) for weight in (None, 1.))
    bank, other = bank_of(), bank_of()
    move(bank, lambda: exact.update(bank, 15.))
    move(other, lambda: weighted.update(other, 15.))
    assert RESOURCE(bank.counts(), bank.resource_masks()).item() \
        == pytest.approx(15, rel=1e-5)
    # One step of −lr·∂log(r_c)/∂a = lr·(10, 20)/30.
    torch.testing.assert_close(other.ratios, counts(.1 / 3, .2 / 3))


def test_a_loss_of_ones_own_may_have_a_weight():

    def loss(current, target):
        return 3 * (current - target)

    assert Constraint(RESOURCE, 'macs', loss, None).weight == 1.
    loss.loss_weight = 7.
    assert Constraint(RESOURCE, 'macs', loss, None).weight == 7.
    with pytest.raises(ValueError, match='loss_weight.*auto.*-1'):
        Constraint(RESOURCE, 'macs', None, -1)


def test_an_automatic_weight_is_no_licence_to_ignore_a_loss():
    """A subclass of the registered loss that computes another one."""

    def loss(current, target):
        return current

    loss.loss_weight = 'auto'
    assert Constraint(RESOURCE, 'macs', loss, None).weight == 1.
    loss.exact = True
    assert Constraint(RESOURCE, 'macs', loss, None).weight == 'auto'
