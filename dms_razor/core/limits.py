# Copyright (c) dms_razor contributors. All rights reserved.
"""Several budgets at once, as one figure.

A network meets several limits if its *tightness* is at most 1: the largest of
``cost / limit`` over all of them. The tightness grows with every element that
is kept, as each of the costs does; so it is projected, descended and reported
like a metric of its own, with a target of 1. The loss of a step is not that
of the tightness: each metric has its own hinge and its own falling target
(paper, equations 6, 7 and 10).
"""
import math
from typing import Dict, List, Mapping, Tuple

import torch
from torch import Tensor

from .budget import TargetError, format_amount
from .projection import project
from .resource import ResourceModel
from .topk import hard_masks, initial_order, ranks_from_order


class Tightest:
    """What :class:`.resource.Tables` are, for several limits at once.

    Args:
        resource (ResourceModel): Costs of the network.
        amounts (Mapping[str, float]): Limit of each metric.
        device (torch.device): Where the figures are asked for.

    Attributes:
        used (Tensor): Element ids of the masks that occur, int64 ``[K]``.
        work (int): About the multiplications of one evaluation.
    """

    def __init__(self, resource: ResourceModel, amounts: Mapping[str, float],
                 device: torch.device) -> None:
        tables = [resource.tables(metric, device) for metric in amounts]
        self.used = torch.cat([table.used for table in tables]).unique()
        self.work = sum(table.work for table in tables)
        self._parts = [(table, torch.searchsorted(self.used,
                                                  table.used), amount)
                       for table, amount in zip(tables, amounts.values())]

    def shares(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        """Share of each limit that a network takes, float64 ``[..., n]``.

        Args:
            counts (Tensor): float64 ``[..., U]``.
            used_masks (Tensor): The masks that occur, float64 ``[..., K]``.
        """
        return torch.stack([
            table.value(counts, used_masks.index_select(-1, places)) / amount
            for table, places, amount in self._parts
        ], -1)

    def value(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        """The largest of :meth:`shares`, float64 ``[...]``."""
        return self.shares(counts, used_masks).amax(-1)


class Limits:
    """What a network may cost at most, in each of several metrics.

    Args:
        resource (ResourceModel): Costs of the network.
        amounts (Mapping[str, float]): Limit of each metric, in its units;
            positive and not above the supernet.

    Attributes:
        name (str): What all of them are called, e.g. ``'macs and params'``.
        resource (ResourceModel): The same costs, and the tightness under
            ``name``.
        amounts, whole (dict[str, float]): Limit, and cost of the supernet.
    """

    def __init__(self, resource: ResourceModel,
                 amounts: Mapping[str, float]) -> None:
        self.amounts = dict(amounts)
        self.name = ' and '.join(self.amounts)
        self.whole = {m: resource.supernet(m) for m in self.amounts}
        self.resource = resource.plus(
            self.name,
            lambda model, device: Tightest(model, self.amounts, device),
            listed=False)

    def at(self, tightness: float) -> Dict[str, float]:
        """What each metric may cost while the tightness may be so much.

        Every target falls as equation 10 says, from its own supernet's cost
        to its own limit; all of them arrive together, at a tightness of 1.
        """
        start = math.log(
            max(self.whole[m] / a for m, a in self.amounts.items()))
        left = math.log(tightness) / start if start else 0.
        return {
            metric: amount * (self.whole[metric] / amount)**left
            for metric, amount in self.amounts.items()
        }

    def upto(self, tightness: float) -> Dict[str, float]:
        """What each metric may cost in a network of that tightness."""
        return {
            metric: min(amount * tightness, self.whole[metric])
            for metric, amount in self.amounts.items()
        }

    def shares(self, counts: Tensor, masks: Tensor) -> Dict[str, float]:
        """Share of each limit that a network takes.

        Args:
            counts (Tensor): Kept counts ``[U]``.
            masks (Tensor): Masks ``[E]``.
        """
        return {
            metric: float(self.resource(counts, masks, metric)) / amount
            for metric, amount in self.amounts.items()
        }

    def taken_evenly(self) -> Dict[str, float]:
        """Shares of the limits that the evenly narrowed network takes."""
        layout = self.resource.layout.to('cpu')
        ranks = ranks_from_order(initial_order(layout), layout)
        kept = project(
            layout,
            self.resource,
            torch.zeros(layout.U),
            self.name,
            1.,
            ranks=ranks)
        return self.shares(kept, hard_masks(kept, ranks, layout))

    def check(self) -> None:
        """Raise TargetError if no network meets all of them.

        Of the stages of which blocks have to stay, the blocks that are the
        cheapest in one metric need not be so in another.
        """
        models = [self.name, *self.amounts]
        tightness, smallest = min(
            (self._smallest(metric) for metric in models), key=lambda x: x[0])
        if tightness > 1:
            found = ', '.join(f'{format_amount(cost, metric)} of at most '
                              f'{format_amount(self.amounts[metric], metric)} '
                              f'{metric}' for metric, cost in smallest)
            raise TargetError(
                f'{self.text()} cannot be met together: the smallest network '
                f'takes {found}. Raise one of the limits, or let more be '
                'pruned (fewer fixed units, lower "least")')

    def _smallest(self, metric: str) -> Tuple[float, List[Tuple[str, float]]]:
        """Tightness and costs of the smallest network in one metric."""
        counts, masks = self.resource.smallest(metric)
        costs = [(m, float(self.resource(counts, masks, m)))
                 for m in self.amounts]
        return max(cost / self.amounts[m] for m, cost in costs), costs

    def text(self) -> str:
        """All limits, for messages."""
        return ' and '.join(f'at most {format_amount(amount, metric)} {metric}'
                            for metric, amount in self.amounts.items())
