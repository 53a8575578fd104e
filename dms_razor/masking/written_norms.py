# Copyright (c) dms_razor contributors. All rights reserved.
"""Masked norms in operations of PyTorch, for all devices and types.

:mod:`.fused_norms` and :mod:`.compiled_norms` do the same at once, on a GPU
and on a CPU. What :func:`of_groups` and :func:`of_rows` write out may be
derived twice, which what is done in memory alone may not.
"""
from typing import List, Optional, Tuple

import torch
from torch import Tensor


def of_groups(x: Tensor, mask: Tensor, eps: float) -> Tensor:
    """``(x - mean) * rstd``, with statistics over the last dimension."""
    wide, weight = _wide(x, x, mask)
    weight = weight / weight.sum(-1, keepdim=True)
    wide = wide - (wide * weight).sum(-1, keepdim=True)
    square = (wide * wide * weight).sum(-1, keepdim=True)
    return (wide * (square + eps).rsqrt()).to(x.dtype)


def of_rows(x: Tensor, mask: Tensor, gain: Optional[Tensor],
            bias: Optional[Tensor], eps: float, center: bool) -> Tensor:
    """The result of :func:`forward_rows`."""
    wide, weight, gain, bias = _wide(x, x, mask, gain, bias)
    if center:
        out = of_groups(wide, weight, eps)
    else:
        square = wide * wide * (weight / weight.sum())
        out = wide * (square.sum(-1, keepdim=True) + eps).rsqrt()
    out = out if gain is None else out * gain
    return (out if bias is None else out + bias).to(x.dtype)


def _wide(x: Tensor, *parts: Optional[Tensor]) -> List[Optional[Tensor]]:
    """Parts in the dtype of statistics: that of x, float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return [None if part is None else part.to(dtype) for part in parts]


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


def forward_rows(x: Tensor, mask: Tensor, gain: Optional[Tensor],
                 bias: Optional[Tensor], eps: float,
                 center: bool) -> Tuple[Tensor, Tensor, Tensor]:
    """Normalise rows.

    Args:
        x (Tensor): ``[R, C]``.
        mask (Tensor): ``[C]``.
        gain, bias (Tensor, optional): ``[C]``.
        eps (float): Added to the variance.
        center (bool): Whether the mean is taken off (layer norm).

    Returns:
        tuple[Tensor, Tensor, Tensor]: The result ``[R, C]`` in the dtype of
        ``x``; mean (0 without ``center``) and inverse deviation ``[R]`` in
        float32 at least.
    """
    weight, gain, bias = _wide(x, mask, gain, bias)
    weight = weight / weight.sum()
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


def backward_rows(grad: Tensor, x: Tensor, mask: Tensor,
                  gain: Optional[Tensor], mean: Tensor, rstd: Tensor,
                  eps: float, center: bool) -> Tuple[Tensor, Tensor]:
    """Gradients of :func:`forward_rows`.

    With y the normalised rows, g = grad * gain, s = Σ_j g_j y_j and
    t = Σ_j g_j (0 without mean)::

        dx_i = rstd * (g_i - w_i * (t + y_i * s))
        dm_i = Σ_rows (-½ (y_i² - v) s - y_i t) / Σm,  v = 1 - eps * rstd²

    Returns:
        tuple[Tensor, Tensor]: Of x ``[R, C]`` in its dtype; of mask, gain and
        bias, ``[3, C]`` in that of ``rstd``.
    """
    weight, gain = _wide(x, mask, gain)
    total = weight.sum()
    weight = weight / total
    grad_x = torch.empty_like(x)
    found = weight.new_zeros(3, len(weight))
    grad_mask, grad_gain, grad_bias = found
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
    grad_mask /= total
    return grad_x, found
