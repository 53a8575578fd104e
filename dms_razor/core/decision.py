# Copyright (c) dms_razor contributors. All rights reserved.
"""Who decided a structure: the task, the resource alone, or the projection.

A search in which the task has no say ends in a structure that can be computed
without data (:mod:`.descent`); one that is too short ends in what the
projection onto the budget makes of it. Both look like a result.
"""
import math
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Union

import torch
from torch import Tensor

from .bank import Bank
from .budget import AUTO
from .projection import project
from .resource import ResourceModel

SAME = .05  # structures this near to each other are called the same
PROJECTED = .1  # share of the cut that projection may do unnoticed
SETTLED = 100  # steps in which importances average, at a decay of 0.99


@dataclass
class Decision:
    """What decided a structure.

    A distance between structures is the mean over all units that can change
    of the difference between their kept shares, 0 to 1.

    Attributes:
        steps (int): Steps that moved ratios.
        moved_by_task (float): Mean of what the task moved a ratio, without
            sign.
        moved_by_resource (float): The same of the resource.
        resource_on (float): Share of the steps in which the resource moved
            something.
        from_resource_only (float): Distance from the structure to which the
            resource alone leads.
        from_even (float): Distance from the network of the same budget that
            is narrowed evenly.
        by_projection (float): Share of the cut, in logarithms of the cost,
            that the projection onto the budget did, in either direction.
        unreached (float): Share of the cut that the ratios had not made
            before they were rounded to whole elements; the rest of
            ``by_projection`` is rounding.
        automatic (bool): Whether lr and loss_weight are 'auto'.
        left (int): Steps of the search that were not made.
        cut (bool): Whether the target is below the whole network.
    """
    steps: int
    moved_by_task: float
    moved_by_resource: float
    resource_on: float
    from_resource_only: float
    from_even: float
    by_projection: float
    unreached: float = 1.
    automatic: bool = False
    left: int = 0
    cut: bool = True

    def to_dict(self) -> Dict[str, Any]:
        """As plain data, the content of the JSON."""
        return asdict(self)

    def text(self) -> str:
        """One sentence of figures."""
        return (
            f'In {self.steps:,} steps the task moved a ratio by '
            f'{self.moved_by_task:.3g}, the resource by '
            f'{self.moved_by_resource:.3g} on average (in '
            f'{self.resource_on:.0%} of the steps). The structure differs by '
            f'{self.from_resource_only:.1%} of a unit from the one that the '
            f'resource alone gives and by {self.from_even:.1%} from the even '
            f'one; projection did {self.by_projection:.1%} of the cut.')

    @property
    def rounded(self) -> bool:
        """Whether rounding did much of the cut that the ratios had made."""
        return (self.by_projection > PROJECTED and not self.left
                and self.unreached <= PROJECTED)

    @property
    def decides(self) -> str:
        """Who decides, in a few words."""
        doubts = self.doubts()
        if self.rounded and len(doubts) == 1 and \
                self.from_resource_only >= SAME:
            return ('the task; rounding to whole blocks and channels did '
                    f'{self.by_projection:.0%} of the cut')
        return doubts[0].partition('.')[0] if doubts else 'the task'

    def doubts(self) -> List[str]:
        """What speaks against calling the structure searched; often none."""
        doubts, other = [], '' if self.automatic else \
            ", or leave lr and loss_weight at 'auto'"
        if self.left:
            doubts.append(
                f'The search was not finished: {self.left:,} of its steps '
                'were not made, and the projection onto the budget stands in '
                'for them. Make them, or ask for a search of fewer.')
        # Where nothing is cut, all structures are the same.
        if self.from_resource_only < SAME and self.cut:
            larger = '' if self.automatic else \
                ' or with a larger lr of the ratios'
            doubts.append(
                'The resource alone decided this structure: it could have '
                f'been computed without data. Search longer{larger}{other}.')
        if self.by_projection > PROJECTED and not self.left:
            doubts.append(
                f'{self.by_projection:.0%} of the cut was done by the '
                'projection onto the budget and not by the search. ' +
                (f'Search longer{other}.' if not self.rounded else
                 'The ratios had met the budget: it is the rounding to whole '
                 'blocks and channels, coarse in a network of few, which a '
                 'longer search does not change. Try a budget nearby or other '
                 'seeds, or keep the blocks (depth=False).'))
        if self.steps < SETTLED:
            doubts.append(
                f'{self.steps} steps are few: importances average over about '
                f'{SETTLED}. Search longer.')
        return doubts


def decide(bank: Bank,
           resource: ResourceModel,
           metric: str,
           target: float,
           resource_only: Tensor,
           projected: float,
           weight: Union[float, str],
           left: int = 0) -> Decision:
    """Sum up an account, and compare three structures of one budget.

    Args:
        bank (Bank): Of the search.
        resource (ResourceModel): Costs of the network.
        metric (str): What the target limits.
        target (float): In units of the metric.
        resource_only (Tensor): Ratios to which the resource alone leads.
        projected (float): Share of the cut that projection has done before.
        weight (float | str): λ_res, or 'auto'.
        left (int): Steps of the search that were not made.
    """
    layout, account = bank.layout.to('cpu'), bank.motion.account
    moves = layout.least < layout.most

    def onto(ratios: Tensor, **kwargs: Tensor) -> Tensor:
        return project(
            bank.layout,
            resource,
            ratios,
            metric,
            target,
            ranks=bank.ranks,
            **kwargs)

    kept = onto(bank.ratios, depth_kept=bank.frozen_kept)

    def mean(values: Tensor) -> float:
        return float(values.detach().cpu().double().abs()[moves].mean())

    def distance(ratios: Tensor) -> float:
        return mean((kept - onto(ratios)).double() / layout.size)

    return Decision(
        account.steps,
        mean(account.task),
        mean(account.resource),
        float(account.resource_on) / max(1, account.steps),
        distance(resource_only),
        # Ratios of 0: the projection narrows all widths alike.
        distance(torch.zeros_like(bank.ratios)),
        projected + share_of_projection(bank, resource, metric, kept),
        unreached=_unreached(bank, resource, metric, target),
        automatic=bank.lr == weight == AUTO,
        left=left,
        cut=target < resource.supernet(metric))


def share_of_projection(bank: Bank, resource: ResourceModel, metric: str,
                        kept: Tensor) -> float:
    """Share of the cut from what a bank rounds to, to what was projected."""

    def cost(kept: Tensor) -> float:
        return float(
            resource(kept.to(bank.ratios),
                     bank.hard(kept).double(), metric))

    return share_of_cut(
        cost(bank.kept()), cost(kept.to(bank.ratios.device)),
        resource.supernet(metric))


def _unreached(bank: Bank, resource: ResourceModel, metric: str,
               target: float) -> float:
    """Share of the cut to the target that ratios have not made, 0 to 1."""
    cost = float(resource(bank.counts(), bank.resource_masks(), metric))
    return share_of_cut(max(cost, target), target, resource.supernet(metric))


def share_of_cut(before: float, after: float, supernet: float) -> float:
    """What part of the way from the supernet to ``after`` the last step is.

    Args:
        before (float): Cost before the projection.
        after (float): Cost after it.
        supernet (float): Cost at the start.
    """
    cut = math.log(supernet / after)
    return abs(math.log(before / after)) / cut if cut > 0 else 0.
