# Copyright (c) dms_razor contributors. All rights reserved.
"""The input of a layer times its masks, where the layer's weight rests.

Written as a product, the gradient of the masks takes a product as large as
the input, written out and read again to be summed up. On a CPU it is made
piece by piece in a core's cache instead, as in
:mod:`.written_norms`.
"""
import torch
from torch import Tensor

from ..network.compiling import compiling
from .written_norms import pieces


class MaskedInput(torch.autograd.Function):
    """``x * mask`` of ``[R, C]`` and ``[C]``."""

    @staticmethod
    def forward(x: Tensor, mask: Tensor) -> Tensor:
        """In the dtype of x."""
        return x * mask

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Keep both."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Gradients of x and mask."""
        with torch.autocast(grad.device.type, enabled=False):
            return MaskedInput.gradients(ctx, grad)

    @staticmethod
    def gradients(ctx, grad: Tensor):
        """The same, in the dtype of x."""
        x, mask = ctx.saved_tensors
        of_x, of_mask = ctx.needs_input_grad
        if torch.is_grad_enabled() or not of_mask:  # to be derived once more
            return (grad * mask if of_x else None,
                    (grad * x).sum(0) if of_mask else None)
        grad_x = torch.empty_like(grad) if of_x else None
        grad_mask = torch.zeros_like(mask)
        steps = pieces(x)
        buffer = x.new_empty(min(steps.step, len(x)), len(mask))
        ones = x.new_ones(len(buffer))
        for first in steps:
            rows = slice(first, first + steps.step)
            part = grad[rows]
            product = torch.mul(part, x[rows], out=buffer[:len(part)])
            grad_mask += ones[:len(part)] @ product
            if of_x:
                torch.mul(part, mask, out=grad_x[rows])
        return grad_x, grad_mask


def masked_input(x: Tensor, mask: Tensor) -> Tensor:
    """``x * mask`` of ``[..., C]`` and ``[C]`` or ``[1]``."""
    plain = (
        compiling() or not torch.is_grad_enabled() or x.device.type != 'cpu'
        or len(mask) != x.shape[-1]
        or x.dtype not in (torch.float32, torch.float64))
    if plain:
        return x * mask
    rows = x.reshape(-1, x.shape[-1])
    return MaskedInput.apply(rows, mask).view(x.shape)
