# Copyright (c) dms_razor contributors. All rights reserved.
"""Layer, RMS and group norm whose statistics are those of kept channels.

With masks m the mean is Σmx/Σm and the variance Σm(x−mean)²/Σm (METHOD
section 2), so that with hard masks a norm computes what the exported, narrow
norm computes. Fused autograd functions keep only what a standard norm keeps
(an output and one number a row), and give the masks their gradient.
Statistics are taken in float32 at least, as PyTorch's norms do.
"""
from types import ModuleType
from typing import Any, Callable, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

try:
    from . import fused_norms
except ImportError:  # PyTorch was built without Triton
    fused_norms = None


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
    # Viewed out here: a view made in the function could not be written into
    # by an activation in place.
    rows = x.reshape(-1, x.shape[-1])
    return MaskedLayerNorm.apply(rows, mask, weight, bias, eps,
                                 center).view(x.shape)


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


def masked_mean(x: Tensor, mask: Tensor, dim: int, keepdim: bool) -> Tensor:
    """Mean along ``dim`` of the kept channels, Σmx/Σm; masks ``[C]``."""
    with torch.autocast(x.device.type, enabled=False):
        weight = (mask / mask.sum()).to(x.dtype)
        mean = x.movedim(dim, -1) @ weight
    return mean.unsqueeze(dim) if keepdim else mean


class NormInterceptor(TorchFunctionMode):
    """While a norm module runs, its norm function reads masks.

    Works for any module that calls the PyTorch function, whatever it does
    around it (a LayerNorm over the channels of images permutes first), and
    for norms that are written out with a mean over channels.

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
            return args[position] if len(args) > position else kwargs.get(
                key, default)

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
        if name == 'mean':
            dim = get(1, 'dim')
            dim = dim[0] if isinstance(dim, (tuple,
                                             list)) and len(dim) == 1 else dim
            if type(dim) is int and x.shape[dim] == len(self.mask):
                wanted = get(3, 'dtype')
                x = x if wanted is None else x.to(wanted)
                return masked_mean(x, self.mask, dim % x.dim(),
                                   get(2, 'keepdim', False))
        return func(*args, **kwargs)


# Written out, the formula of a layer or RMS norm reads and writes the whole
# activation some twenty times. On a CPU that costs more than the arithmetic,
# so rows are worked off in pieces whose temporaries stay in a core's cache and
# are written in place. These are the numbers in one of them, a megabyte
# of float32; what smaller pieces win is lost again on starting operations.
PIECE = 2**18


def pieces(x: Tensor) -> range:
    """First rows of the pieces of ``x [R, C]``, one piece on a GPU."""
    rows = max(1, PIECE // x.shape[1]) if x.device.type == 'cpu' else len(x)
    return range(0, len(x), max(1, rows))


def forward_rows(x: Tensor, weight: Tensor, gain: Optional[Tensor],
                 bias: Optional[Tensor], eps: float,
                 center: bool) -> Tuple[Tensor, Tensor, Tensor]:
    """Normalise rows.

    Args:
        x (Tensor): ``[R, C]``.
        weight (Tensor): Masks over their sum, ``[C]``, float32 or float64.
        gain, bias (Tensor, optional): ``[C]``.
        eps (float): Added to the variance.
        center (bool): Whether the mean is taken off (layer norm).

    Returns:
        tuple[Tensor, Tensor, Tensor]: The result ``[R, C]`` in the dtype of
        ``x``; mean (0 without ``center``) and inverse deviation ``[R]`` in
        that of ``weight``.
    """
    out = torch.empty_like(x)
    mean, rstd = weight.new_zeros(2, len(x))
    steps = pieces(x)
    # Written again and again: fresh memory would cost more than the sums.
    buffers = weight.new_empty(2, min(steps.step, len(x)), x.shape[1])
    for first in steps:
        rows = slice(first, first + steps.step)
        wide = x[rows].to(weight.dtype)
        y, square = buffers[:, :len(wide)]
        if center:
            mean[rows] = wide @ weight
            wide = torch.sub(wide, mean[rows, None], out=y)
        torch.mul(wide, wide, out=square)
        torch.add(square @ weight, eps, out=rstd[rows]).rsqrt_()
        torch.mul(wide, rstd[rows, None], out=y)
        _scaled(y, gain, bias, out[rows])
    return out, mean, rstd


def _scaled(y: Tensor, gain: Optional[Tensor], bias: Optional[Tensor],
            out: Tensor) -> None:
    """Write ``y * gain + bias``, which may be in a wider dtype, to ``out``."""
    wide = out if out.dtype == y.dtype else y
    if gain is not None and bias is not None:
        torch.addcmul(bias, y, gain, out=wide)
    elif gain is not None:
        torch.mul(y, gain, out=wide)
    elif bias is not None:
        torch.add(y, bias, out=wide)
    else:
        wide = y
    if wide is not out:
        out.copy_(wide)


def backward_rows(grad: Tensor, x: Tensor, weight: Tensor,
                  gain: Optional[Tensor], mean: Tensor, rstd: Tensor,
                  eps: float, center: bool) -> Tuple[Tensor, ...]:
    """Gradients of :func:`forward_rows`.

    With y the normalised rows, g = grad * gain, s = Σ_j g_j y_j and
    t = Σ_j g_j (0 without mean)::

        dx_i = rstd * (g_i - w_i * (t + y_i * s))
        dm_i = Σ_rows (-½ (y_i² - v) s - y_i t) / Σm,  v = 1 - eps * rstd²

    Returns:
        tuple[Tensor]: Of x ``[R, C]`` in its dtype, of the masks times their
        sum ``[C]``, of gain ``[C]`` and of bias ``[C]``.
    """
    grad_x = torch.empty_like(x)
    grad_mask, grad_gain, grad_bias = weight.new_zeros(3, len(weight))
    gain = torch.ones_like(weight) if gain is None else gain
    steps = pieces(x)
    buffers = weight.new_empty(3, min(steps.step, len(x)), len(weight))
    ones = weight.new_ones(buffers.shape[1])
    for first in steps:
        rows = slice(first, first + steps.step)
        g, scale = grad[rows].to(weight.dtype), rstd[rows]
        sums = ones[:len(g)]  # a product with it adds up the rows
        y, product, pull = buffers[:, :len(g)]
        wide = x[rows].to(weight.dtype)
        if center:
            wide = torch.sub(wide, mean[rows, None], out=y)
        torch.mul(wide, scale[:, None], out=y)
        torch.mul(g, y, out=product)
        s = product @ gain
        grad_gain += sums @ product
        grad_bias += sums @ g
        torch.mul(y, s[:, None], out=pull)
        if center:
            t = g @ gain
            pull.add_(t[:, None])
            grad_mask -= t @ y / 2
        # ½ (y² s + y t) is half of y * pull; the other half of y t is above.
        grad_mask -= sums @ torch.mul(y, pull, out=product) / 2
        grad_mask += s @ (1 - eps * scale.square()) / 2
        torch.mul(g, gain, out=product).addcmul_(pull, weight, value=-1)
        torch.mul(product, scale[:, None], out=y)
        grad_x[rows] = y
    return grad_x, grad_mask, grad_gain, grad_bias


class MaskedLayerNorm(torch.autograd.Function):
    """Layer norm (``center``) or RMS norm of ``[R, C]``, masks ``[C]``."""

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, gain: Optional[Tensor],
                bias: Optional[Tensor], eps: float, center: bool) -> Tensor:
        """Statistics in float32 at least, the result in the dtype of x."""
        ctx.settings = eps, center, mask.dtype
        ctx.kernels = kernels = _kernels(x)
        if kernels is not None:
            x, mask = x.contiguous(), mask.contiguous()
            out, mean, rstd = kernels.forward_rows(x, mask, gain, bias, eps,
                                                   center)
            ctx.save_for_backward(x, mask, mean, rstd, gain, bias)
            return out
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            weight, gain, bias = (None if part is None else part.to(dtype)
                                  for part in (mask, gain, bias))
            out, mean, rstd = forward_rows(x, weight / weight.sum(), gain,
                                           bias, eps, center)
        ctx.save_for_backward(x, weight, mean, rstd, gain, bias)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Gradients of x, mask, gain and bias."""
        eps, center, mask_dtype = ctx.settings
        x, mask, mean, rstd, gain, bias = ctx.saved_tensors
        if ctx.kernels is not None:
            grad_x, sums = ctx.kernels.backward_rows(grad.contiguous(), x,
                                                     mask, gain, mean, rstd,
                                                     eps, center)
            grad_mask, grad_gain, grad_bias = sums
        else:
            with torch.autocast(grad.device.type, enabled=False):
                total = mask.sum()
                grad_x, grad_mask, grad_gain, grad_bias = backward_rows(
                    grad, x, mask / total, gain, mean, rstd, eps, center)
                grad_mask = grad_mask / total
        return (grad_x, grad_mask.to(mask_dtype),
                None if gain is None else grad_gain.to(gain.dtype),
                None if bias is None else grad_bias.to(bias.dtype), None, None)


def _kernels(x: Tensor) -> Optional[ModuleType]:
    """:mod:`.fused_norms`, where it can work on such rows."""
    if not x.is_cuda or torch.compiler.is_compiling():
        return None
    if fused_norms is None or x.shape[-1] > fused_norms.MOST:
        return None
    return fused_norms
