# Copyright (c) dms_razor contributors. All rights reserved.
"""Masks and resource that are worked out once between two updates."""
import copy
import pickle
from functools import partial

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
    bank = bank_of()
    first = bank.graph.resource(bank, partial(loss, 4.))
    assert bank.graph.resource(bank, partial(loss, 4.))[1] is first[1]
    second = bank.graph.resource(bank, partial(loss, 3.))
    assert second[0] != first[0] and not torch.equal(second[1], first[1])


def test_copies_and_files_have_none():
    bank = bank_of()
    for again in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank.graph))):
        if isinstance(again, MaskGraph):
            assert not again.fits(bank)
        else:
            assert torch.equal(again.resource_masks(), bank.resource_masks())
