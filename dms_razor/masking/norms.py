# Copyright (c) dms_razor contributors. All rights reserved.
"""Layer, RMS and group norm whose statistics are those of kept channels.

With masks m the mean is Σmx/Σm and the variance Σm(x−mean)²/Σm (METHOD
section 2), so that with hard masks a norm computes what the exported, narrow
norm computes. Fused autograd functions keep only what a standard norm keeps
(an output and one number a row), and give the masks their gradient.
Statistics are taken in float32 at least, as PyTorch's norms do.
"""
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .layer_norm import MaskedLayerNorm


class MaskedGroups(torch.autograd.Function):
    """``(x - mean) * rstd`` with masked statistics of each group.

    Shapes: x ``[B, G, C]``, statistics over the last dimension; mask
    ``[G, C]``.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, eps: float) -> Tensor:
        """Statistics in float32 at least, the result in the dtype of x."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide, masks = x.to(dtype), mask.to(dtype)
        total = masks.sum(-1, keepdim=True)
        weight = masks / total
        out = wide - (wide * weight).sum(-1, keepdim=True)
        rstd = ((out * out * weight).sum(-1, keepdim=True) + eps).rsqrt_()
        out.mul_(rstd)
        ctx.save_for_backward(out, weight, rstd, total)
        ctx.settings = eps, x.dtype, mask.dtype
        return out.to(x.dtype, copy=True)

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Gradients of x and mask; the formula stands in .layer_norm."""
        y, weight, rstd, total = ctx.saved_tensors
        eps, dtype, mask_dtype = ctx.settings
        grad = grad.to(y.dtype)
        s = (grad * y).sum(-1, keepdim=True)
        t = grad.sum(-1, keepdim=True)
        grad_x = (grad - weight * (t + y * s)).mul_(rstd)
        rows = -.5 * s * (y.square() - 1 + eps * rstd.square()) - y * t
        grad_mask = rows.sum(0) / total
        return grad_x.to(dtype), grad_mask.to(mask_dtype), None


def masked_layer_norm(x: Tensor, mask: Tensor, weight: Optional[Tensor],
                      bias: Optional[Tensor], eps: float,
                      center: bool) -> Tensor:
    """Layer norm (or RMS norm) of ``[..., C]`` under masks ``[C]``."""
    return MaskedLayerNorm.apply(x, mask, weight, bias, eps, center)


def masked_group_norm(x: Tensor, groups: int, mask: Tensor,
                      weight: Optional[Tensor], bias: Optional[Tensor],
                      eps: float) -> Tensor:
    """Group norm of ``[B, C, ...]`` under masks ``[C]``."""
    shape = x.shape
    positions = x[0, 0].numel()
    rows = mask.view(groups, -1, 1).expand(-1, -1, positions)
    out = MaskedGroups.apply(
        x.reshape(shape[0], groups, -1), rows.reshape(groups, -1), eps)
    out = out.view(shape)
    view = (1, -1) + (1, ) * (len(shape) - 2)
    if weight is not None:
        out = out * weight.view(view)
    return out if bias is None else out + bias.view(view)


def _argument(args: tuple, kwargs: dict, position: int, name: str,
              default: Any) -> Any:
    if len(args) > position:
        return args[position]
    return kwargs.get(name, default)


class NormInterceptor(TorchFunctionMode):
    """While a norm module runs, its norm function reads masks.

    Works for any module that calls the PyTorch function, whatever it does
    around it (a LayerNorm over the channels of images permutes first).

    Args:
        mask (Tensor): Masks of the normalised channels, ``[C]``.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, '__name__', '')

        def get(position: int, key: str, default: Any = None) -> Any:
            return _argument(args, kwargs, position, key, default)

        x = get(0, 'input')
        if name == 'layer_norm' and func is F.layer_norm:
            return masked_layer_norm(x, self.mask, get(2, 'weight'),
                                     get(3, 'bias'), get(4, 'eps', 1e-5), True)
        if name == 'rms_norm':
            eps = get(3, 'eps')
            eps = torch.finfo(x.dtype).eps if eps is None else eps
            return masked_layer_norm(x, self.mask, get(2, 'weight'), None, eps,
                                     False)
        if name == 'group_norm':
            return masked_group_norm(x, get(1, 'num_groups'), self.mask,
                                     get(2, 'weight'), get(3, 'bias'),
                                     get(4, 'eps', 1e-5))
        return func(*args, **kwargs)
