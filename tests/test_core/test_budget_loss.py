# Copyright (c) dms_razor contributors. All rights reserved.
import math

import pytest
import torch

from dms_razor.core import constraint_loss


def value_and_grad(current, target):
    current = torch.tensor(current, dtype=torch.float64, requires_grad=True)
    loss = constraint_loss(current, target)
    grad, = torch.autograd.grad(loss, current)
    return loss.item(), grad.item()


def test_above_the_target():
    loss, grad = value_and_grad(4e9, 2e9)
    assert loss == pytest.approx(math.log(2))
    assert grad == pytest.approx(1 / 4e9)


@pytest.mark.parametrize('current', [2e9, 1e9, 1., 0.])
def test_at_and_below_the_target_nothing_pulls(current):
    assert value_and_grad(current, 2e9) == (0, 0)


@pytest.mark.parametrize('target', [0., -1., float('nan')])
def test_bad_target(target):
    with pytest.raises(ValueError, match='must be positive'):
        constraint_loss(torch.tensor(1.), target)
