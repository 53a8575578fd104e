# Copyright (c) dms_razor contributors. All rights reserved.
"""Masked norms against a plain formula, narrow norms and differences."""
import pytest
import torch
import torch.nn.functional as F

from dms_razor.masking import written_norms
from dms_razor.masking.norms import (NormInterceptor, masked_group_norm,
                                     masked_layer_norm)

EPS = 1e-3


def numbers(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def reference(x, mask, center):
    """The formula of METHOD section 2, term by term."""
    total = mask.sum()
    mean = (mask * x).sum(-1, keepdim=True) / total if center else 0.
    var = (mask * (x - mean)**2).sum(-1, keepdim=True) / total
    return (x - mean) / (var + EPS).sqrt()


@pytest.mark.parametrize('center', [True, False])
@pytest.mark.parametrize('affine', ['both', 'weight', 'bias', 'none'])
def test_layer_norm_and_its_gradients_follow_the_formula(center, affine):
    x, mask = numbers(2, 5, 7).requires_grad_(), torch.rand(7).double()
    mask.requires_grad_()
    weight, bias = numbers(7).requires_grad_(), numbers(7).requires_grad_()
    weight = weight if affine in ('both', 'weight') else None
    bias = bias if affine in ('both', 'bias') else None
    leaves = [t for t in (x, mask, weight, bias) if t is not None]
    expected = reference(x, mask, center)
    expected = expected if weight is None else expected * weight
    expected = expected if bias is None else expected + bias
    found = masked_layer_norm(x, mask, weight, bias, EPS, center)
    assert torch.allclose(found, expected, atol=1e-12)
    grad = numbers(2, 5, 7)
    for a, b in zip(
            torch.autograd.grad(found, leaves, grad),
            torch.autograd.grad(expected, leaves, grad)):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize('center', [True, False])
def test_layer_norm_gradients_against_finite_differences(center):
    inputs = [
        numbers(3, 4, 6),
        torch.rand(6).double() + .1,
        numbers(6),
        numbers(6)
    ]
    for tensor in inputs:
        tensor.requires_grad_()

    def norm(*tensors):
        return masked_layer_norm(*tensors, EPS, center)

    assert torch.autograd.gradcheck(norm, inputs)
    assert torch.autograd.gradgradcheck(norm, inputs)


@pytest.mark.parametrize('center', [True, False])
def test_pieces_add_up_to_the_whole(center, monkeypatch):
    leaves = [numbers(5, 3, 8), torch.rand(8).double(), numbers(8), numbers(8)]
    for leaf in leaves:
        leaf.requires_grad_()
    grad, found = numbers(5, 3, 8), []
    for piece in (2**20, 4 * 8):  # one piece; four of four rows, one short
        monkeypatch.setattr(written_norms, 'PIECE', piece)
        out = masked_layer_norm(*leaves, EPS, center)
        found.append((out, *torch.autograd.grad(out, leaves, grad)))
    for whole, parts in zip(*found):
        assert torch.allclose(whole, parts, atol=1e-12)


@pytest.mark.parametrize('groups', [1, 3])
def test_group_norm_gradients_against_finite_differences(groups):
    inputs = [
        numbers(2, 6, 2, 2),
        torch.rand(6).double() + .1,
        numbers(6),
        numbers(6)
    ]
    for tensor in inputs:
        tensor.requires_grad_()

    def norm(x, mask, weight, bias):
        return masked_group_norm(x, groups, mask, weight, bias, EPS)

    assert torch.autograd.gradcheck(norm, inputs)
    assert torch.autograd.gradgradcheck(norm, inputs)


def test_masks_of_one_change_nothing():
    x, weight, bias = numbers(4, 6, 3, 3), numbers(6), numbers(6)
    ones = torch.ones(6, dtype=torch.float64)
    assert torch.allclose(
        masked_group_norm(x, 2, ones, weight, bias, EPS),
        F.group_norm(x, 2, weight, bias, EPS))
    x = x.movedim(1, -1)
    assert torch.allclose(
        masked_layer_norm(x, ones, weight, bias, EPS, True),
        F.layer_norm(x, (6, ), weight, bias, EPS))
    assert torch.allclose(
        masked_layer_norm(x, ones, weight, None, EPS, False),
        F.rms_norm(x, (6, ), weight, EPS))


def test_hard_masks_give_the_norm_of_what_is_kept():
    keep = torch.tensor([True, False, True, True, False, True])
    mask = keep.double()
    # What is pruned may hold anything: it must not leak into the kept.
    x, weight, bias = numbers(4, 5, 6), numbers(6), numbers(6)
    x[..., ~keep] *= 1e3
    narrow = F.layer_norm(x[..., keep], (4, ), weight[keep], bias[keep], EPS)
    found = masked_layer_norm(x, mask, weight, bias, EPS, True)
    assert torch.allclose(found[..., keep], narrow)
    narrow = F.rms_norm(x[..., keep], (4, ), weight[keep], EPS)
    found = masked_layer_norm(x, mask, weight, None, EPS, False)
    assert torch.allclose(found[..., keep], narrow)
    x = numbers(2, 6, 3, 3)
    narrow = F.group_norm(x[:, keep], 2, weight[keep], bias[keep], EPS)
    found = masked_group_norm(x, 2, mask, weight, bias, EPS)
    assert torch.allclose(found[:, keep], narrow)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_inputs_use_float32_statistics(dtype):
    # Far from zero: a mean in half precision would miss it by more than 1.
    x = (300 + numbers(4, 512, dtype=torch.float32)).to(dtype)
    x.requires_grad_()
    mask = (torch.rand(512) > .3).float().requires_grad_()
    weight, bias = torch.rand(512), torch.rand(512)
    found = masked_layer_norm(x, mask, weight, bias, 1e-5, True)
    exact = masked_layer_norm(x.double(), mask.double(), weight.double(),
                              bias.double(), 1e-5, True)
    assert found.dtype == dtype
    assert (found.double() - exact).abs().max() < 4 * torch.finfo(dtype).eps
    found.sum().backward()
    assert x.grad.dtype == dtype and mask.grad.dtype == torch.float32
    assert torch.isfinite(mask.grad).all()


def test_autocast_does_not_lower_the_statistics():
    x, mask = 300 + numbers(4, 64, dtype=torch.float32), torch.ones(64)
    with torch.autocast('cpu', torch.bfloat16):
        found = masked_layer_norm(x, mask, None, None, 1e-5, True)
    assert torch.allclose(found, F.layer_norm(x, (64, )), atol=1e-4)


@pytest.mark.parametrize('module, shape', [
    (torch.nn.LayerNorm(6), (2, 5, 6)),
    (torch.nn.LayerNorm(6, bias=False), (2, 5, 6)),
    (torch.nn.RMSNorm(6), (2, 5, 6)),
    (torch.nn.GroupNorm(2, 6), (2, 6, 4)),
])
def test_any_module_that_calls_the_function_is_masked(module, shape):
    mask = torch.tensor([1., 0., 1., 1., 0., 1.])
    x = torch.randn(shape)
    channels = (1, ) if isinstance(module, torch.nn.GroupNorm) else (-1, )
    plain = module(x)
    with NormInterceptor(torch.ones(6)):
        assert torch.allclose(module(x), plain, atol=1e-6)
    with NormInterceptor(mask):
        masked = module(x)
        other = module(
            x.movedim(channels[0], -1).mul(mask).add(
                (1 - mask) * 99).movedim(-1, channels[0]))
    assert not torch.allclose(masked, plain, atol=1e-2)
    kept = mask.bool().nonzero().flatten()
    assert torch.allclose(
        masked.index_select(channels[0], kept),
        other.index_select(channels[0], kept),
        atol=1e-5)


def test_other_functions_run_as_they_are():
    x = torch.randn(2, 6)
    with NormInterceptor(torch.zeros(6)):
        assert torch.equal(F.relu(x), x.clamp(min=0))


@pytest.mark.parametrize('module, shape', [
    (torch.nn.LayerNorm(6), (2, 5, 6)),
    (torch.nn.RMSNorm(6), (2, 5, 6)),
    (torch.nn.GroupNorm(2, 6, affine=False), (2, 6, 4)),
])
def test_an_activation_in_place_may_follow(module, shape):
    """A view that an autograd function makes could not be written into."""
    found = []
    for inplace in (False, True):
        x = torch.linspace(-1, 1, 60)[:torch.Size(shape).numel()].view(shape)
        x, mask = x.requires_grad_(), torch.ones(6, requires_grad=True)
        with NormInterceptor(mask):
            out = module(x)
        F.hardswish(out, inplace).square().sum().backward()
        found.append((x.grad, mask.grad))
    for a, b in zip(*found):
        assert torch.equal(a, b) and a.abs().max() > 0
