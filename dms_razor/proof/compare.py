# Copyright (c) dms_razor contributors. All rights reserved.
"""How far two networks' outputs are apart, slice by slice.

A detector returns boxes of hundreds of pixels beside scores below one, often
in one tensor. So every slice along every axis is measured by its own largest
entry: a row, a channel, a position.
"""
from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor

from ..network import tensors_of


@dataclass(frozen=True)
class Tolerance:
    """What rounding explains.

    Attributes:
        share (float): Of the largest entry of a slice.
        least (float): A slice counts as if its largest entry were this share
            of the tensor's, since sums that cancel leave so much behind.
    """
    share: float
    least: float


#: By the precision that a network computes in. In float64 rounding explains
#: no difference worth mentioning, not even where it is amplified.
TOLERANCES = {
    torch.float64: Tolerance(1e-8, 1e-5),
    torch.float32: Tolerance(1e-4, .1),
    torch.float16: Tolerance(.1, 1.),
    torch.bfloat16: Tolerance(.1, 1.),
}


def numbers_of(out: Any) -> List[Tensor]:
    """The tensors of an output, complex numbers as two."""
    return [
        torch.view_as_real(t) if t.is_complex() else t for t in tensors_of(out)
    ]


def scales(x: Tensor) -> Tensor:
    """What an entry is measured by, shape of ``x``: the largest entry of the
    smallest of its slices, without gradient; 0 where all of one are 0."""
    size = x.detach().abs().double().nan_to_num(0, 0, 0)
    if size.dim() == 0 or size.numel() == 0:
        return size
    found = size.amax().expand_as(size)
    for axis in range(size.dim()) if size.dim() > 1 else ():
        others = [d for d in range(size.dim()) if d != axis]
        found = torch.minimum(found, size.amax(others, keepdim=True))
    return found if size.dim() > 1 else size


def compare(expected: List[Tensor], found: List[Tensor],
            tolerance: Tolerance) -> Tuple[float, Optional[str]]:
    """The largest difference, and what is wrong with it, if anything.

    Args:
        expected (list[Tensor]): What the masked network returns.
        found (list[Tensor]): What the pruned network returns.
        tolerance (Tolerance): What rounding explains.

    Returns:
        tuple[float, str | None]: Over the largest entry of a slice of what
        was expected; slices that are 0 in both say nothing.
    """
    if len(expected) != len(found):
        return float('inf'), f'{len(found)} outputs instead of {len(expected)}'
    worst = 0.
    for a, b in zip(expected, found):
        if a.shape != b.shape:
            return float('inf'), f'an output has shape {tuple(b.shape)} ' \
                f'instead of {tuple(a.shape)}'
        if a.numel() == 0 or (tolerance.share > 1e-6
                              and not a.is_floating_point()):
            continue  # rounding may decide between whole numbers
        finite = a.isfinite()
        if tolerance.share < 1e-6 and bool((b.isfinite() != finite).any()):
            return float('inf'), 'outputs are finite in one network only'
        a, b = (x.detach().double().nan_to_num(0, 0, 0) for x in (a, b))
        off, least = (a - b).abs(), tolerance.least * a.abs().max()
        relative = torch.where(off > 0, off / scales(a).clamp(min=least),
                               off.new_zeros(()))
        worst = max(worst, float(relative.max()))
        if worst > tolerance.share:
            return worst, f'outputs differ by {worst:.1e}'
    return worst, None


def evidence(first: List[Tensor], second: List[Tensor]) -> List[bool]:
    """Which outputs can tell networks apart.

    They are finite somewhere, not the same everywhere, and depend on the
    input.

    Args:
        first (list[Tensor]): What a network returns for one input.
        second (list[Tensor]): What it returns for another one.
    """
    return [
        len(first) == len(second) and _tells(a, b)
        for a, b in zip(first, second)
    ] if len(first) == len(second) else [False] * len(first)


def _tells(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return True  # how many there are depends on the input
    finite = a.isfinite() & b.isfinite()
    a, b = a[finite].double(), b[finite].double()
    if a.numel() == 0 or (a.numel() > 1 and bool((a == a[0]).all())):
        return False
    return bool((a - b).abs().max() > 1e-12 * a.abs().max())
