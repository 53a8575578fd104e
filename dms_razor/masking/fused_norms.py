# Copyright (c) dms_razor contributors. All rights reserved.
"""The masked layer norm in one kernel forward and two backward, on a GPU.

Written out in PyTorch it is some forty operations, each of which a GPU is
told of for longer than it works on it. These kernels, in Triton (which comes
with CUDA builds of PyTorch), read and write what PyTorch's own norm does, and
keep for the backward pass what that keeps. :mod:`.written_norms` has the
formulas, and does the work where there is no Triton.
"""
from typing import Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Channels of a row, at most: a row is held in registers.
MOST = 8192
#: Programs that add up gradients, at most, each some rows.
PROGRAMS = 1024


@triton.jit
def _forward(x, mask, gain, bias, out, mean, rstd, width, eps,
             CENTER: tl.constexpr, GAIN: tl.constexpr, BIAS: tl.constexpr,
             WIDE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < width
    masks = tl.load(mask + cols, mask=inside, other=0.).to(WIDE)
    weight = masks / tl.sum(masks, 0)
    values = tl.load(x + row * width + cols, mask=inside, other=0.).to(WIDE)
    if CENTER:
        middle = tl.sum(values * weight, 0)
        values = values - middle
        tl.store(mean + row, middle)
    scale = 1 / tl.sqrt(tl.sum(values * values * weight, 0) + eps)
    tl.store(rstd + row, scale)
    values = values * scale
    if GAIN:
        values = values * tl.load(gain + cols, mask=inside, other=0.).to(WIDE)
    if BIAS:
        values = values + tl.load(bias + cols, mask=inside, other=0.).to(WIDE)
    tl.store(out + row * width + cols, values, mask=inside)


@triton.jit
def _backward(grad, x, mask, gain, mean, rstd, grad_x, sums, rows, width, eps,
              STEPS, CENTER: tl.constexpr, GAIN: tl.constexpr,
              WIDE: tl.constexpr, BLOCK: tl.constexpr):
    first, programs = tl.program_id(0), tl.num_programs(0)
    cols = tl.arange(0, BLOCK)
    inside = cols < width
    masks = tl.load(mask + cols, mask=inside, other=0.).to(WIDE)
    total = tl.sum(masks, 0)
    weight = masks / total
    gains = tl.full((BLOCK, ), 1, WIDE)
    if GAIN:
        gains = tl.load(gain + cols, mask=inside, other=0.).to(WIDE)
    of_gain = tl.zeros((BLOCK, ), WIDE)
    of_bias = tl.zeros((BLOCK, ), WIDE)
    of_mask = tl.zeros((BLOCK, ), WIDE)
    for step in range(STEPS):
        row = (first + step * programs).to(tl.int64)
        # Of a row beyond the last one all gradients are 0.
        there = inside & (row < rows)
        place = row * width + cols
        y = tl.load(x + place, mask=there, other=0.).to(WIDE)
        given = tl.load(grad + place, mask=there, other=0.).to(WIDE)
        scale = tl.load(rstd + row, mask=row < rows, other=0.)
        if CENTER:
            y = y - tl.load(mean + row, mask=row < rows, other=0.)
        y = tl.where(there, y * scale, 0.)
        of_gain += given * y
        of_bias += given
        given = given * gains
        s = tl.sum(given * y, 0)
        pull = y * s
        of_mask += -.5 * (y * pull - (1 - eps * scale * scale) * s)
        if CENTER:
            t = tl.sum(given, 0)
            pull += t
            of_mask += -y * t
        tl.store(grad_x + place, (given - weight * pull) * scale, mask=there)
    place = sums + first * 3 * width + cols
    tl.store(place, of_mask / total, mask=inside)
    tl.store(place + width, of_gain, mask=inside)
    tl.store(place + 2 * width, of_bias, mask=inside)


def _settings(x: Tensor, center: bool, gain: Optional[Tensor],
              dtype: torch.dtype) -> dict:
    block = triton.next_power_of_2(x.shape[1])
    return dict(
        CENTER=center,
        GAIN=gain is not None,
        WIDE=tl.float64 if dtype == torch.float64 else tl.float32,
        BLOCK=block,
        num_warps=min(max(block // 256, 1), 16))


def forward_rows(x: Tensor, mask: Tensor, gain: Optional[Tensor],
                 bias: Optional[Tensor], eps: float,
                 center: bool) -> Tuple[Tensor, Tensor, Tensor]:
    """Normalise rows.

    Args:
        x (Tensor): ``[R, C]``, contiguous.
        mask (Tensor): ``[C]``.
        gain, bias (Tensor, optional): ``[C]``.
        eps (float): Added to the variance.
        center (bool): Whether the mean is taken off.

    Returns:
        tuple[Tensor, Tensor, Tensor]: The result ``[R, C]`` in the dtype of
        ``x``, mean and inverse deviation ``[R]`` in float32 at least.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    out = torch.empty_like(x)
    mean, rstd = x.new_empty((2, len(x)), dtype=dtype)
    _forward[(len(x), )](
        x,
        mask,
        gain,
        bias,
        out,
        mean,
        rstd,
        x.shape[1],
        eps,
        BIAS=bias is not None,
        **_settings(x, center, gain, dtype))
    return out, mean, rstd


def backward_rows(grad: Tensor, x: Tensor, mask: Tensor,
                  gain: Optional[Tensor], mean: Tensor, rstd: Tensor,
                  eps: float, center: bool) -> Tuple[Tensor, Tensor]:
    """Gradients of :func:`forward_rows`.

    Returns:
        tuple[Tensor, Tensor]: Of x ``[R, C]`` in its dtype; of mask, gain and
        bias, ``[3, C]`` in that of ``rstd``.
    """
    rows, width = x.shape
    programs = min(rows, PROGRAMS)
    grad_x = torch.empty_like(x)
    sums = rstd.new_empty(programs, 3, width)
    _backward[(programs, )](grad, x, mask, gain, mean, rstd, grad_x, sums,
                            rows, width, eps, triton.cdiv(rows, programs),
                            **_settings(x, center, gain, rstd.dtype))
    return grad_x, sums.sum(0)
