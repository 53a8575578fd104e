# Copyright (c) dms_razor contributors. All rights reserved.
"""Products that are not followed still count."""
import pytest
import torch
from small_nets import check, conv
from torch import nn


@pytest.mark.parametrize('product', [
    lambda x, weight: torch.einsum('bchw,cde->bdhw', x, weight[..., None]),
    lambda x, weight: torch.tensordot(x, weight, ([1], [0])).movedim(3, 1),
])
def test_other_products(product):
    space = check(
        lambda net, x: net.out(product(x, net.weight)), {'out': 8}, {
            'stem': 'for which it is not known',
            '': 'for which it is not known'
        },
        count=False,
        weight=nn.Parameter(torch.randn(16, 16)),
        out=conv(16, 8))
    costs = [c for c in space.resource.costs if c.metric == 'macs']
    assert 64 * 16 * 16 in [c.coef for c in costs if not c.axes]
