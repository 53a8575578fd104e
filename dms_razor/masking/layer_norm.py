# Copyright (c) dms_razor contributors. All rights reserved.
"""Masked layer and RMS norm as one function, in pieces that fit the cache.

Written out, the formula reads and writes the whole activation some twenty
times. On a CPU that costs more than the arithmetic, so rows are worked off in
pieces whose temporaries stay in the cache and are written in place.
"""
from typing import Optional, Tuple

import torch
from torch import Tensor

#: Numbers in one temporary on a CPU, four megabytes of float32. Smaller pieces
#: lose more on starting operations than they win in the cache.
PIECE = 2**20


def _pieces(x: Tensor) -> range:
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
        ``x``; the normalised rows before gain and bias ``[R, C]`` and the
        inverse deviations ``[R, 1]`` in that of ``weight``.
    """
    normed = torch.empty_like(x, dtype=weight.dtype)
    out = torch.empty_like(normed)
    rstd = weight.new_empty(len(x), 1)
    pieces = _pieces(x)
    # Written again and again: fresh memory would cost more than the sums.
    buffer = weight.new_empty(min(pieces.step, len(x)), x.shape[1])
    for first in pieces:
        rows = slice(first, first + pieces.step)
        wide, y = x[rows].to(weight.dtype), normed[rows]
        square = buffer[:len(y)]
        if center:
            torch.sub(wide, (wide @ weight)[:, None], out=y)
        else:
            y.copy_(wide)
        torch.mul(y, y, out=square)
        torch.add(square @ weight, eps, out=rstd[rows, 0]).rsqrt_()
        y.mul_(rstd[rows])
        if gain is not None and bias is not None:
            torch.addcmul(bias, y, gain, out=out[rows])
        elif gain is not None:
            torch.mul(y, gain, out=out[rows])
        elif bias is not None:
            torch.add(y, bias, out=out[rows])
        else:
            out[rows] = y
    return out.to(x.dtype), normed, rstd


def backward_rows(grad: Tensor, normed: Tensor, rstd: Tensor, weight: Tensor,
                  gain: Optional[Tensor], eps: float, center: bool,
                  dtype: torch.dtype) -> Tuple[Tensor, ...]:
    """Gradients of :func:`forward_rows`.

    With g = grad * gain, s = Σ_j g_j y_j and t = Σ_j g_j (0 without mean)::

        dx_i = rstd * (g_i - w_i * (t + y_i * s))
        dm_i = Σ_rows (-½ (y_i² - v) s - y_i t) / Σm,  v = 1 - eps * rstd²

    Returns:
        tuple[Tensor]: Of x ``[R, C]`` (in ``dtype``), of the masks times
        their sum ``[C]``, of gain ``[C]`` and of bias ``[C]``.
    """
    grad_x = torch.empty_like(normed)
    grad_mask, grad_gain, grad_bias = weight.new_zeros(3, len(weight))
    gain = torch.ones_like(weight) if gain is None else gain
    pieces = _pieces(normed)
    buffers = weight.new_empty(2, min(pieces.step, len(normed)), len(weight))
    for first in pieces:
        rows = slice(first, first + pieces.step)
        g, y, scale = grad[rows].to(weight.dtype), normed[rows], rstd[rows]
        sums = g.new_ones(len(g))  # a product with it adds up the rows
        product, pull = buffers[:, :len(g)]
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
        grad_mask += s @ (1 - eps * scale[:, 0].square()) / 2
        torch.mul(g, gain, out=grad_x[rows])
        grad_x[rows].sub_(pull.mul_(weight)).mul_(scale)
    return grad_x.to(dtype), grad_mask, grad_gain, grad_bias


class MaskedLayerNorm(torch.autograd.Function):
    """Layer norm (``center``) or RMS norm of ``[..., C]``, masks ``[C]``."""

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, gain: Optional[Tensor],
                bias: Optional[Tensor], eps: float, center: bool) -> Tensor:
        """Statistics in float32 at least, the result in the dtype of x."""
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(x.dtype, torch.float32)
            total = mask.to(dtype).sum()
            weight = mask.to(dtype) / total
            rows = x.reshape(-1, x.shape[-1])
            gain = None if gain is None else gain.to(dtype)
            bias = None if bias is None else bias.to(dtype)
            out, normed, rstd = forward_rows(rows, weight, gain, bias, eps,
                                             center)
        ctx.save_for_backward(normed, rstd, weight, total, gain, bias)
        ctx.settings = eps, center, x.dtype, mask.dtype
        return out.view(x.shape)

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Gradients of x, mask, gain and bias."""
        normed, rstd, weight, total, gain, bias = ctx.saved_tensors
        eps, center, dtype, mask_dtype = ctx.settings
        with torch.autocast(grad.device.type, enabled=False):
            grad_x, grad_mask, grad_gain, grad_bias = backward_rows(
                grad.reshape(normed.shape), normed, rstd, weight, gain, eps,
                center, dtype)
            grad_mask = (grad_mask / total).to(mask_dtype)
        return (grad_x.view(grad.shape), grad_mask,
                None if gain is None else grad_gain.to(gain.dtype),
                None if bias is None else grad_bias.to(bias.dtype), None, None)
