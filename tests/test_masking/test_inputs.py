# Copyright (c) dms_razor contributors. All rights reserved.
"""Masked inputs against the plain product, by autograd."""
import pytest
import torch

from dms_razor.masking import written_norms
from dms_razor.masking.inputs import MaskedInput, masked_input


def tensors(rows=11):
    torch.manual_seed(0)
    return (torch.randn(rows, 3, 7).double().requires_grad_(),
            torch.rand(7).double().requires_grad_())


@pytest.mark.parametrize('numbers', [7, 7 * 4, 10**6])
def test_gradients_are_those_of_the_product(monkeypatch, numbers):
    """In pieces of one row, of some, which do not divide the rows, of all."""
    monkeypatch.setattr(written_norms, 'PIECE', numbers)
    x, mask = tensors()
    found, expected = masked_input(x, mask), x * mask
    assert torch.equal(found, expected)
    grad = torch.randn_like(found)
    for one, other in zip(
            torch.autograd.grad(found, (x, mask), grad),
            torch.autograd.grad(expected, (x, mask), grad)):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_it_is_derived_twice():
    x, mask = tensors(2)
    assert torch.autograd.gradgradcheck(masked_input, (x, mask))


@pytest.mark.parametrize('of', [0, 1])
def test_one_of_both_may_rest(of):
    inputs = [tensor.detach() for tensor in tensors()]
    inputs[of].requires_grad_()
    masked_input(*inputs).sum().backward()
    other = inputs[1 - of].expand(11, 3, 7)
    expected = other if of == 0 else other.sum((0, 1))
    torch.testing.assert_close(inputs[of].grad, expected)


def test_what_is_multiplied_plainly():
    x, _ = tensors()
    one = torch.rand(1).double().requires_grad_()  # of whole blocks
    assert 'Mul' in type(masked_input(x, one).grad_fn).__name__
    low = x.detach().bfloat16()
    assert masked_input(low, torch.ones(7).bfloat16()).dtype == torch.bfloat16
    own = masked_input(*tensors()).grad_fn.next_functions[0][0]
    assert type(own).__name__.startswith(MaskedInput.__name__)


def test_autocast_does_not_round_the_sums():
    """Those of 4096 rows, in a backward pass inside autocast."""
    torch.manual_seed(0)
    x = torch.randn(4096, 7)
    mask = torch.rand(7).requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        masked_input(x, mask).square().sum().backward()
    expected = (2 * x.double().square() * mask.double()).sum(0)
    torch.testing.assert_close(mask.grad.double(), expected, rtol=1e-4, atol=0)


def test_a_functional_gradient():
    x, mask = (tensor.detach() for tensor in tensors())
    found = torch.func.grad(lambda m: masked_input(x, m).square().sum())(mask)
    torch.testing.assert_close(found, 2 * (x.square().sum((0, 1)) * mask))
