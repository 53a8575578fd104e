# Copyright (c) dms_razor contributors. All rights reserved.
"""The loops of masked norms against the formula written out."""
import pytest
import torch

from dms_razor.masking import compiled_norms, norms, written_norms
from dms_razor.masking.norms import MaskedLayerNorm, masked_layer_norm


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """However small."""
    monkeypatch.setattr(compiled_norms, 'LEAST', 0)


@pytest.mark.parametrize('dtype, bound',
                         ((torch.float64, 1e-12), (torch.float32, 1e-5)))
@pytest.mark.parametrize('center', (True, False))
@pytest.mark.parametrize('affine', ('both', 'gain', 'bias', 'none'))
@pytest.mark.parametrize('rows, threads', ((300, 1), (300, 3), (1, 2), (0, 1)))
def test_loops(dtype, bound, center, affine, rows, threads, with_threads):
    with_threads(threads)
    torch.manual_seed(0)
    x, grad = torch.randn(2, rows, 97).double() + 2
    mask, gain, bias = torch.rand(3, 97).double()
    given = (x, mask, gain if affine in ('both', 'gain') else None,
             bias if affine in ('both', 'bias') else None)

    def run(kind, wanted):
        leaves = [
            None if one is None else one.to(kind).requires_grad_()
            for one in given
        ]
        assert norms._rows_of(*leaves) is wanted
        out = MaskedLayerNorm.apply(*leaves, 1e-5, center)
        there = [leaf for leaf in leaves if leaf is not None]
        return [out, *torch.autograd.grad(out, there, grad.to(kind))]

    found = run(dtype, compiled_norms)
    expected = run_written(run)
    for one, other in zip(found, expected):
        assert one.dtype == dtype
        assert torch.allclose(
            one.double(),
            other,
            rtol=0,
            atol=bound *
            max(1, float(other.detach().abs().amax())) if other.numel() else 1)


def run_written(run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norms, 'compiled_norms', None)
        return run(torch.float64, written_norms)


@pytest.mark.parametrize('center', (True, False))
def test_against_finite_differences(center):
    inputs = [
        torch.randn(3, 6),
        torch.rand(6) + .1,
        torch.randn(6),
        torch.randn(6)
    ]
    inputs = [one.double().requires_grad_() for one in inputs]
    assert torch.autograd.gradcheck(
        lambda *given: masked_layer_norm(*given, 1e-3, center), inputs)
    assert torch.autograd.gradgradcheck(
        lambda *given: masked_layer_norm(*given, 1e-3, center), inputs)


def test_numbers_that_are_none():
    """Where a network went wrong it has to show, and to show there alone."""
    x, mask = torch.randn(4, 6), torch.ones(6)
    x[1, 2], x[2, 3] = float('nan'), float('inf')
    out = masked_layer_norm(x, mask, None, None, 1e-5, True)
    assert out[1:3].isnan().all() and out[[0, 3]].isfinite().all()
    # Rows without a variance, and nothing that is added to it.
    flat = masked_layer_norm(
        torch.ones(2, 4), torch.ones(4), None, None, 0., True)
    assert flat.isnan().all()
    assert torch.nn.functional.layer_norm(
        torch.ones(2, 4), (4, ), eps=0.).isnan().all()


def test_rows_that_do_not_lie_together():
    wide = torch.randn(5, 12, dtype=torch.float64)
    mask = torch.rand(12, dtype=torch.float64)
    for x, own in ((wide[:, ::2], mask[::2]), (wide.T, mask[:5])):
        assert torch.allclose(
            masked_layer_norm(x, own, own, None, 1e-5, True),
            masked_layer_norm(x.clone(), own.clone(), own.clone(), None, 1e-5,
                              True))
