# Copyright (c) dms_razor contributors. All rights reserved.
"""Statistics of a masked filter are those of the filter that is left."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor.masking.input_mask import InputMask
from dms_razor.masking.masks import Masks
from dms_razor.masking.weights import WeightInterceptor

KEPT = [0, 2, 3]
MASKS = torch.zeros(5).double().index_fill(0, torch.tensor(KEPT), 1.)


@pytest.mark.parametrize('compute', [
    lambda w: w - w.mean((1, 2, 3), True),
    lambda w: w - w.mean(dim=1, keepdim=True).mean((2, 3), keepdim=True),
    lambda w: w / w.std(dim=(1, 2, 3), keepdim=True),
    lambda w: w / (w.var([1, 2, 3], unbiased=False, keepdim=True) + .1),
    lambda w: w / torch.std(w, (1, 2, 3), correction=0, keepdim=True),
    lambda w: w - torch.var_mean(w.flatten(1), 1)[1][:, None, None, None],
    lambda w: w / torch.linalg.vector_norm(w, dim=(1, 2, 3), keepdim=True),
    lambda w: (w + 1) * w.sum((1, 2, 3), True),
    lambda w: F.batch_norm(w.view(1, 4, -1), None, None, training=True).
    view_as(w),
    lambda w: w.exp(),
])
def test_a_convolution_on_kept_entries(compute):
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(
        torch.randn(4, 5, 3, 3, generator=generator).double())
    x = torch.randn(2, 5, 7, 7, generator=generator).double()
    expected = F.conv2d(x[:, KEPT], compute(weight[:, KEPT].detach().clone()))
    mask = InputMask(1, torch.arange(5))
    with WeightInterceptor([(weight, Masks(MASKS), [mask])]):
        found = F.conv2d(x, compute(weight))
    assert torch.allclose(found, expected, atol=1e-12)
    assert F.conv2d(x, compute(weight)).shape == found.shape


def test_masks_have_their_gradient():
    weight = nn.Parameter(torch.randn(4, 5).double())
    x = torch.randn(3, 5).double()

    def run(masks):
        with WeightInterceptor([(weight, Masks(masks),
                                 [InputMask(1, torch.arange(5))])]):
            standard = weight - weight.mean(1, keepdim=True)
            return F.linear(x, standard / weight.std(1, keepdim=True))

    masks = (torch.rand(5).double() * .5 + .5).requires_grad_()
    assert torch.autograd.gradcheck(run, (masks, ))
