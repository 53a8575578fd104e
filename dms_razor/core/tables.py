# Copyright (c) dms_razor contributors. All rights reserved.
"""Costs of a network as index tensors, evaluated without a loop."""
from dataclasses import dataclass
from functools import partial
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .layout import Layout

_index = partial(torch.tensor, dtype=torch.int64)
_floats = partial(torch.tensor, dtype=torch.float64)


@dataclass
class Tables:
    """Index tensors of one metric: a few gathers and products, no loops.

    Terms read ``z = [1, counts, used masks]``, costs ``w = [1, axes, used
    masks]``; leading batch dimensions are networks that a projection tries.

    Args:
        used (Tensor): Element ids of the masks that occur, int64 ``[K]``.
        term_factors (Tensor): Into z, int64 ``[F, T]``, padded with 0.
        term_mult (Tensor): float64 ``[T]``.
        term_axis (Tensor): Axis a term belongs to, ascending, int64 ``[T]``.
        axis_sums (bool): Whether an axis has more or less than one term.
        num_axes (int): Number of axes that occur.
        cost_factors (Tensor): Into w, int64 ``[G, C]``, padded with 0.
        cost_coef (Tensor): float64 ``[C]``.
        live (Tensor, optional): Of a peak, which costs are there in which
            moment, float64 ``[C, M]`` of 0 and 1.
    """
    used: Tensor
    term_factors: Tensor
    term_mult: Tensor
    term_axis: Tensor
    axis_sums: bool
    num_axes: int
    cost_factors: Tensor
    cost_coef: Tensor
    live: Optional[Tensor] = None

    @property
    def work(self) -> int:
        """About the multiplications of one evaluation."""
        return self.cost_factors.numel() + self.term_factors.numel()

    def rows(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        """Amount of each cost, float64 ``[..., C]``.

        Args:
            counts (Tensor): float64 ``[..., U]``.
            used_masks (Tensor): The masks that occur, float64 ``[..., K]``.
        """
        one = counts.new_ones(counts.shape[:-1] + (1, ))
        z = torch.cat((one, counts, used_masks), -1)
        axes = _gathered_product(z, self.term_factors) * self.term_mult
        if self.axis_sums:
            sums = axes.new_zeros(axes.shape[:-1] + (self.num_axes, ))
            axes = sums.index_add(-1, self.term_axis, axes)
        w = torch.cat((one, axes, used_masks), -1)
        return _gathered_product(w, self.cost_factors) * self.cost_coef

    def value(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        """Sum of :meth:`rows`, or the largest of a moment; ``[...]``."""
        rows = self.rows(counts, used_masks)
        return rows.sum(-1) if self.live is None else \
            (rows @ self.live).amax(-1)


class Whole:
    """What :class:`Tables` are, for a metric that is one function.

    Args:
        layout (Layout): The units.
        function (Callable): A :class:`Metric`'s ``value``.
    """

    def __init__(self, layout: Layout, function: Callable) -> None:
        self.value = partial(function, layout)
        self.used = torch.arange(layout.E, device=layout.device)
        self.work = layout.U + layout.E


def _gathered_product(values: Tensor, indices: Tensor) -> Tensor:
    """Product over f of ``values[..., indices[f]]``, ``[..., n]``."""
    product = values.index_select(-1, indices[0])
    for factor in indices[1:]:
        product = product * values.index_select(-1, factor)
    return product


def compile_tables(axes: Sequence, costs: Sequence, num_units: int,
                   merge: bool) -> Tables:
    """Index tensors of ``costs``, see :class:`Tables`."""
    first_mask = 1 + num_units
    used_axes = sorted({a for cost in costs for a in cost.axes})
    terms = [(new, term) for new, old in enumerate(used_axes)
             for term in axes[old].terms]
    used = sorted({b
                   for cost in costs
                   for b in cost.blocks}
                  | {
                      f - first_mask
                      for _, term in terms
                      for f in term.factors if f >= first_mask
                  })
    slot = {element: i for i, element in enumerate(used)}
    axis_slot = {old: 1 + new for new, old in enumerate(used_axes)}

    rows: Dict[Tuple, float] = {}
    for number, cost in enumerate(costs):
        factors = [axis_slot[a] for a in cost.axes]
        factors += [1 + len(used_axes) + slot[b] for b in cost.blocks]
        key = (0 if merge else number, tuple(sorted(factors)), cost.moments)
        rows[key] = rows.get(key, 0.) + cost.coef

    term_axis = [axis for axis, _ in terms]
    return Tables(
        used=_index(used),
        term_factors=_padded([[
            f if f < first_mask else first_mask + slot[f - first_mask]
            for f in term.factors
        ] for _, term in terms]),
        term_mult=_floats([term.mult for _, term in terms]),
        term_axis=_index(term_axis),
        axis_sums=term_axis != list(range(len(used_axes))),
        num_axes=len(used_axes),
        cost_factors=_padded([factors for _, factors, _ in rows]),
        cost_coef=_floats(list(rows.values())),
        live=_live([moments for _, _, moments in rows]))


def _live(rows: List[Tuple[int, ...]]) -> Optional[Tensor]:
    """Which row is there in which moment, ``[C, M]``; None for a sum."""
    number = max((1 + max(moments) for moments in rows if moments), default=0)
    if not number:
        return None
    return _floats([[float(m in moments) for m in range(number)]
                    for moments in map(set, rows)])


def _padded(rows: List[Sequence[int]]) -> Tensor:
    """int64 ``[longest, n]``, filled up with 0, the index of the 1."""
    longest = max([1, *map(len, rows)])
    return _index([[*row, *[0] * (longest - len(row))]
                   for row in rows]).reshape(-1, longest).T.contiguous()
