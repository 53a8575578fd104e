# Copyright (c) dms_razor contributors. All rights reserved.
"""The resource's part in a search: a loss, or a condition met exactly."""
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Dict, Optional, Union

import torch
from torch import Tensor

from .bank import Bank
from .budget import AUTO, check_weight, constraint_loss
from .limits import Limits
from .resource import ResourceModel


@dataclass(frozen=True)
class Term:
    """λ_res·L_res under a constraint; equal where it is the same number.

    Attributes:
        constraint (Constraint): The constraint.
        target (float): What the metric may cost now.
        settings (tuple): What else the loss depends on; of a loss of one's
            own that is not known, and no two terms are equal.
    """
    constraint: 'Constraint'
    target: float
    settings: Any

    def __call__(self, counts: Tensor, masks: Tensor) -> Tensor:
        """Of kept counts ``[U]`` and masks ``[E]``."""
        return self.constraint.loss(self.target, counts, masks)


class Constraint:
    """What holds a network to its target.

    Args:
        resource (ResourceModel): Costs of the network.
        metric (str): What the target limits.
        loss (callable, optional): ``loss(current, target)``, in place of the
            paper's. Its ``loss_weight``, if it has one, is the weight.
        weight (float | str, optional): λ_res, or 'auto'. Defaults to 'auto'.

    Attributes:
        weight (float | str): λ_res; with 'auto', each step finds it.
        limits (Limits, optional): In place of one metric, several; the target
            is that of their tightness then.

    Raises:
        ValueError: If the weight is below 0, or neither number nor 'auto'.
    """

    def __init__(self, resource: ResourceModel, metric: str,
                 loss: Optional[Callable], weight: Union[None, float,
                                                         str]) -> None:
        weight = check_weight(AUTO if weight is None else weight)
        self.resource, self.metric = resource, metric
        self.limits: Optional[Limits] = None
        self._loss = loss or partial(constraint_loss, weight=weight)
        default = weight if loss is None else 1.
        self.weight = getattr(loss, 'loss_weight', default)
        if self.weight == AUTO and not getattr(loss, 'exact', loss is None):
            self.weight = 1.  # a loss of one's own is a loss

    def _targets(self, target: float) -> Dict[str, float]:
        """What each metric may cost now."""
        return {self.metric: target} if self.limits is None \
            else self.limits.at(target)

    def loss(self, target: float, counts: Tensor, masks: Tensor) -> Tensor:
        """λ_res·L_res of kept counts ``[U]`` and masks ``[E]``.

        Of several metrics the sum: each has a hinge of its own.
        """
        return sum(
            self._loss(self.resource(counts, masks, metric), amount)
            for metric, amount in self._targets(target).items())

    def term(self, bank: Bank, target: float) -> Tensor:
        """λ_res·L_res of a bank, as a number; at a weight that is a number
        its slope, too, is worked out here, before the update needs it."""
        if self.weight != AUTO:
            return bank.graph.resource(bank, self._term(target))[0]
        with torch.no_grad():
            return self.loss(target, bank.counts(), bank.resource_masks())

    def excess(self, target: float, counts: Tensor, masks: Tensor) -> Tensor:
        """log(r_c / r_t) of kept counts ``[U]`` and masks ``[E]``.

        Of several metrics the largest: where it is 0, one limit is met
        exactly and no other is exceeded.
        """
        return torch.stack([
            torch.log(self.resource(counts, masks, metric) / amount)
            for metric, amount in self._targets(target).items()
        ]).amax(0)

    def update(self, bank: Bank, target: float) -> bool:
        """Move a bank's ratios under this constraint; see Bank.update."""
        if self.weight == AUTO:
            return bank.update(excess=partial(self.excess, target))
        return bank.update(self._term(target))

    def _term(self, target: float) -> Term:
        own = isinstance(self._loss, partial) or getattr(
            self._loss, 'exact', False)
        weight = getattr(self._loss, 'loss_weight', None)
        return Term(self, target, (self.metric, weight,
                                   id(self.limits)) if own else object())
