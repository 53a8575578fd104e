# Copyright (c) dms_razor contributors. All rights reserved.
"""Layer, RMS and group norm whose statistics are those of kept channels.

With masks m the mean is Σmx/Σm and the variance Σm(x−mean)²/Σm (METHOD
section 2), so that with hard masks a norm computes what the exported, narrow
norm computes. One fused autograd function keeps only what a standard layer
norm keeps (the input and two numbers a row), and gives the masks their
gradient.
"""
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class MaskedNormalize(torch.autograd.Function):
    """``(x - mean) * rstd`` with masked statistics over the last dimension.

    Shapes: x ``[..., C]``, mask ``[C]`` or broadcastable ``[..., C]`` rows
    (group norm: ``[G, 1]`` rows of channels are folded by the caller).
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, eps: float,
                center: bool) -> Tensor:
        """Normalise; ``center=False`` is RMS norm (no mean)."""
        total = mask.sum(-1, keepdim=True)
        weight = (mask / total).to(x.dtype)
        if center:
            mean = (x * weight).sum(-1, keepdim=True)
            out = x - mean
        else:
            out = x
        var = (out * out * weight).sum(-1, keepdim=True)
        rstd = (var + eps).rsqrt()
        out = out * rstd
        ctx.save_for_backward(out, weight, rstd, total)
        ctx.center = center
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Gradients of x and mask."""
        out, weight, rstd, total = ctx.saved_tensors
        # y = (x - mean) * rstd; with s = Σ_j g_j y_j and t = Σ_j g_j:
        # dx_i = rstd * (g_i - w_i * t - w_i * y_i * s)
        s = (grad * out).sum(-1, keepdim=True)
        pull = out * s
        if ctx.center:
            pull = pull + grad.sum(-1, keepdim=True)
        grad_x = rstd * (grad - weight * pull)
        grad_mask = None
        if ctx.needs_input_grad[1]:
            # d mean/d m_i = (x_i - mean)/Σm, d var/d m_i = (x_i-mean)²-var
            # over Σm; both seen through y. var*rstd² = v̂ ≤ 1 (eps).
            var_hat = (out * out * weight).sum(-1, keepdim=True)
            rows = -.5 * (out * out - var_hat) * s
            if ctx.center:
                rows = rows - out * grad.sum(-1, keepdim=True)
            rows = rows / total
            extra = rows.dim() - weight.dim()
            grad_mask = rows.sum(tuple(range(extra))) if extra else rows
            for dim, size in enumerate(weight.shape):
                if size == 1 and grad_mask.shape[dim] > 1:
                    grad_mask = grad_mask.sum(dim, keepdim=True)
        return grad_x, grad_mask, None, None


def masked_layer_norm(x: Tensor, mask: Tensor, weight: Optional[Tensor],
                      bias: Optional[Tensor], eps: float,
                      center: bool) -> Tensor:
    """Layer norm (or RMS norm) of ``[..., C]`` under masks ``[C]``."""
    out = MaskedNormalize.apply(x, mask, eps, center)
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias


def masked_group_norm(x: Tensor, groups: int, mask: Tensor,
                      weight: Optional[Tensor], bias: Optional[Tensor],
                      eps: float) -> Tensor:
    """Group norm of ``[B, C, ...]`` under masks ``[C]``."""
    shape = x.shape
    channels = shape[1] // groups
    positions = x[0, 0].numel()
    rows = mask.view(groups, channels, 1).expand(-1, -1, positions)
    out = MaskedNormalize.apply(
        x.reshape(shape[0], groups, -1), rows.reshape(groups, -1), eps, True)
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
            return masked_layer_norm(x, self.mask.to(x.dtype),
                                     get(2, 'weight'), get(3, 'bias'),
                                     get(4, 'eps', 1e-5), True)
        if name == 'rms_norm':
            eps = get(3, 'eps')
            eps = torch.finfo(x.dtype).eps if eps is None else eps
            return masked_layer_norm(x, self.mask.to(x.dtype),
                                     get(2, 'weight'), None, eps, False)
        if name == 'group_norm':
            return masked_group_norm(x, get(1, 'num_groups'),
                                     self.mask.to(x.dtype), get(2, 'weight'),
                                     get(3, 'bias'), get(4, 'eps', 1e-5))
        return func(*args, **kwargs)
