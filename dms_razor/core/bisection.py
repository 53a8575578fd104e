# Copyright (c) dms_razor contributors. All rights reserved.
"""Setting counts of which only the function of the numbers is known."""
from typing import Callable

import torch
from torch import Tensor

from .layout import Layout

_ROUNDS = 100  # more than the bits of float64


def within(kept: Tensor, layout: Layout) -> Tensor:
    """Expected counts that round to ``kept`` and that a probability reaches.

    A sigmoid or a softmax is never 0 or 1. So nothing and everything are
    approached to a hundredth of the group, and to a quarter of an element.

    Args:
        kept (Tensor): Counts, int64 ``[U]``.
        layout (Layout): The units.

    Returns:
        Tensor: float64 ``[U]``.
    """
    size = layout.size.double()
    edge = (.01 * size).clamp(max=.25)
    return torch.minimum(torch.maximum(kept.double(), edge), size - edge)


def bisected(counts: Callable[[Tensor], Tensor], wanted: Tensor, low: Tensor,
             high: Tensor) -> Tensor:
    """Where each of several growing functions has a wanted value.

    Args:
        counts (Callable): ``x [U] -> [U]``, every entry a growing function of
            the same entry of x.
        wanted (Tensor): Its values, float64 ``[U]``.
        low, high (Tensor): Bounds of x, float64 ``[U]``; the nearer one where
            the value lies outside.

    Returns:
        Tensor: x, float64 ``[U]``.
    """
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        more = counts(middle) < wanted
        low = torch.where(more, middle, low)
        high = torch.where(more, high, middle)
    return (low + high) / 2
