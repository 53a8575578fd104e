# Copyright (c) dms_razor contributors. All rights reserved.
"""Several budgets at once, against costs that are added up by hand."""
import itertools
import math

import pytest
import torch

from dms_razor.core import (Axis, Cost, Layout, ResourceModel, TargetError,
                            Term, Unit, initial_order, project,
                            ranks_from_order)
from dms_razor.core.bank import Bank
from dms_razor.core.constraint import Constraint
from dms_razor.core.descent import descend
from dms_razor.core.limits import Limits

# x costs k_a + 2·k_b, at most 36; y costs 3·k_a·k_b, at most 432.
LAYOUT = Layout([Unit('a', 'width', 12), Unit('b', 'width', 12)])
AXES = [Axis((Term(1, (1 + i, )), )) for i in range(2)]
COSTS = [
    Cost('c0', 'Linear', 'x', 1, (0, )),
    Cost('c1', 'Linear', 'x', 2, (1, )),
    Cost('c2', 'Linear', 'y', 3, (0, 1))
]
RESOURCE = ResourceModel(AXES, COSTS, LAYOUT)
RANKS = ranks_from_order(initial_order(LAYOUT), LAYOUT)
ONES = torch.ones(LAYOUT.E).double()


def kept(*counts):
    return torch.tensor(counts).double()


def both(x=18., y=216.):
    return Limits(RESOURCE, dict(x=x, y=y))


def test_tightness_by_hand():
    limits = both(x=18., y=108.)
    assert limits.name == 'x and y'
    rows = kept((4, 8), (12, 3), (12, 12))
    masks = ONES.expand(3, -1)
    torch.testing.assert_close(
        limits.resource(rows, masks, 'x and y'),
        kept(20 / 18, 18 / 18, 432 / 108))
    assert limits.shares(rows[0], ONES) == {'x': 20 / 18, 'y': 96 / 108}
    assert limits.resource.supernet('x and y') == 4
    assert 'x and y' not in limits.resource.metrics
    assert RESOURCE.metrics == ('x', 'y'), 'the other model is as it was'


def test_masks_of_each_metric_are_its_own():
    """One metric has a block, the other has none of it."""
    layout = Layout([Unit('a', 'width', 4), Unit('d', 'depth', 3)])
    costs = [
        Cost('w', 'Linear', 'x', 1, (0, )),
        *(Cost(f'b{i}', 'Linear', 'y', 10**i, (0, ), (4 + i, ))
          for i in (0, 2))
    ]
    resource = ResourceModel([Axis((Term(1, (1, )), ))], costs, layout)
    limits = Limits(resource, dict(x=2., y=101.))
    masks = torch.tensor([1, 1, 1, 1, .5, 7., .25]).double()
    assert float(limits.resource(kept(3, 2), masks,
                                 limits.name)) == max(3 / 2,
                                                      3 * (.5 + 25) / 101)


def test_each_target_falls_from_its_own_start():
    limits = both(x=9., y=216.)  # a quarter and a half
    assert limits.at(4.) == {'x': 36, 'y': 432}
    assert limits.at(1.) == {'x': 9, 'y': 216}
    halfway = limits.at(2.)  # equation 10, at e = E / 2
    assert halfway['x'] == pytest.approx(36 * .25**.5)
    assert halfway['y'] == pytest.approx(432 * .5**.5)
    assert both(x=36., y=432.).at(1.) == {'x': 36, 'y': 432}
    assert limits.upto(2.) == {'x': 18, 'y': 432}


def test_each_metric_has_its_own_hinge():
    constraint = Constraint(RESOURCE, 'x', None, 2.)
    constraint.limits = both(x=18., y=108.)
    loss, excess = (
        lambda *counts: float(constraint.loss(1., kept(*counts), ONES)),
        lambda *counts: float(constraint.excess(1., kept(*counts), ONES)))
    assert loss(4, 8) == pytest.approx(2 * math.log(20 / 18))  # y is 96
    assert loss(12, 2) == 0
    assert loss(12, 12) == pytest.approx(
        2 * (math.log(36 / 18) + math.log(432 / 108)))
    assert excess(4, 8) == pytest.approx(math.log(20 / 18))
    assert excess(12, 12) == pytest.approx(math.log(4))
    assert excess(12, 2) == pytest.approx(math.log(16 / 18))


@pytest.mark.parametrize('x, y, binds', [(18., 400., 'x'), (34., 100., 'y')])
def test_a_step_meets_the_one_that_binds(x, y, binds):
    bank = Bank(LAYOUT, lr=.1)
    constraint = Constraint(RESOURCE, 'x', None, None)
    constraint.limits = both(x=x, y=y)
    for _ in range(3):
        bank.masks.grad = torch.zeros(LAYOUT.E)
        bank.scale.grad = torch.ones(())
        assert constraint.update(bank, 1.)
    shares = constraint.limits.shares(bank.counts(), ONES)
    assert shares[binds] == pytest.approx(1, rel=1e-5)
    assert max(shares.values()) <= 1 + 1e-5
    assert len(set(shares.values())) == 2


@pytest.mark.parametrize('x, y', [(18, 400), (34, 100), (20, 120), (5, 14)])
def test_projection_meets_all_and_fills_one(x, y):
    """Against every network of the space."""
    limits = both(x=float(x), y=float(y))
    found = project(
        LAYOUT,
        limits.resource,
        torch.tensor([.5, .2]),
        limits.name,
        1.,
        ranks=RANKS).tolist()

    def fits(a, b):
        return a + 2 * b <= x and 3 * a * b <= y

    assert fits(*found)
    networks = itertools.product(range(1, 13), repeat=2)
    best = max(
        max((a + 2 * b) / x, 3 * a * b / y) for a, b in networks if fits(a, b))
    a, b = found
    assert max((a + 2 * b) / x, 3 * a * b / y) >= min(.99, best)


def test_the_resource_alone_arrives():
    limits = both(x=20., y=216.)
    ratios = descend(
        LAYOUT, limits.resource, limits.name, 1., speed=1e-2).ratios
    shares = limits.shares((1 - ratios) * 12, ONES)
    assert max(shares.values()) == pytest.approx(1, abs=.03)


def test_the_even_network_says_which_binds():
    taken = both(x=18., y=400.).taken_evenly()
    assert taken['x'] > .99 > taken['y']
    taken = both(x=34., y=100.).taken_evenly()
    assert taken['y'] > .9 > taken['x']


def test_blocks_that_are_cheap_in_one_metric_alone():
    """One of two blocks must stay: either is too dear in one of the two."""
    layout = Layout([Unit('d', 'depth', 2, least=1)])
    costs = [
        Cost(f'b{i}', 'Linear', metric, coef, (), (i, ))
        for metric, pair in dict(x=(1, 100), y=(100, 1)).items()
        for i, coef in enumerate(pair)
    ]
    resource = ResourceModel([], costs, layout)
    for amounts in (dict(x=2, y=100), dict(x=100, y=2)):
        Limits(resource, amounts).check()
    with pytest.raises(
            TargetError, match='2 x and at most 2 y cannot be met together'):
        Limits(resource, dict(x=2, y=2)).check()
