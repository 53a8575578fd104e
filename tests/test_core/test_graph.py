# Copyright (c) dms_razor contributors. All rights reserved.
"""Masks and resource that are worked out once between two updates."""
import copy
import pickle
from functools import partial

import pytest
import torch

from dms_razor.core.bank import Bank
from dms_razor.core.graph import MaskGraph
from dms_razor.core.layout import Layout, Unit

LAYOUT = Layout([Unit('a', 'width', 6), Unit('b', 'depth', 3)])


def bank_of(**settings):
    bank = Bank(LAYOUT, dtype=torch.float64, **settings)
    bank.importance = torch.arange(9.).double()
    bank.ratios = torch.tensor([.3, .4], dtype=torch.float64)
    bank.refresh()
    return bank


def loss(target, counts, masks):
    return (counts.sum() - target).square() + (masks**2).sum()


def test_slopes_are_finite_differences():
    bank = bank_of()
    grad = torch.randn(9).double()
    value, slope = bank.graph.resource(bank, partial(loss, 4.))
    assert value == loss(4., bank.counts(), bank.resource_masks())
    task = bank.graph.task_slope(grad)
    ratios, step = bank.ratios.clone(), 1e-6
    for unit in range(2):
        sides = []
        for sign in (1, -1):
            bank.ratios = ratios.clone()
            bank.ratios[unit] += sign * step
            sides.append(
                torch.stack(((bank.both_masks()[0] * grad).sum(),
                             loss(4., bank.counts(), bank.resource_masks()))))
        found = (sides[0] - sides[1]) / (2 * step)
        assert torch.allclose(
            found, torch.stack((task[unit], slope[unit])), atol=1e-7)


def test_it_is_made_anew_when_something_has_changed():
    bank = bank_of()
    graph = bank.graph
    assert bank.graph is graph and graph.fits(bank)
    bank.ratios += .1  # in place
    assert not graph.fits(bank)
    assert torch.equal(bank.resource_masks(), bank.both_masks()[1])
    graph = bank.graph
    bank.ratios = bank.ratios + .1
    assert bank.graph is not graph
    graph = bank.graph
    bank.importance = -bank.importance
    bank.refresh()
    assert bank.graph is not graph
    assert torch.equal(bank.resource_masks(), bank.both_masks()[1])
    graph = bank.graph
    bank.freeze_depth()
    assert bank.graph is not graph


def test_another_target_is_another_loss():
    bank, calls = bank_of(), []

    class Loss:

        def __init__(self, target):
            self.target = target

        def __call__(self, counts, masks):
            calls.append(self.target)
            return loss(self.target, counts, masks)

        def __eq__(self, other):
            return self.target == other.target

    first = bank.graph.resource(bank, Loss(4.))
    assert bank.graph.resource(bank, Loss(4.))[1] is first[1]
    second = bank.graph.resource(bank, Loss(3.))
    assert second[0] != first[0] and not torch.equal(second[1], first[1])
    assert calls == [4., 3.]


@pytest.mark.parametrize('own', (False, True))
def test_a_weight_that_changes_between_two_losses(own):
    """As a schedule of one's own does; of a loss of one's own, too."""
    from toy_nets import make_search, plain_data, plain_net

    from dms_razor.openmmlab.loss import ResourceConstraintLoss

    class Own(ResourceConstraintLoss):

        def forward(self, current, target):
            return self.loss_weight * (current / target - .5).square()

    constraint = (Own if own else ResourceConstraintLoss)(1.)
    search = make_search(
        plain_net(), target='50%', constraint=constraint, lr=1e-6)
    search.own_clock = False
    search.advance(25)  # the target has fallen
    before = search.bank.ratios.clone()
    first = float(search.resource_term().detach())
    assert first > 0
    constraint.loss_weight = 10.
    assert abs(float(search.resource_term().detach()) - 10 * first) < 1e-5
    images, labels = plain_data()
    moved = []
    for weight in (10., 1e4):
        for _ in range(2):  # in the first update ratios rest
            search.bank.selector.numbers = before.clone()
            search.bank.refresh()
            search.loss(
                torch.nn.functional.cross_entropy(
                    search.model(images), labels)).backward()
            constraint.loss_weight = weight
            search.step()
        moved.append((search.bank.ratios - before).abs().sum())
    assert moved[1] > 2 * moved[0] > 0


def test_copies_and_files_have_none():
    bank = bank_of()
    for again in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank.graph))):
        if isinstance(again, MaskGraph):
            assert not again.fits(bank)
        else:
            assert torch.equal(again.resource_masks(), bank.resource_masks())
