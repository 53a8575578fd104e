# Copyright (c) dms_razor contributors. All rights reserved.
"""Times between measured widths, against planes and steps known by hand."""
import pytest
import torch

from dms_razor.core.surfaces import Surfaces, grown

GRID = (.25, .5, 1.)


def plane(first, second):
    return 1 + 2 * first + 3 * second + 5 * first * second


def values(function):
    return torch.tensor([[[function(a, b) for b in GRID] for a in GRID]])


def at(surfaces, first, second):
    return float(
        surfaces(*(torch.tensor([x]).double() for x in (first, second))))


def test_a_product_of_lines_is_met_everywhere():
    surfaces = Surfaces(GRID, values(plane))
    for first, second in [(.25, 1.), (.3, .9), (.77, .31), (.1, .6),
                          (.05, .02), (1., 1.)]:
        assert at(surfaces, first,
                  second) == pytest.approx(plane(first, second))


def test_slopes_are_those_of_the_cell():
    surfaces = Surfaces(GRID, values(plane))
    x = torch.tensor([[.3, .8]], dtype=torch.float64).T.requires_grad_()
    y = torch.tensor([[.9, .4]], dtype=torch.float64).T.requires_grad_()
    surfaces(x, y).sum().backward()
    torch.testing.assert_close(x.grad, 2 + 5 * y.detach())
    torch.testing.assert_close(y.grad, 3 + 5 * x.detach())


def test_no_wider_layer_costs_less():
    noisy = torch.tensor([[[3., 2., 4.], [1., 5., 4.], [6., 1., 2.]]])
    assert grown(noisy).tolist() == [[[3, 3, 4], [3, 5, 5], [6, 6, 6]]]
    surfaces = Surfaces(GRID, noisy)
    shares = torch.linspace(0, 1, 41).double()
    x, y = torch.meshgrid(shares, shares, indexing='ij')
    found = surfaces(x[..., None], y[..., None])[..., 0]
    assert bool((found.diff(dim=0) >= -1e-12).all())
    assert bool((found.diff(dim=1) >= -1e-12).all())
    assert bool((found >= 0).all())


def test_one_point_is_a_line_through_nothing():
    surfaces = Surfaces((1., ), torch.tensor([[[8.]]]))
    assert at(surfaces, .5, 1.) == 4 and at(surfaces, .5, .5) == 2
