# Copyright (c) dms_razor contributors. All rights reserved.
"""Least squares without negative coefficients, for a handful of columns."""
import itertools

import torch
from torch import Tensor


def not_negative(rows: Tensor, values: Tensor) -> Tensor:
    """The x of least squares of ``(rows @ x − values) / values``, x ≥ 0.

    Few columns: every set of them is tried.

    Args:
        rows (Tensor): float64 ``[N, n]``.
        values (Tensor): Positive, float64 ``[N]``.
    """
    scale = rows.abs().amax(0)
    a, best = rows / scale.clamp(min=1e-300) / values[:, None], None
    for size in range(1, rows.shape[1] + 1):
        for columns in itertools.combinations(range(rows.shape[1]), size):
            x = torch.zeros(rows.shape[1]).double()
            x[list(columns)] = torch.linalg.lstsq(
                a[:, columns], torch.ones(len(a), 1).double(),
                driver='gelsd').solution[:, 0]
            off = float((a @ x - 1).square().sum())
            if bool((x >= 0).all()) and (best is None or off < best[0]):
                best = off, x
    return best[1] / scale.clamp(min=1e-300)
