# Copyright (c) dms_razor contributors. All rights reserved.
"""Where the resource alone leads, in spaces where it can be worked out."""
import math

import pytest
import torch

from dms_razor.core import Axis, Cost, Layout, ResourceModel, Term, Unit
from dms_razor.core.descent import descend


def two_widths(coefficients):
    """Cost = Σ c_i·k_i of two widths of 100."""
    layout = Layout([Unit('a', 'width', 100), Unit('b', 'width', 100)])
    axes = [Axis((Term(1, (1 + i, )), )) for i in range(2)]
    costs = [
        Cost(f'c{i}', 'Conv2d', 'macs', c, (i, ))
        for i, c in enumerate(coefficients)
    ]
    return layout, ResourceModel(axes, costs, layout)


@pytest.mark.parametrize('speed', [1e-4, 1e-2])
def test_it_follows_the_gradient_of_the_cost(speed):
    """d a_i / dt ∝ c_i: the ratios keep the proportion of the costs."""
    layout, resource = two_widths((3, 1))
    target = .5 * resource.supernet('macs')
    found = descend(layout, resource, 'macs', target, speed=speed)
    torch.testing.assert_close(
        found.ratios[0], 3 * found.ratios[1], rtol=1e-2, atol=0)
    left = (3 * (1 - found.ratios[0]) + 1 - found.ratios[1]) / 4
    assert left.item() == pytest.approx(.5, abs=.02)


def test_steps_are_inverse_to_the_speed():
    layout, resource = two_widths((1, 1))
    target = .5 * resource.supernet('macs')
    slow, fast = (
        descend(layout, resource, 'macs', target, speed=speed).steps
        for speed in (1e-4, 1e-3))
    assert slow == pytest.approx(10 * fast, rel=.02)
    # d log(1 − a)/da = −1/(1 − a), shared by two: t = ∫ 2·(1 − a) da.
    assert slow == pytest.approx((1 - .25) / 1e-4, rel=.03)


def test_out_of_reach_ends_at_the_bounds():
    layout, resource = two_widths((1, 1))
    found = descend(layout, resource, 'macs', 1e-3, speed=1.)
    assert found.steps is None
    assert (found.ratios == .99).all() and not math.isnan(found.ratios.sum())
