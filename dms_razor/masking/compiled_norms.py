# Copyright (c) dms_razor contributors. All rights reserved.
"""The masked layer norm as one loop forward and one backward, on a CPU.

:mod:`.written_norms` has the formulas, and does the work where there is no
Numba; :mod:`.fused_norms` is the like of this module for a GPU.
"""
import ctypes
from functools import lru_cache
from typing import Callable, Optional, Tuple

import torch
from torch import Tensor

from .compiled import (KINDS, carray, compiled, loop, own_part, pointer,
                       threads_for, worth_it)

#: Numbers that are normalised at once, at least, for which the loops are
#: compiled, which takes longer than a search of smaller networks gains.
LEAST = 2**16
#: Rows whose gradients are added up before they are added to those of others,
#: as long sums of small numbers lose digits. Threads work on whole ones.
ROWS = 128


@loop
def _forward(x, weight, gain, bias, eps, center, out, mean, rstd, first, last):
    for r in range(first, last):
        middle = x.dtype.type(0)
        if center:
            for c in range(x.shape[1]):
                middle += x[r, c] * weight[c]
        variance = x.dtype.type(0)
        for c in range(x.shape[1]):
            variance += (x[r, c] - middle) * (x[r, c] - middle) * weight[c]
        scale = x.dtype.type(1 / ((variance + eps)**.5))
        for c in range(x.shape[1]):
            out[r, c] = (x[r, c] - middle) * scale * gain[c] + bias[c]
        mean[r], rstd[r] = middle, scale


@loop
def _backward(grad, x, weight, gain, mean, rstd, eps, center, grad_x, sums,
              first, last):
    half = x.dtype.type(.5)
    for r in range(first, last):
        middle, scale = mean[r], rstd[r]
        s = t = x.dtype.type(0)
        for c in range(x.shape[1]):
            pull = grad[r, c] * gain[c]
            s += pull * ((x[r, c] - middle) * scale)
            t += pull
        if not center:
            t = x.dtype.type(0)
        v = x.dtype.type(1 - eps * scale * scale)
        for c in range(x.shape[1]):
            y = (x[r, c] - middle) * scale
            sums[0, c] -= half * s * (y * y - v) + y * t
            sums[1, c] += grad[r, c] * y
            sums[2, c] += grad[r, c]
            grad_x[r, c] = scale * (
                grad[r, c] * gain[c] - weight[c] * (t + y * s))


@lru_cache(None)
def _loops(dtype: torch.dtype) -> Tuple[Callable, Callable]:
    """Both, for numbers of a type: compiled when they are first used."""
    real, double = pointer(KINDS[dtype]), pointer(KINDS[torch.float64])

    @loop
    def forward(given):
        rows, width, center = given[0], given[1], given[2] != 0
        eps = carray(double(given[3]), (1, ))[0]
        first, last = own_part(rows)
        _forward(
            carray(real(given[4]), (rows, width)),
            carray(real(given[5]),
                   (width, )), carray(real(given[6]), (width, )),
            carray(real(given[7]), (width, )), eps, center,
            carray(real(given[8]), (rows, width)),
            carray(real(given[9]), (rows, )),
            carray(real(given[10]), (rows, )), first, last)

    @loop
    def backward(given):
        rows, width, center = given[0], given[1], given[2] != 0
        eps = carray(double(given[3]), (1, ))[0]
        pieces = -(-rows // ROWS)
        sums = carray(real(given[10]), (pieces, 3, width))
        first, last = own_part(pieces)
        for piece in range(first, last):
            _backward(
                carray(real(given[4]), (rows, width)),
                carray(real(given[5]), (rows, width)),
                carray(real(given[6]), (width, )),
                carray(real(given[7]), (width, )),
                carray(real(given[8]), (rows, )),
                carray(real(given[9]), (rows, )), eps, center,
                carray(real(given[11]), (rows, width)), sums[piece],
                piece * ROWS, min(rows, (piece + 1) * ROWS))

    return compiled(forward, 11), compiled(backward, 12)


def fits(x: Tensor, *others: Tensor) -> bool:
    """Whether the loops can work on such rows, with masks and the like."""
    return (x.numel() >= LEAST and x.dtype in KINDS
            and all(one.device.type == 'cpu' and one.dtype == x.dtype
                    for one in (x, *others)) and worth_it())


def forward_rows(x: Tensor, mask: Tensor, gain: Optional[Tensor],
                 bias: Optional[Tensor], eps: float,
                 center: bool) -> Tuple[Tensor, Tensor, Tensor]:
    """Normalise rows.

    Args:
        x (Tensor): ``[R, C]``, float32 or float64; all are contiguous, and
            of one type.
        mask (Tensor): ``[C]``.
        gain, bias (Tensor, optional): ``[C]``.
        eps (float): Added to the variance.
        center (bool): Whether the mean is taken off.

    Returns:
        tuple[Tensor, Tensor, Tensor]: The result ``[R, C]``, mean and inverse
        deviation ``[R]``, all in the dtype of ``x``.
    """
    out, (mean, rstd) = torch.empty_like(x), x.new_empty(2, len(x))
    gain = torch.ones_like(mask) if gain is None else gain
    bias = torch.zeros_like(mask) if bias is None else bias
    weight, small = mask / mask.sum(), ctypes.c_double(eps)
    _loops(x.dtype)[0](threads_for(x.numel()), *x.shape, int(center),
                       ctypes.addressof(small),
                       *(tensor.data_ptr()
                         for tensor in (x, weight, gain, bias, out, mean,
                                        rstd)))
    return out, mean, rstd


def backward_rows(grad: Tensor, x: Tensor, mask: Tensor,
                  gain: Optional[Tensor], mean: Tensor, rstd: Tensor,
                  eps: float, center: bool) -> Tuple[Tensor, Tensor]:
    """Gradients of :func:`forward_rows`.

    Returns:
        tuple[Tensor, Tensor]: Of x ``[R, C]``; of mask, gain and bias, ``[3,
        C]``.
    """
    grad_x = torch.empty_like(x)
    sums = x.new_zeros(-(-len(x) // ROWS), 3, x.shape[1])
    gain = torch.ones_like(mask) if gain is None else gain
    total, small = mask.sum(), ctypes.c_double(eps)
    weight = mask / total
    _loops(x.dtype)[1](threads_for(x.numel()), *x.shape, int(center),
                       ctypes.addressof(small),
                       *(tensor.data_ptr()
                         for tensor in (grad, x, weight, gain, mean, rstd,
                                        sums, grad_x)))
    found = sums.sum(0)
    found[0] /= total
    return grad_x, found
