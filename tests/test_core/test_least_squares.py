# Copyright (c) dms_razor contributors. All rights reserved.
"""Least squares whose truth is known by hand."""
import pytest
import torch

from dms_razor.core.least_squares import not_negative


def test_coefficients_are_not_negative():
    rows = torch.tensor([[1., 1.], [1., 2.], [1., 4.]]).double()
    assert not_negative(
        rows,
        rows @ torch.tensor([2., 3.]).double()).tolist() == pytest.approx(
            [2, 3])
    # 5 − x would be exact; a slope that may not fall stays out of it: the
    # mean of 1 / v over that of 1 / v², for v = 4, 3, 1.
    values = 5 - rows[:, 1]
    found = not_negative(rows, values).tolist()
    assert found == pytest.approx(
        [float((1 / values).sum() / (1 / values).square().sum()), 0])
