# Copyright (c) dms_razor contributors. All rights reserved.
"""Layer, RMS and group norm whose statistics are those of kept channels.

With masks m the mean is Σmx/Σm and the variance Σm(x−mean)²/Σm (METHOD
section 2), so that with hard masks a norm computes what the exported, narrow
norm computes. One fused autograd function keeps only what a standard layer
norm keeps (an output and one number a row), and gives the masks their
gradient. Statistics are taken in float32 at least, as PyTorch's norms do.
"""
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _dot(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum over the last dimension, which is kept, ``[..., 1]``."""
    if weight.dim() == 1:  # a matrix-vector product makes no copy of x
        return (x @ weight).unsqueeze(-1)
    return (x * weight).sum(-1, keepdim=True)


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """``x`` summed over the leading dimensions that ``shape`` lacks."""
    return x.sum(tuple(range(x.dim() -
                             len(shape)))) if x.dim() > len(shape) else x


class MaskedNormalize(torch.autograd.Function):
    """``(x - mean) * rstd * gain + bias`` with masked statistics.

    Shapes: x ``[..., C]``, statistics over the last dimension; mask ``[C]``,
    or ``[G, C]`` for x ``[..., G, C]``; gain and bias ``[C]`` or None.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, gain: Optional[Tensor],
                bias: Optional[Tensor], eps: float, center: bool) -> Tensor:
        """Normalise; ``center=False`` is RMS norm (no mean)."""
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            wide = x.to(dtype)
            total = mask.to(dtype).sum(-1, keepdim=True)
            weight = mask.to(dtype) / total
            out = wide - _dot(wide, weight) if center else wide
            rstd = (_dot(out.square(), weight) + eps).rsqrt_()
            # Not in place on x itself: an RMS norm has made no copy yet.
            out = out.mul_(rstd) if center else out * rstd
            ctx.save_for_backward(out, weight, rstd, total, gain)
            ctx.center, ctx.eps, ctx.bias = center, eps, bias is not None
            ctx.dtypes = (x.dtype, mask.dtype)
            if gain is not None and bias is not None:
                out = torch.addcmul(bias.to(dtype), out, gain.to(dtype))
            elif gain is not None:
                out = out * gain.to(dtype)
            elif bias is not None:
                out = out + bias.to(dtype)
            else:
                out = out.clone()
            return out.to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Gradients of x, mask, gain and bias."""
        y, weight, rstd, total, gain = ctx.saved_tensors
        with torch.autocast(y.device.type, enabled=False):
            grad = grad.to(y.dtype)
            ones = y.new_ones(y.shape[-1:]) if gain is None else gain.to(
                y.dtype)
            # With g = grad * gain, s = Σ_j g_j y_j and t = Σ_j g_j:
            # dx_i = rstd * (g_i - w_i * (t + y_i * s))
            product = grad * y
            s = _dot(product, ones)
            t = _dot(grad, ones) if ctx.center else None
            grad_x = grad_mask = grad_gain = grad_bias = None
            if ctx.needs_input_grad[0]:
                pull = torch.addcmul(t, y, s) if ctx.center else y * s
                grad_x = (grad * ones).sub_(pull.mul_(weight)).mul_(rstd)
                grad_x = grad_x.to(ctx.dtypes[0])
            if ctx.needs_input_grad[1]:
                # d mean/d m_i = (x_i - mean) / Σm and d var/d m_i =
                # ((x_i - mean)² - var) / Σm, both seen through y;
                # var * rstd² = 1 - eps * rstd².
                rows = y.square().sub_(1 - ctx.eps * rstd.square())
                rows = rows.mul_(-.5 * s)
                if ctx.center:
                    rows = rows.addcmul_(y, t, value=-1)
                grad_mask = _sum_to(rows, weight.shape) / total
                grad_mask = grad_mask.to(ctx.dtypes[1])
            if ctx.needs_input_grad[2]:
                grad_gain = _sum_to(product, gain.shape).to(gain.dtype)
            if ctx.bias and ctx.needs_input_grad[3]:
                grad_bias = _sum_to(grad, y.shape[-1:])
        return grad_x, grad_mask, grad_gain, grad_bias, None, None


def masked_layer_norm(x: Tensor, mask: Tensor, weight: Optional[Tensor],
                      bias: Optional[Tensor], eps: float,
                      center: bool) -> Tensor:
    """Layer norm (or RMS norm) of ``[..., C]`` under masks ``[C]``."""
    return MaskedNormalize.apply(x, mask, weight, bias, eps, center)


def masked_group_norm(x: Tensor, groups: int, mask: Tensor,
                      weight: Optional[Tensor], bias: Optional[Tensor],
                      eps: float) -> Tensor:
    """Group norm of ``[B, C, ...]`` under masks ``[C]``."""
    shape = x.shape
    positions = x[0, 0].numel()
    rows = mask.view(groups, -1, 1).expand(-1, -1, positions)
    out = MaskedNormalize.apply(
        x.reshape(shape[0], groups, -1), rows.reshape(groups, -1), None, None,
        eps, True)
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
