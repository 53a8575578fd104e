# Copyright (c) dms_razor contributors. All rights reserved.
"""Gradients of heads, qk and v ratios against finite differences."""
import torch
from transformer_nets import tiny_vit

from dms_razor.core.topk import initial_order, ranks_from_order, soft_masks
from dms_razor.masking import attach
from dms_razor.trace import trace


def test_gradients_of_all_ratios_task_and_resource():
    model, image = tiny_vit()
    space = trace(model, image, check=False)
    layout = space.layout
    assert {u.kind
            for u in space.units} == {'width', 'heads', 'qk', 'v', 'depth'}
    ranks = ranks_from_order(initial_order(layout), layout)
    holder = {}
    attach(model, space, lambda: holder['masks'])
    labels = torch.tensor([3, 7])

    def losses(ratios):
        masks = soft_masks(ratios, ranks, layout)
        holder['masks'] = masks
        task = torch.nn.functional.cross_entropy(model(image), labels)
        cost = space.resource((1 - ratios) * layout.size, masks, 'macs')
        return task, cost.log()

    # Interior: at least one element of each unit is on its way out.
    ratios = (1.3 / layout.size.double() + .21).clamp(max=.6).requires_grad_()
    step = 1e-6
    for which in (0, 1):
        grad, = torch.autograd.grad(losses(ratios)[which], ratios)
        numeric = torch.zeros_like(grad)
        for u in range(layout.U):
            shift = torch.zeros_like(ratios)
            shift[u] = step
            with torch.no_grad():
                numeric[u] = (losses(ratios + shift)[which] -
                              losses(ratios - shift)[which]) / (2 * step)
        for kind in ('width', 'heads', 'qk', 'v', 'depth'):
            rows = torch.tensor([u.kind == kind for u in space.units])
            assert grad[rows].abs().max() > 0, kind
        error = (grad - numeric).abs().max() / grad.abs().max()
        assert error < 1e-6
