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


def test_infinities_in_long_rows():
    """Sums may be added up in another order, and no more than that."""
    for bad in (float('nan'), float('inf'), -float('inf')):
        x, mask = torch.randn(3, 1000), torch.rand(1000).requires_grad_()
        x[1, 700] = bad
        x.requires_grad_()
        out = masked_layer_norm(x, mask, None, None, 1e-5, True)
        assert not out[1].isfinite().any() and out[[0, 2]].isfinite().all()
        out[1].sum().backward()
        assert not x.grad[1].isfinite().any()
        assert not mask.grad.isfinite().all()


def test_many_rows_are_added_up_in_parts():
    """Ones, of which float32 could not add up more than 2^24, and long before
    that sums of many numbers lose digits."""
    torch.manual_seed(0)
    x = torch.randn(200_000, 2)
    gain = torch.ones(2, requires_grad=True)
    bias = torch.zeros(2, requires_grad=True)
    out = masked_layer_norm(x, torch.ones(2), gain, bias, 1e-5, True)
    grad = torch.rand_like(out)
    out.backward(grad)
    expected = grad.double().sum(0)
    assert ((bias.grad - expected) / expected).abs().max() < 3e-7


def test_gradients_that_do_not_lie_in_memory():
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(6, dtype=torch.float64, requires_grad=True)
    for use in (torch.sgn, lambda out: out.sum().expand(3), lambda out: out.T,
                lambda out: out[:, ::2], lambda out: out.movedim(0, 1).neg()):
        out = masked_layer_norm(x, mask, None, None, 1e-5, True)
        weights = torch.randn(use(out).shape).double()
        found = torch.autograd.grad(use(out), (x, mask), weights)
        expected = torch.autograd.grad(
            use(written_norms.of_rows(x, mask, None, None, 1e-5, True)),
            (x, mask), weights)
        for one, other in zip(found, expected):
            assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize('pack, unpack', (
    (lambda t: t.t().contiguous(), lambda t: t.t()),
    (lambda t: t.double(), lambda t: t),
    (lambda t: t.half(), lambda t: t.float()),
))
def test_tensors_that_are_kept_elsewhere(pack, unpack):
    x, mask = torch.randn(4, 6, requires_grad=True), torch.rand(6)
    mask.requires_grad_()

    def gradients():
        out = masked_layer_norm(x, mask, None, None, 1e-5, True)
        return torch.autograd.grad(out.square().sum() * .5, (x, mask))

    expected = gradients()
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        found = gradients()
    for one, other in zip(found, expected):
        assert torch.allclose(one.float(), other, rtol=1e-2, atol=1e-2)


def test_a_mode_sees_the_operations():
    """Those of the forward, and of the backward, pass."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):

        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    x = torch.randn(4, 6, requires_grad=True)
    with Names() as seen:
        out = masked_layer_norm(x, torch.rand(6), None, None, 1e-5, True)
    assert any('rsqrt' in name for name in seen.names)
    with Names() as seen:
        out.square().sum().backward()
    assert any('addcmul' in name for name in seen.names)


def test_derived_twice_under_autocast():
    """In float32 as without it."""
    x = (300 + torch.randn(4, 64)).requires_grad_()
    mask, grad = torch.rand(64).requires_grad_(), torch.randn(4, 64)

    def gradient():
        out = masked_layer_norm(x, mask, None, None, 1e-5, True)
        return torch.autograd.grad(out, mask, grad, create_graph=True)[0]

    expected = gradient()
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.allclose(gradient(), expected)


@pytest.mark.parametrize('width, mask, weight',
                         ((8, 4, None), (4, 8, None), (4, 4, 8)))
def test_another_number_of_channels_is_refused(width, mask, weight):
    weight = weight and torch.ones(weight)
    with pytest.raises(RuntimeError, match='channels was given an input'):
        masked_layer_norm(
            torch.randn(3, width), torch.ones(mask), weight, None, 1e-5, True)


def test_one_tensor_for_two():
    """Each of its places gets its own gradient, though derived twice."""
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(6, dtype=torch.float64, requires_grad=True)
    out = masked_layer_norm(x, mask, mask, None, 1e-5, True)
    grad = torch.randn_like(out)
    plain = torch.autograd.grad(out, mask, grad, retain_graph=True)[0]
    twice = torch.autograd.grad(out, mask, grad, create_graph=True)[0]
    assert torch.allclose(plain, twice)


def test_rows_that_do_not_lie_together():
    wide = torch.randn(5, 12, dtype=torch.float64)
    mask = torch.rand(12, dtype=torch.float64)
    for x, own in ((wide[:, ::2], mask[::2]), (wide.T, mask[:5])):
        assert torch.allclose(
            masked_layer_norm(x, own, own, None, 1e-5, True),
            masked_layer_norm(x.clone(), own.clone(), own.clone(), None, 1e-5,
                              True))
