# Copyright (c) dms_razor contributors. All rights reserved.
"""The kernels of masked norms; where there is no GPU they cannot run."""
import pytest
import torch

from dms_razor.masking.norms import MaskedLayerNorm

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='there is no GPU')


@pytest.mark.parametrize('dtype',
                         (torch.float64, torch.float32, torch.bfloat16))
@pytest.mark.parametrize('center', (True, False))
@pytest.mark.parametrize('affine', (True, False))
def test_fused_norms(dtype, center, affine):
    """One kernel against the formula written out, on the CPU in float64."""
    torch.manual_seed(0)
    x, grad = torch.randn(2, 133, 97, device='cuda').to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    mask = torch.rand(97, device='cuda', dtype=wide)
    gain, bias = torch.randn(2, 97, device='cuda', dtype=wide)
    given = [x, mask] + [gain] * affine + [bias] * (affine and center)
    bound = dict(
        zip((torch.float64, torch.float32, torch.bfloat16),
            (1e-12, 1e-5, 2e-2)))[dtype]

    def run(device, dtype=None):
        leaves = [
            one.detach().to(device, dtype or one.dtype).requires_grad_()
            for one in given
        ]
        rest = leaves[2:] + [None] * (4 - len(leaves))
        out = MaskedLayerNorm.apply(leaves[0], leaves[1], *rest, 1e-5, center)
        return [out, *torch.autograd.grad(out, leaves, grad.to(out))]

    for expected, found in zip(run('cpu', torch.float64), run('cuda')):
        found = found.detach().cpu().double()
        assert (found - expected).abs().max() < bound * expected.abs().max()


@pytest.mark.parametrize('center', (True, False))
def test_derived_twice(center):
    """Against finite differences."""
    inputs = [torch.randn(3, 6), torch.rand(6) + .1, *torch.randn(2, 6)]
    inputs = [one.double().cuda().requires_grad_() for one in inputs]
    assert torch.autograd.gradgradcheck(
        lambda *given: MaskedLayerNorm.apply(*given, 1e-3, center), inputs)
