# Copyright (c) dms_razor contributors. All rights reserved.
"""Numbers of units for their elements, and back."""
import pytest
import torch

from dms_razor.core.layout import Layout, Unit
from dms_razor.core.spread import spread

LAYOUT = Layout([
    Unit('a', 'width', 3),
    Unit('b', 'width', 1),
    Unit('c', 'width', 2, groups=2),
    Unit('d', 'depth', 2),
])
OWNER = [0, 0, 0, 1, 2, 2, 2, 2, 3, 3]


def test_each_element_has_the_number_of_its_unit():
    values = torch.tensor([.1, .2, .3, .4], dtype=torch.float64)
    assert spread(values, LAYOUT).tolist() == values[OWNER].tolist()


@pytest.mark.parametrize('dtype', (torch.float64, torch.bfloat16))
def test_gradients_are_added_up(dtype):
    values = torch.zeros(4, dtype=dtype, requires_grad=True)
    grad = torch.arange(10.).to(dtype)
    found, = torch.autograd.grad(spread(values, LAYOUT), values, grad)
    assert found.tolist() == [3, 3, 22, 17]


def test_twice():
    values = torch.rand(4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: spread(x, LAYOUT), values)
    torch.autograd.gradgradcheck(lambda x: spread(x, LAYOUT)**3, values)
