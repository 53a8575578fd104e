# Copyright (c) dms_razor contributors. All rights reserved.
"""The closed form of :mod:`.resource` as a few gathers and products.

One evaluation is: gather the factors of all terms and multiply them, add the
terms of each axis, gather the factors of all costs and multiply them, add the
costs. No Python loop over layers or units, and leading batch dimensions, so
that the projection can try many networks at once.
"""
from dataclasses import dataclass, fields
from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor


@dataclass
class Tables:
    """Index tensors of one metric.

    Terms read ``z = [1, counts, used masks]``; costs read ``w = [1, axes,
    used masks]``.

    Args:
        used (Tensor): Element ids of the masks that occur, int64 ``[K]``.
        term_factors (Tensor): Into z, int64 ``[F, T]``, padded with 0.
        term_mult (Tensor): float64 ``[T]``.
        term_axis (Tensor): Axis a term belongs to, ascending, int64 ``[T]``.
        axis_sums (bool): Whether some axis has more or less than one term.
        num_axes (int): Number of axes that occur.
        cost_factors (Tensor): Into w, int64 ``[G, C]``, padded with 0.
        cost_coef (Tensor): float64 ``[C]``.
    """
    used: Tensor
    term_factors: Tensor
    term_mult: Tensor
    term_axis: Tensor
    axis_sums: bool
    num_axes: int
    cost_factors: Tensor
    cost_coef: Tensor

    def to(self, device: torch.device) -> 'Tables':
        """These tables on ``device``."""
        moved = {}
        for field in fields(self):
            value = getattr(self, field.name)
            moved[field.name] = value.to(device) if isinstance(
                value, Tensor) else value
        return Tables(**moved)

    def used_masks(self, masks: Tensor) -> Tensor:
        """The masks that occur, float64 ``[..., K]``, of ``[..., E]``."""
        return masks.index_select(-1, self.used).double()

    def rows(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        """Figure of each cost, float64 ``[..., C]``."""
        return _gathered_product(
            self._w(counts, used_masks), self.cost_factors) * self.cost_coef

    def value(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        """Sum of all costs, float64 ``[...]``."""
        return self.rows(counts, used_masks).sum(-1)

    def _w(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        counts = counts.double()
        one = counts.new_ones(counts.shape[:-1] + (1, ))
        z = torch.cat((one, counts, used_masks), -1)
        axes = _gathered_product(z, self.term_factors) * self.term_mult
        if self.axis_sums:
            sums = axes.new_zeros(axes.shape[:-1] + (self.num_axes, ))
            axes = sums.index_add(-1, self.term_axis, axes)
        return torch.cat((one, axes, used_masks), -1)


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

    rows: List[Tuple[Tuple[int, ...], float]] = []
    for cost in costs:
        factors = [axis_slot[a] for a in cost.axes]
        factors += [1 + len(used_axes) + slot[b] for b in cost.blocks]
        rows.append((tuple(sorted(factors)), float(cost.coef)))
    if merge:
        merged: Dict[Tuple[int, ...], float] = {}
        for factors, coef in rows:
            merged[factors] = merged.get(factors, 0.) + coef
        rows = list(merged.items())

    term_axis = [axis for axis, _ in terms]
    return Tables(
        used=_index(used),
        term_factors=_padded([[
            f if f < first_mask else first_mask + slot[f - first_mask]
            for f in term.factors
        ] for _, term in terms]),
        term_mult=_floats(term.mult for _, term in terms),
        term_axis=_index(term_axis),
        axis_sums=term_axis != list(range(len(used_axes))),
        num_axes=len(used_axes),
        cost_factors=_padded([factors for factors, _ in rows]),
        cost_coef=_floats(coef for _, coef in rows))


def _index(values) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64)


def _floats(values) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _padded(rows: List[Sequence[int]]) -> Tensor:
    """int64 ``[longest, n]``, filled up with 0, the index of the 1."""
    longest = max([1, *map(len, rows)])
    return _index(tuple(row) + (0, ) * (longest - len(row))
                  for row in rows).reshape(-1, longest).T.contiguous()
