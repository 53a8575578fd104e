# Copyright (c) dms_razor contributors. All rights reserved.
"""GET: hard masks forward, the gradient of their sum backward."""
import torch

from dms_razor.core import Bank, Layout, Unit

LAYOUT = Layout([
    Unit('a', 'width', 4),
    Unit('b', 'width', 1),
    Unit('c', 'depth', 4),
    Unit('d', 'width', 4, most=3),
])


def made(*ratios):
    bank = Bank(LAYOUT, selector='get')
    # The first element of a unit is the least important one.
    bank.importance = torch.arange(float(LAYOUT.E)).double()
    bank.ratios = torch.tensor(ratios).double()
    bank.refresh()
    return bank


def test_masks_are_hard():
    bank = made(.4, 0., .4, .6)  # 2.4, 1, 2.4 and 1.6 are to stay
    masks = bank.masks.detach()
    assert masks.round().tolist() == [0, 0, 1, 1] + [1] + [0, 0, 1, 1
                                                           ] + [0, 0, 1, 1]
    assert masks.round().bool().equal(bank.hard())
    # As good as 0, and not 0: tests/test_tracing/test_sites_folding.py.
    assert masks[0] == torch.finfo(torch.float32).eps


def test_a_unit_with_a_bound_begins_whole():
    bank = Bank(LAYOUT, selector='get')
    assert (bank.masks == 1).all() and bank.kept()[3] == 3
    bank.ratios = bank.selector.low
    bank.refresh()
    assert bank.masks[-4:].sum() == 3


def test_every_element_has_the_gradient_of_the_count():
    bank = made(.4, 0., .4, .6)
    slopes = torch.autograd.functional.jacobian(
        lambda ratios: bank.selector.soft(ratios, bank.ranks), bank.ratios)
    unit = LAYOUT.unit_of_element
    wanted = -torch.eye(4, dtype=torch.float64)[unit]
    wanted[unit == 1] = 0  # nothing to lose
    torch.testing.assert_close(slopes, wanted)
    sums = torch.autograd.functional.jacobian(bank.selector.counts,
                                              bank.ratios)
    assert slopes[unit == 0].sum() == sums[0, 0]


def test_the_cost_sees_blocks_leave_one_by_one():
    bank = made(0., 0., .4, 0.)
    place = LAYOUT.slice_of(2)
    torch.testing.assert_close(
        bank.resource_masks()[place],
        torch.tensor([0., .4, 1., 1.], dtype=torch.float64))
    assert bank.masks[place].round().tolist() == [0, 0, 1, 1]
    # At a whole number the block that is next has the whole gradient.
    for ratio, wanted in ((0., [-4, 0, 0, 0]), (.25, [0, -4, 0, 0])):
        bank.ratios = torch.tensor([0., 0., ratio, 0.]).double()
        slopes = torch.autograd.functional.jacobian(
            lambda r: bank.selector.expected(r, bank.ranks, None), bank.ratios)
        assert slopes[place, 2].tolist() == wanted
