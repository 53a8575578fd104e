# Copyright (c) dms_razor contributors. All rights reserved.
"""The closed form of a network's MACs and parameters, from the trace."""
from dataclasses import replace
from math import prod
from typing import Dict, List, Optional, Tuple, Union

import torch
from torch import Tensor

from ..core.layout import Layout
from ..core.resource import METRICS, Axis, Cost, ResourceModel, Term
from ..space import Block
from .labels import core
from .lifetimes import presence
from .sites import SiteBuilder


class CostBuilder:
    """Builds the resource model (paper, equation 8).

    Args:
        recorder (Recorder): The finished recording.
        sites (SiteBuilder): How tensors shrink.
        layout (Layout): The units.
        blocks (list[Block]): Removable blocks.
    """

    def __init__(self, recorder, sites: SiteBuilder, layout: Layout,
                 blocks: List[Block]) -> None:
        self.recorder, self.facts = recorder, recorder.facts
        self.sites, self.layout = sites, layout
        self.elements = sites.elements
        self.blocks = {
            part.path: block.element
            for block in blocks
            for part in block.stand_ins
        }
        self.identities = {b.path: b.element for b in blocks if not b.branch}
        self._axes: List[Axis] = []
        self._axis_ids: Dict[tuple, int] = {}

    def build(self) -> ResourceModel:
        """The closed form of every metric that consists of costs."""
        costs = [
            cost for name in self.recorder.metrics
            if METRICS[name].costs is not None
            for cost in METRICS[name].costs(self)
        ]
        return ResourceModel(self._axes, costs, self.layout)

    def macs(self) -> List[Cost]:
        """The MACs of each operation, of one sample."""
        return [self._macs(op) for op in self.facts.operations]

    def params(self) -> List[Cost]:
        """The numbers in each parameter."""
        parameters = self.recorder.model.named_parameters()
        return [self._params(*named) for named in parameters]

    def weights(self, metric: str, size: int) -> List[Cost]:
        """Bytes of the parameters, each number in ``size`` of them."""
        return [
            replace(cost, metric=metric, coef=cost.coef * size)
            for cost in self.params()
        ]

    def memory(self) -> List[Cost]:
        """Bytes of activations, of one sample, and when they are there."""
        lifetimes = self.recorder.lifetimes
        taken = [
            storage.unlike is None or self._may_differ(storage)
            for storage in lifetimes.storages
        ]
        return [
            self._memory(lifetimes.storages[place], blocks, moments)
            for place, blocks, moments in presence(
                lifetimes, lambda path: enclosing(path, self.blocks),
                self.identities) if taken[place]
        ]

    def _may_differ(self, storage) -> bool:
        """Whether queries and values of an attention may get other dims."""
        layout, found = self.layout, []
        for labels in (storage.labels, storage.unlike):
            labels = self._labels(storage.path, labels)
            if labels is None:
                return False
            index = self.elements.index(labels).unique()
            units = layout.unit_of_element[index[index >= 0]].unique()
            found.append({
                unit
                for unit in units.tolist()
                if layout.units[unit].kind in ('qk', 'v')
            })
        return found[0] != found[1]

    def traffic(self) -> List[Cost]:
        """Bytes of activations that are written, of one sample."""
        return [
            replace(
                self._memory(storage, enclosing(storage.path, self.blocks),
                             ()),
                metric='traffic')
            for storage in self.recorder.lifetimes.storages
            if not storage.inner
        ]

    def _memory(self, storage, blocks: Tuple[int, ...],
                moments: Tuple[int, ...]) -> Cost:
        size, axes = storage.size / self.recorder.batch_size, ()
        labels = self._labels(storage.path, storage.labels)
        if labels is not None:
            index = self.elements.index(labels)
            axes = (self._axis(index), )
            size /= len(index)
        return Cost(storage.path, 'activation', 'memory', size, axes, blocks,
                    moments)

    def _labels(self, path: str, labels: Union[None, str,
                                               Tensor]) -> Optional[Tensor]:
        """Labels of a storage, flat; None for a constant."""
        if isinstance(labels, str):
            fact = next(
                (one for one in self.sites.attention if one.module == path),
                None)
            return None if fact is None else getattr(fact, labels).flatten()
        return None if labels is None else core(labels).flatten()

    def _macs(self, op) -> Cost:
        indices = [self.elements.index(labels) for labels in op.axes]
        slot = self.sites.slots.get((f'{op.module}.weight', 1))
        if slot is not None:
            indices[0] = slot.index
        return Cost(op.module, op.op, 'macs',
                    op.coefficient / self.recorder.batch_size,
                    tuple(map(self._axis, indices)),
                    enclosing(op.module, self.blocks))

    def _params(self, name: str, parameter: Tensor) -> Cost:
        axes = [self.sites.index_of(name, n) for n in range(parameter.dim())]
        indices = [index for index in axes if index is not None]
        labels = self.facts.entry_labels.get(name)
        if labels is not None and not indices:
            entry = self.elements.entry_axis(labels)
            indices = [] if entry is None else [entry[1]]
        coefficient = parameter.numel() / prod(map(len, indices))
        return Cost(name, 'parameter', 'params', coefficient,
                    tuple(map(self._axis, indices)),
                    enclosing(name.rpartition('.')[0], self.blocks))

    def _axis(self, index: Tensor) -> int:
        """Number of the axis whose entries have these elements."""
        layout = self.layout
        key = (index.dim(), index.numpy().tobytes())
        if key not in self._axis_ids:
            # A factor is the count of a unit, or the mask of a block.
            factor = torch.where(layout.depth_elements,
                                 1 + layout.U + torch.arange(layout.E),
                                 1 + layout.unit_of_element)
            factors = torch.where(index < 0, 0, factor[index.clamp(min=0)])
            rows, entries = _counted(factors.reshape(len(index), -1))
            terms = []
            for row, number in zip(rows, entries):
                row = tuple(f for f in row if f)
                size = prod(layout.units[f - 1].size for f in row
                            if f <= layout.U)
                terms.append(Term(number / size, row))
            self._axis_ids[key] = len(self._axes)
            self._axes.append(Axis(tuple(terms)))
        return self._axis_ids[key]


def _counted(rows: Tensor) -> Tuple[List[List[int]], List[int]]:
    """The different rows of whole numbers from 0 on, and how often each is
    there; as one number each, since sorting rows takes long.

    Args:
        rows (Tensor): int64 ``[n, m]``.
    """
    base, keys = int(rows.max()) + 1, torch.zeros(len(rows), dtype=torch.int64)
    if base**rows.shape[1] > 2**62:
        found, entries = torch.unique(rows, dim=0, return_counts=True)
        return found.tolist(), entries.tolist()
    for column in rows.T:
        keys = keys * base + column
    found, entries = torch.unique(keys, return_counts=True)
    digits = []
    for _ in range(rows.shape[1]):
        digits.append(found % base)
        found = found // base
    return torch.stack(digits[::-1], 1).tolist(), entries.tolist()


def enclosing(path: str, elements: Dict[str, int]) -> Tuple[int, ...]:
    """Elements of the blocks that ``path`` lies in, outermost first."""
    parts = path.split('.')
    prefixes = ['.'.join(parts[:n + 1]) for n in range(len(parts))]
    return tuple(elements[p] for p in prefixes if p in elements)
