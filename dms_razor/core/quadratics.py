# Copyright (c) dms_razor contributors. All rights reserved.
"""The paper's choice for a layer's time: a quadratic function of its widths.

Appendix A.1.2 multiplies the time of a whole layer with a function of its
pruning ratios, equation 9, and takes a quadratic one. Here it is a function of
both shares of the widths, without negative coefficients, so that a wider layer
never costs less.
"""
from typing import Sequence

import torch
from torch import Tensor

from .least_squares import not_negative

_LEAST = 1e-6  # milliseconds; relative errors of less say nothing


class Quadratics:
    """What :class:`.surfaces.Surfaces` are, as ``c · (1, a, b, a², ab, b²)``.

    Args:
        grid (Sequence[float]): Shares at which values are known, ascending,
            n of them.
        values (Tensor): Times, float64 ``[P, n, n]``; fitted by least squares
            of the relative error.

    Attributes:
        coefficients (Tensor): None below 0, float64 ``[P, 6]``.
    """

    def __init__(self, grid: Sequence[float], values: Tensor) -> None:
        edges = torch.tensor(grid, dtype=torch.float64)
        rows = self._terms(*torch.meshgrid(edges, edges, indexing='ij'))
        rows = rows.reshape(-1, rows.shape[-1])
        found = [
            not_negative(rows,
                         part.clamp(min=_LEAST).flatten())
            for part in values.double().cpu()
        ]
        self.coefficients = torch.stack(found).to(values.device)

    @staticmethod
    def _terms(first: Tensor, second: Tensor) -> Tensor:
        return torch.stack([
            torch.ones_like(first), first, second,
            first.square(), first * second,
            second.square()
        ], -1)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Times of all parts.

        Args:
            first, second (Tensor): Shares, float64 ``[..., P]``.

        Returns:
            Tensor: float64 ``[..., P]``, differentiable in both.
        """
        return (self._terms(first, second) * self.coefficients).sum(-1)
