# Copyright (c) dms_razor contributors. All rights reserved.
"""MACs and parameters of a network as a closed form (paper, equation 8).

The figure of a network is a sum of costs, one or more a layer. A cost is a
product: a coefficient (kernel size, output positions), the widths it is
linear in, and the masks of the blocks it lies in. A width is itself a sum of
terms, which is how a concatenation reads: the input of the layer after a
concatenation is the sum of what was concatenated. Example, a 3×3 convolution
of stride 1 on 14×14 in a removable block::

    macs = 9·14·14 · (kept channels in) · (kept channels out) · (block mask)

Everything is a function of kept counts ``[U]`` and masks ``[E]``. With the
continuous counts ``(1 − a)N`` and soft masks it is the differentiable figure
of the loss; with hard counts and masks all numbers are integers, which
float64 holds exactly up to 2**53, and it is the figure of the report.
"""
import math
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor

from .layout import Layout
from .tables import Tables, compile_tables

MAX_FACTORS, MAX_AXES, MAX_BLOCKS = 3, 4, 3


@dataclass(frozen=True)
class Term:
    """``mult · Π v[f]`` over the factors f of ``v = [1, counts, masks]``.

    Args:
        mult (float): Constant factor, e.g. step × groups, not negative.
        factors (tuple[int]): At most three indices: 0 is the constant 1,
            1 + u the kept count of unit u (in one group), 1 + U + e the mask
            of element e.
    """
    mult: float
    factors: Tuple[int, ...] = ()


@dataclass(frozen=True)
class Axis:
    """A width: the sum of its terms, in channels."""
    terms: Tuple[Term, ...]


@dataclass(frozen=True)
class Cost:
    """``coef · Π axes · Π masks of blocks``.

    Args:
        name (str): The layer's path.
        op (str): What it does, e.g. 'Conv2d'; for reports.
        metric (str): 'macs' or 'params'.
        coef (float): Constant factor, not negative.
        axes (tuple[int]): At most four indices into the model's axes.
        blocks (tuple[int]): At most three element ids: the blocks that the
            layer lies in.
    """
    name: str
    op: str
    metric: str
    coef: float
    axes: Tuple[int, ...] = ()
    blocks: Tuple[int, ...] = ()


class ResourceModel:
    """Value and gradient of a network's resource figures.

    Args:
        axes (Sequence[Axis]): Widths that costs refer to by position.
        costs (Sequence[Cost]): What the network consists of.
        layout (Layout): The units.

    Raises:
        ValueError: If an index or a coefficient is out of range. Negative
            coefficients are refused: the projection onto a budget relies on
            figures that grow with every kept element.
    """

    def __init__(self, axes: Sequence[Axis], costs: Sequence[Cost],
                 layout: Layout) -> None:
        self.axes, self.costs = tuple(axes), tuple(costs)
        self.layout = layout
        self._check()
        self._tables: Dict[Tuple[str, bool, torch.device], Tables] = {}

    def _check(self) -> None:
        layout = self.layout
        largest = 1 + layout.U + layout.E
        for i, axis in enumerate(self.axes):
            for term in axis.terms:
                _check_number(f'axis {i}', 'mult', term.mult)
                _check_indices(f'axis {i}', 'factors', term.factors, largest,
                               MAX_FACTORS)
        for cost in self.costs:
            name = f'{cost.metric} of "{cost.name}"'
            _check_number(name, 'coef', cost.coef)
            _check_indices(name, 'axes', cost.axes, len(self.axes), MAX_AXES)
            _check_indices(name, 'blocks', cost.blocks, layout.E, MAX_BLOCKS)

    @property
    def metrics(self) -> Tuple[str, ...]:
        """Metrics that some cost counts, e.g. ('macs', 'params')."""
        return tuple(dict.fromkeys(cost.metric for cost in self.costs))

    def costs_of(self, metric: str) -> List[Cost]:
        """Costs of ``metric``, in the order of :meth:`per_cost`."""
        if metric not in self.metrics:
            raise ValueError(f'this network has no figure for "{metric}", '
                             f'use one of {", ".join(self.metrics)}')
        return [cost for cost in self.costs if cost.metric == metric]

    def __call__(self,
                 counts: Tensor,
                 masks: Tensor,
                 metric: str = 'macs') -> Tensor:
        """Figure of the network, differentiable in both arguments.

        Args:
            counts (Tensor): Kept elements a group, continuous or whole,
                ``[..., U]``.
            masks (Tensor): Masks, ``[..., E]``; only those of blocks matter.
            metric (str): 'macs' or 'params'. Defaults to 'macs'.

        Returns:
            Tensor: MACs (multiply-adds of one input) or number of
            parameters, float64 ``[...]``.
        """
        tables = self.tables(metric, counts.device)
        return tables.value(counts, tables.used_masks(masks))

    def per_cost(self,
                 counts: Tensor,
                 masks: Tensor,
                 metric: str = 'macs') -> Tensor:
        """Figure of each cost of :meth:`costs_of`, float64 ``[..., n]``."""
        tables = self.tables(metric, counts.device, merge=False)
        return tables.rows(counts, tables.used_masks(masks))

    def supernet(self, metric: str = 'macs') -> float:
        """Figure of the whole network, nothing pruned."""
        layout = self.layout.to('cpu')
        return self(layout.size, torch.ones(layout.E), metric).item()

    def minimum(self, metric: str = 'macs') -> float:
        """Figure of the smallest network that the units' bounds allow.

        Which blocks of a stage stay is up to the search. Where they differ
        in cost this takes the cheapest, stage by stage.
        """
        layout = self.layout.to('cpu')
        masks = (~layout.depth_elements).double()
        for u, unit in enumerate(layout.units):
            if unit.kind != 'depth' or unit.least == 0:
                continue
            place = layout.slice_of(u)
            trials = masks.repeat(unit.size, 1)
            trials[:, place] = torch.eye(unit.size, dtype=torch.float64)
            figures = self(layout.least.expand(unit.size, -1), trials, metric)
            cheapest = figures.argsort(stable=True)[:unit.least]
            masks[place.start + cheapest] = 1
        return self(layout.least, masks, metric).item()

    def tables(self,
               metric: str,
               device: torch.device,
               merge: bool = True) -> Tables:
        """Index tensors of ``metric``, worked out once for each device.

        With ``merge``, costs that differ in their coefficient alone are one
        row (a norm's weight and bias, the equal blocks of a stage).
        """
        key = (metric, merge, device)
        if key not in self._tables:
            self._tables[key] = compile_tables(self.axes,
                                               self.costs_of(metric),
                                               self.layout.U, merge).to(device)
        return self._tables[key]


def _check_number(name: str, what: str, number: float) -> None:
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f'{name}: {what} is {number}, it must be finite and '
                         'not negative')


def _check_indices(name: str, what: str, indices: Sequence[int], size: int,
                   most: int) -> None:
    if len(indices) > most:
        raise ValueError(f'{name} has {len(indices)} {what}, at most {most} '
                         'are possible')
    for index in indices:
        if not 0 <= index < size:
            raise ValueError(f'{name}: {index} in {what} is out of range, '
                             f'there are {size}')
