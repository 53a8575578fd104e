# Copyright (c) dms_razor contributors. All rights reserved.
"""Weights in operations that PyTorch's counter does not know."""
import pytest
import torch
from torch import nn
from torch.utils import flop_counter

from dms_razor import Search
from dms_razor.subnet import SubnetError, count_macs


class Product(nn.Module):
    """Runs the operation, on its own weight or on the input twice."""

    def __init__(self, *shape):
        super().__init__()
        if shape:
            self.matrix = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return product(x, getattr(self, 'matrix', x))


@torch.library.custom_op('dms_tests::product', mutates_args=())
def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A linear layer from outside of PyTorch, such as an own kernel."""
    return x @ weight.t()


class Outside(nn.Module):

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 6)
        self.kernel = Product(5, 6)

    def forward(self, x):
        return self.kernel(self.second(self.first(x)))


def test_weights_that_cannot_be_counted_are_refused_by_name():
    x = torch.ones(1, 4)
    with pytest.raises(SubnetError, match='"kernel" runs dms_tests.product. '):
        count_macs(Outside(), x)
    with pytest.raises(SubnetError, match='register_flop_formula'):
        Search(Outside(), x, '80%', total_steps=5)


def test_until_somebody_says_what_they_cost():
    operation = torch.ops.dms_tests.product

    def flops(x, weight, *args, out_shape=None, **kwargs):
        return 2 * x[0] * weight[0] * weight[1]

    before = dict(flop_counter.flop_registry)
    flop_counter.register_flop_formula(operation)(flops)
    try:
        count = count_macs(Outside(), torch.ones(1, 4))
    finally:
        flop_counter.flop_registry.clear()
        flop_counter.flop_registry.update(before)
    assert count.by_module == dict(first=32, second=48, kernel=30)


def test_operations_from_outside_without_weights():
    net = nn.Sequential(nn.Linear(4, 6), Product())
    assert count_macs(net, torch.ones(1, 4)).macs == 24
