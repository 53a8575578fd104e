# Copyright (c) dms_razor contributors. All rights reserved.
"""A network computes in double precision, whatever it asks for."""
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from dms_razor.proof.precision import (LowPrecision, double_network,
                                       double_precision, to_double)

X = torch.rand(2, 4, dtype=torch.float64)


@pytest.mark.parametrize('cast', [
    lambda x: x.float(),
    lambda x: x.half(),
    lambda x: x.bfloat16(),
    lambda x: x.to(torch.float32),
    lambda x: x.to('cpu', dtype=torch.float16),
    lambda x: x.to(torch.ones(2, dtype=torch.float32).data),
    lambda x: x.type_as(torch.from_numpy(np.ones(2, np.float32))),
    lambda x: x.type(torch.float32),
])
def test_casts(cast):
    with double_precision():
        found = cast(X)
    assert found.dtype == torch.float64 and torch.equal(found, X)
    assert cast(X).dtype != torch.float64


def test_operations_and_new_tensors():
    with double_precision():
        assert torch.equal(F.softmax(X, 1, dtype=torch.float32), X.softmax(1))
        made = [
            torch.rand(2),
            torch.arange(3).float(),
            torch.tensor([1.5]),
            torch.zeros(2, dtype=torch.float16),
            torch.arange(3) / 2,
            torch.from_numpy(np.ones(2, np.float32)) @ X[0, :2],
            X.new_zeros(2)
        ]
        whole = torch.arange(3)
    assert {t.dtype for t in made} == {torch.float64}
    assert whole.dtype == torch.int64
    assert torch.get_default_dtype() == torch.float32
    assert torch.rand(2).dtype == torch.float32


def test_in_place_stays_in_place():
    x = torch.zeros(2)
    with double_precision():
        assert x.add_(1) is x


def test_a_network_and_all_that_it_keeps():

    class Keeping(nn.Linear):

        def __init__(self):
            super().__init__(4, 4)
            self.register_buffer('steps', torch.tensor(3))
            self.register_buffer('table', torch.ones(2))
            self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
            self.anchors = [torch.ones(2), 'a', torch.arange(2)]

    net, plain = nn.Sequential(Keeping()), Keeping()
    weight = net[0].weight
    assert double_network(net) is net
    assert net[0].weight is weight and weight.dtype == torch.float64
    assert net[0].steps.dtype == torch.int64
    assert net[0].table.dtype == net[0].anchors[0].dtype == torch.float64
    assert net[0].phase.dtype == torch.complex128
    assert net[0].anchors[1] == 'a'
    assert net[0].anchors[2].dtype == plain.anchors[2].dtype == torch.int64
    assert to_double((X.half(), 3))[0].dtype == torch.float64


@torch.jit.script
def single(x):
    """A cast that nobody sees."""
    return x.float().exp()


def test_what_computes_lower_all_the_same_is_named():
    with LowPrecision() as low, double_precision():
        X.exp()
        assert low.found is None
        single(X)
    assert 'in float32' in low.found and 'aten.' in low.found


@pytest.mark.parametrize('settings', [
    dict(kernel_size=3, padding=1),
    dict(kernel_size=(5, 2), stride=2, padding=(2, 0), bias=False),
    dict(kernel_size=3, stride=(3, 2), dilation=(1, 2)),
    dict(kernel_size=(1, 3), padding='same')
])
def test_depthwise_convolutions(settings):
    conv = nn.Conv2d(6, 6, groups=6, **settings).double()
    x = torch.randn(2, 6, 11, 12, dtype=torch.float64, requires_grad=True)
    with double_precision():
        found = conv(x)
    expected = conv(x)
    assert (found - expected).abs().max() < 1e-12
    signs = torch.randn_like(expected)
    slopes = [
        torch.autograd.grad((y * signs).sum(), (x, conv.weight))
        for y in (found, expected)
    ]
    for a, b in zip(*slopes):
        assert (a - b).abs().max() < 1e-12


def grouped_mm(x, matrices, offs, bias=None):
    """As PyTorch's, which not all versions have, nor any in float64."""
    given = (x, matrices)
    if has_torch_function(given):
        return handle_torch_function(
            grouped_mm, given, x, matrices, offs=offs, bias=bias)
    raise RuntimeError('in double precision there is none')


@pytest.mark.parametrize('bias', [None, torch.ones(3).double()])
def test_products_in_groups(bias):
    """Rows 0 and 1, none, row 2, and nothing for the last one."""
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    matrices = torch.randn(3, 3, 5).double().transpose(1, 2)
    with double_precision():
        found = grouped_mm(x, matrices, torch.tensor([2, 2, 3]), bias)
    expected = torch.stack([
        x[0] @ matrices[0], x[1] @ matrices[0], x[2] @ matrices[2],
        torch.zeros(3).double()
    ])
    assert torch.allclose(found, expected + (0 if bias is None else bias))
    slope, = torch.autograd.grad(found.sum(), x)
    assert torch.allclose(slope[2], matrices[2].sum(1))


def test_a_kernel_larger_than_the_image_is_refused():
    conv = nn.Conv2d(4, 4, 5, groups=4).double()
    with double_precision(), pytest.raises(RuntimeError, match='ernel'):
        conv(torch.randn(1, 4, 3, 8, dtype=torch.float64))
