# Copyright (c) dms_razor contributors. All rights reserved.
"""Monotone functions of one or two widths, from values on a grid.

What a layer takes on a device is measured at some of its widths. Between them
the time is multilinear, so that it is continuous, and its slope is that of the
cell. Measurements are made monotone first (a wider layer never costs less), by
the largest value of what is narrower: the projection onto a budget relies on
that, and what a device does not show by itself is noise, or an alignment that
a narrower layer can have as well by being exported wider.
"""
from typing import Sequence, Tuple

import torch
from torch import Tensor


def grown(values: Tensor) -> Tensor:
    """Values ``[P, n, n]``, none below what is narrower in either width."""
    return values.cummax(1).values.cummax(2).values


class Surfaces:
    """Time of each of P parts, as a function of two shares of its widths.

    Args:
        grid (Sequence[float]): Shares at which values are known, ascending,
            the last 1; n of them.
        values (Tensor): float64 ``[P, n, n]``; made monotone.
    """

    def __init__(self, grid: Sequence[float], values: Tensor) -> None:
        edges = torch.tensor(grid, dtype=torch.float64, device=values.device)
        values = grown(values.double())
        self.grid, self.values = self._from_zero(edges, values)

    @staticmethod
    def _from_zero(grid: Tensor, values: Tensor) -> Tuple[Tensor, Tensor]:
        """Grid and values with a share of 0, on the line of the first two."""
        for dim in (1, 2):
            first = values.narrow(dim, 0, 1)
            zero = torch.zeros_like(first)
            if len(grid) > 1:
                slope = (values.narrow(dim, 1, 1) - first) / (
                    grid[1] - grid[0])
                zero = (first - slope * grid[0]).clamp(min=0)
            values = torch.cat((zero, values), dim)
        return torch.cat((grid.new_zeros(1), grid)), grown(values)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Times of all parts.

        Args:
            first, second (Tensor): Shares, float64 ``[..., P]``.

        Returns:
            Tensor: float64 ``[..., P]``, differentiable in both.
        """
        (i, s), (j, t) = map(self._cell, (first, second))
        part = torch.arange(len(self.values), device=first.device)
        v = self.values
        low = v[part, i, j] * (1 - t) + v[part, i, j + 1] * t
        high = v[part, i + 1, j] * (1 - t) + v[part, i + 1, j + 1] * t
        return low * (1 - s) + high * s

    def _cell(self, share: Tensor) -> Tuple[Tensor, Tensor]:
        """Cell of a share, and its place in it, 0 to 1 (beyond it above 1)."""
        cell = torch.bucketize(
            share.detach().contiguous(), self.grid, right=True) - 1
        cell = cell.clamp(0, len(self.grid) - 2)
        low, high = self.grid[cell], self.grid[cell + 1]
        return cell, (share - low) / (high - low)
