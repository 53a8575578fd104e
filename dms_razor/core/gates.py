# Copyright (c) dms_razor contributors. All rights reserved.
"""The selector 'mes': every element has a gate of its own.

The way of searches by masks on elements, with which the paper compares its
ratios (Table 2, MES): an element stays with the probability
``p = sigmoid(logit)``, and the network sees Gumbel-sigmoid gates,
``sigmoid((logit + noise)/tau)`` with logistic noise. There are as many
numbers as elements, 11,468 for ResNet-50. What stays is decided by the
logits; the importance has no say.
"""
import torch
from torch import Tensor

from ..errors import check_number
from .bisection import bisected, within
from .draws import DrawnSelector, Draws
from .layout import Layout
from .selectors import SELECTORS


@SELECTORS.register('mes')
class ElementGates(DrawnSelector):
    """One logit an element.

    At the start every element stays with the same probability, .99 or more:
    at most a hundredth of a group and a quarter of an element is expected to
    go, so that every hard count is the full one.

    Args:
        layout (Layout): The units.
        seed (int): Of the noise. Defaults to 0.
        tau (float): Temperature of the gates; the smaller, the nearer to 0
            and 1. Defaults to 2/3, usual for relaxed Bernoulli variables.

    Raises:
        ValueError: If ``tau`` is not positive.
    """
    # Beyond, a gate would hardly have a gradient to come back by. Of 40,000
    # elements at a bound a quarter is expected to be on the other side.
    low, high = -12., 12.
    span = 24.

    def __init__(self,
                 layout: Layout,
                 seed: int = 0,
                 tau: float = 2 / 3) -> None:
        check_number('tau of the gates', tau, above=True)
        super().__init__(layout, seed)
        self.tau = tau
        self.numbers = torch.zeros(
            layout.E, dtype=torch.float64, device=layout.device)
        self.draws = Draws(layout.E, seed, layout.device)
        self.set_kept(layout.size, layout.size > 0)

    def soft(self, numbers: Tensor, ranks: Tensor) -> Tensor:
        """The gates as they are drawn for this update."""
        return torch.sigmoid((numbers + self.draws.logistic) / self.tau)

    def expected(self, numbers: Tensor, ranks: Tensor, soft: Tensor) -> Tensor:
        """The probabilities, without noise."""
        return numbers.sigmoid()

    def counts(self, numbers: Tensor) -> Tensor:
        """Mean over the groups of the sum of the probabilities."""
        sums = numbers.new_zeros(self.layout.U).index_add(
            0, self.layout.unit_of_element, numbers.sigmoid())
        return sums / self.layout.groups

    def set_kept(self, kept: Tensor, units: Tensor) -> None:
        """Shift the logits of each unit by one amount.

        Their differences stay, and none is driven to where it has no
        gradient: the search can go on.
        """

        def shifted(shift: Tensor) -> Tensor:
            shift = shift.index_select(0, self.layout.unit_of_element)
            return (self.numbers + shift).clamp(self.low, self.high)

        most = torch.full_like(kept, 4 * self.high, dtype=torch.float64)
        shift = bisected(lambda shift: self.counts(shifted(shift)),
                         within(kept, self.layout), -most, most)
        self.numbers = torch.where(units[self.layout.unit_of_element],
                                   shifted(shift), self.numbers)

    def score(self, importance: Tensor) -> Tensor:
        """The logits: the most probable elements stay."""
        return self.numbers
