# Copyright (c) dms_razor contributors. All rights reserved.
"""MACs and parameters of a network as a closed form (paper, equation 8).

What a network costs is a sum, of one or more costs a layer. A cost is a
product: a coefficient (kernel size, output positions), the widths it is
linear in, and the masks of the blocks it lies in. A width is itself a sum of
terms, which is how a concatenation reads: the input of the layer after a
concatenation is the sum of what was concatenated. Example, a 3×3 convolution
of stride 1 on 14×14 in a removable block::

    macs = 9·14·14 · (kept channels in) · (kept channels out) · (block mask)

Everything is a function of kept counts ``[U]`` and masks ``[E]``. With the
continuous counts ``(1 − a)N`` and soft masks it is the differentiable cost of
the loss; with hard counts and masks all numbers are integers, which float64
holds exactly up to 2**53, and it is the cost of the report.

What is counted is a :class:`Metric`, one registration in :data:`METRICS`: a
list of such costs or, for what is no sum of products, any function of both.
"""
import copy
from dataclasses import dataclass
from typing import (Any, Callable, Dict, FrozenSet, Iterable, List, NamedTuple,
                    Optional, Sequence, Tuple)

import torch
from torch import Tensor

from ..errors import check_number, nearest
from .layout import Layout
from .registry import Registry
from .tables import Whole, compile_tables

METRICS = Registry('metric')
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
        metric (str): What it counts, a name of :data:`METRICS`.
        coef (float): Constant factor, not negative.
        axes (tuple[int]): At most four indices into the model's axes.
        blocks (tuple[int]): At most three element ids: the blocks that the
            layer lies in.
        moments (tuple[int]): When it is there, for a metric that is no sum
            but a peak: the largest sum of any moment.
    """
    name: str
    op: str
    metric: str
    coef: float
    axes: Tuple[int, ...] = ()
    blocks: Tuple[int, ...] = ()
    moments: Tuple[int, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A resource that a budget can limit.

    Args:
        name (str): Its name in configs, e.g. 'macs'.
        label (str): Its name for people, e.g. 'MACs'.
        costs (Callable, optional): ``costs(builder) -> list[Cost]`` of a
            finished trace, see :class:`dms_razor.tracing.costs.CostBuilder`.
        value (Callable, optional): ``value(layout, counts, masks)``, for what
            is no sum of products: counts ``[..., U]`` and masks ``[..., E]``
            in, float64 ``[...]`` out, differentiable and growing with every
            kept element. One of ``costs`` and ``value`` is needed.
        count (Callable, optional): ``count(model, inputs, forward)``, an
            independent count on a real network.
        per_sample (bool): Whether a batch of two costs twice as much.
            Defaults to True.
        on_demand (bool): Whether it is left out of the reports of searches
            that do not limit it. Defaults to False.
        activations (bool): Whether its costs need to know when activations
            are in memory, which takes another run. Defaults to False.

    Raises:
        ValueError: If not just one of ``costs`` and ``value`` is given.
    """
    name: str
    label: str
    costs: Optional[Callable[[Any], List[Cost]]] = None
    value: Optional[Callable[[Layout, Tensor, Tensor], Tensor]] = None
    count: Optional[Callable] = None
    per_sample: bool = True
    on_demand: bool = False
    activations: bool = False

    def __post_init__(self) -> None:
        if (self.costs is None) == (self.value is None):
            raise ValueError(f'the metric "{self.name}" needs either costs or '
                             'a value')


def demanded(names: Optional[Iterable[str]] = None) -> List[str]:
    """Metrics that a trace works out: of those that are dear these alone.

    Args:
        names (Iterable[str], optional): Names; all by default.
    """
    wanted = METRICS.keys() if names is None else set(names)
    return [
        name for name, metric in METRICS.items()
        if not metric.activations or name in wanted
    ]


class Own(NamedTuple):
    """A metric of one network, see :meth:`ResourceModel.plus`."""
    make: Callable
    listed: bool


class ResourceModel:
    """What a network costs, and the gradient of it.

    Args:
        axes (Sequence[Axis]): Widths that costs refer to by position.
        costs (Sequence[Cost]): What the network consists of.
        layout (Layout): The units.

    Raises:
        ValueError: If an index or a coefficient is out of range. Negative
            coefficients are refused: the projection onto a budget relies on
            costs that grow with every kept element.
    """

    def __init__(self, axes: Sequence[Axis], costs: Sequence[Cost],
                 layout: Layout) -> None:
        self.axes, self.costs = tuple(axes), tuple(costs)
        self.layout = layout
        self._tables: Dict[tuple, Any] = {}
        self._own: Dict[str, Own] = {}
        self._shown: FrozenSet[str] = frozenset()
        for i, axis in enumerate(self.axes):
            for term in axis.terms:
                check_number(f'axis {i}: mult', term.mult)
                _check_indices(f'axis {i}', 'factors', term.factors,
                               1 + layout.U + layout.E, MAX_FACTORS)
        for cost in self.costs:
            name = f'{cost.metric} of "{cost.name}"'
            check_number(f'{name}: coef', cost.coef)
            _check_indices(name, 'axes', cost.axes, len(self.axes), MAX_AXES)
            _check_indices(name, 'blocks', cost.blocks, layout.E, MAX_BLOCKS)

    def plus(self,
             name: str,
             make: Callable,
             listed: bool = True) -> 'ResourceModel':
        """A copy that also knows a metric which is this network's alone.

        Args:
            name (str): Of the metric.
            make (Callable): ``make(model, device)`` gives what
                :class:`Tables` are: ``value``, ``used`` and ``work``.
            listed (bool): Whether it is one of :attr:`metrics`.
        """
        model = copy.copy(self)
        model._own = {**self._own, name: Own(make, listed)}
        model._tables = {k: v for k, v in self._tables.items() if k[0] != name}
        return model

    @property
    def metrics(self) -> Tuple[str, ...]:
        """Metrics that some cost counts, and all registered functions."""
        names = dict.fromkeys([cost.metric for cost in self.costs] + [
            name
            for name, metric in METRICS.items() if metric.value is not None
        ] + [name for name, own in self._own.items() if own.listed])
        return tuple(name for name in names
                     if name in self._shown or name in self._own
                     or name not in METRICS or not METRICS[name].on_demand)

    def showing(self, names: Iterable[str]) -> 'ResourceModel':
        """A copy in whose reports these metrics are, though on demand."""
        model = copy.copy(self)
        model._shown = self._shown | set(names)
        return model

    def costs_of(self, metric: str) -> List[Cost]:
        """Costs of ``metric``, in the order of :meth:`per_cost`."""
        if metric not in {
                *self.metrics, *self._own,
                *(cost.metric for cost in self.costs)
        }:
            raise ValueError(f'this network has no costs in "{metric}"'
                             f'{self._instead(metric)}')
        return [cost for cost in self.costs if cost.metric == metric]

    def _instead(self, metric: str) -> str:
        """What to ask for in place of a metric without costs."""
        if metric in METRICS:
            return (f', use one of {", ".join(self.metrics)}; a metric is '
                    'registered before the network is traced, and one that '
                    'follows activations is named then: '
                    f'trace(…, metrics=["{metric}"])')
        known = list(dict.fromkeys([*self.metrics, *METRICS]))
        hint = '; FLOPs are two for each of the MACs: "macs"' \
            if 'flop' in str(metric).lower() else nearest(metric, known)
        return (f', use one of {", ".join(known)}{hint}. One of your own is '
                'registered before the network is traced')

    def __call__(self,
                 counts: Tensor,
                 masks: Tensor,
                 metric: str = 'macs') -> Tensor:
        """Cost of the network, differentiable in both arguments.

        Args:
            counts (Tensor): Kept elements a group, continuous or whole,
                ``[..., U]``.
            masks (Tensor): Masks, ``[..., E]``; only those of blocks matter.
            metric (str): A name of :data:`METRICS`.

        Returns:
            Tensor: MACs (multiply-adds of one input), number of parameters
            or whatever the metric counts, float64 ``[...]``.
        """
        tables = self.tables(metric, counts.device)
        return tables.value(counts.double(),
                            masks.index_select(-1, tables.used).double())

    def per_cost(self,
                 counts: Tensor,
                 masks: Tensor,
                 metric: str = 'macs') -> Tensor:
        """Amount of each cost of :meth:`costs_of`, float64 ``[..., n]``."""
        tables = self.tables(metric, counts.device, merge=False)
        return tables.rows(counts.double(),
                           masks.index_select(-1, tables.used).double())

    def supernet(self, metric: str = 'macs') -> float:
        """Cost of the whole network, nothing pruned."""
        layout = self.layout.to('cpu')
        return self(layout.size, torch.ones(layout.E), metric).item()

    def minimum(self, metric: str = 'macs') -> float:
        """Cost of the smallest network that the units' bounds allow."""
        return self(*self.smallest(metric), metric).item()

    def smallest(self, metric: str = 'macs') -> Tuple[Tensor, Tensor]:
        """Counts ``[U]`` and masks ``[E]`` of that network.

        Of blocks that differ in cost it has the cheapest, stage by stage.
        """
        layout = self.layout.to('cpu')
        masks = (~layout.depth_elements).double()
        for u, unit in enumerate(layout.units):
            if unit.kind == 'depth' and unit.least > 0:
                place = layout.slice_of(u)
                trials = masks.repeat(unit.size, 1)
                trials[:, place] = torch.eye(unit.size, dtype=torch.float64)
                costs = self(
                    layout.least.expand(unit.size, -1), trials, metric)
                cheapest = costs.argsort(stable=True)[:unit.least]
                masks[place.start + cheapest] = 1
        return layout.least, masks

    def tables(self,
               metric: str,
               device: torch.device,
               merge: bool = True) -> Any:
        """Index tensors of ``metric``, worked out once for each device.

        With ``merge``, costs that differ in their coefficient alone are one
        row (a norm's weight and bias, the equal blocks of a stage).
        """
        key = (metric, merge, device)
        if key not in self._tables and metric in self._own:
            self._tables[key] = self._own[metric].make(self, device)
        elif key not in self._tables:
            costs = self.costs_of(metric)
            with device:
                self._tables[key] = compile_tables(
                    self.axes, costs, self.layout.U, merge) if costs else \
                    Whole(self.layout.to(device), METRICS[metric].value)
        return self._tables[key]


def _check_indices(name: str, what: str, indices: Sequence[int], size: int,
                   most: int) -> None:
    if len(indices) > most:
        raise ValueError(f'{name} has {len(indices)} {what}, at most {most} '
                         'are possible')
    for index in indices:
        if not 0 <= index < size:
            raise ValueError(f'{name}: {index} in {what} is out of range, '
                             f'there are {size}')
