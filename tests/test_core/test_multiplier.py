# Copyright (c) dms_razor contributors. All rights reserved.
"""The smallest shift that meets a budget, against values found by hand."""
import math

import pytest
import torch

from dms_razor.core.multiplier import CLOSE, meet_budget


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize('target', [.1, .5, .9, 1.1])
def test_a_linear_cost_is_met_by_the_shift_of_least_length(target):
    """log r = −w·a has its least-norm solution along w, in closed form."""
    weight, start = vector(1., 2., .5), vector(.1, .2, .3)

    def excess(a):
        return -(weight @ a) - math.log(target)

    found = meet_budget(start, vector(-9, -9, -9), vector(9, 9, 9), excess)
    short = (-math.log(target) - weight @ start) / (weight @ weight)
    torch.testing.assert_close(
        found, start + short * weight, atol=1e-5, rtol=0)


def test_what_is_met_already_stays():
    start = vector(.3, .4)
    assert meet_budget(start, 0., 1., lambda a: a.sum() - .7).equal(start)


def test_bounds_hold_and_the_others_take_over():
    """The second ratio may not pass .5: the first goes all the rest."""

    def excess(a):  # log of a product of two widths
        return torch.log(1 - a).sum() - math.log(.1)

    found = meet_budget(
        vector(0., 0.), vector(0., 0.), vector(.95, .5), excess)
    torch.testing.assert_close(found, vector(.8, .5), atol=1e-5, rtol=0)


def test_a_network_below_its_target_grows():

    def excess(a):
        return torch.log(1 - a).sum() - math.log(.5)

    found = meet_budget(
        vector(.9, .2), vector(0., 0.), vector(.95, .95), excess)
    assert abs(excess(found)) < CLOSE
    assert found[0] < .9 and found[1] <= .2


@pytest.mark.parametrize('wanted', [1e-3, 5.])
def test_out_of_reach_ends_at_the_bounds(wanted):

    def excess(a):
        return torch.log(1 - a).sum() - math.log(wanted)

    found = meet_budget(vector(.2, .3), vector(0., 0.), vector(.5, .5), excess)
    assert found.equal(vector(.5, .5) if wanted < 1 else vector(0., 0.))


def test_it_takes_few_evaluations():
    """Each costs some tenths of a millisecond in every training step."""
    calls = []

    def excess(a):
        calls.append(1)
        return torch.log((1 - a).prod() * .7 + (1 - a[0]) * .3) - math.log(.4)

    meet_budget(vector(.2, .1, .3, .2), 0., .99, excess)
    assert len(calls) <= 9
