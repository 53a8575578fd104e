# Copyright (c) dms_razor contributors. All rights reserved.
"""The selector 'unnormalised': top-k by importances as they are, ``c' = c``.

What the paper's top-k is without its normalisation (Table 11): the mask is
``sigmoid(λ(c − a))``, and the number of a unit is a threshold on its
importances, which differ by orders of magnitude between units and fall
during a search.
"""
import torch
from torch import Tensor

from .bisection import bisected, within
from .layout import Layout
from .selectors import SELECTORS, Selector


@SELECTORS.register('unnormalised')
class Thresholds(Selector):
    """One threshold a unit.

    At the start all importances are 0 and every mask is .99 or more: at most
    a hundredth of a group and a quarter of an element is expected to go, so
    that every hard count is the full one.

    Args:
        layout (Layout): The units.
        seed (int): Without effect, nothing is drawn.

    Attributes:
        importance (Tensor): What elements were ranked by last, ``[E]``.
    """

    def __init__(self, layout: Layout, seed: int = 0) -> None:
        super().__init__(layout, seed)
        self._gain = layout.gain * layout.size  # λ: N, 4N for blocks, heads
        # All of a unit of importance 0 stay there, to 6e-6 of it.
        self.low = -12 / self._gain
        self.high = torch.full_like(self.low, float('inf'))
        self.numbers = torch.zeros(
            layout.U, dtype=torch.float64, device=layout.device)
        self.importance = torch.zeros(
            layout.E, dtype=torch.float64, device=layout.device)
        self.set_kept(layout.size, layout.size > 0)

    def soft(self, numbers: Tensor, ranks: Tensor) -> Tensor:
        """``sigmoid(λ(c − a))``."""
        gain, numbers = (
            per_unit.index_select(0, self.layout.unit_of_element)
            for per_unit in (self._gain, numbers))
        return torch.sigmoid(gain * (self.importance - numbers))

    def counts(self, numbers: Tensor) -> Tensor:
        """Mean over the groups of the sum of the masks.

        ``(1 − a)N`` would need importances that are spread evenly.
        """
        masks = self.soft(numbers, self.layout.place_in_row)
        sums = numbers.new_zeros(self.layout.U).index_add(
            0, self.layout.unit_of_element, masks)
        return sums / self.layout.groups

    def set_kept(self, kept: Tensor, units: Tensor) -> None:
        """The thresholds at which the masks add up to ``kept``.

        For the present importances; as these move, so do the counts.
        """
        largest = self.importance.new_zeros(self.layout.U).scatter_reduce(
            0, self.layout.unit_of_element, self.importance, 'amax')
        above = bisected(lambda above: self.counts(-above),
                         within(kept, self.layout), -largest - 40 / self._gain,
                         -self.low)
        self.numbers = torch.where(units, -above, self.numbers)

    def score(self, importance: Tensor) -> Tensor:
        """The importance, which the masks are made of as well."""
        self.importance = importance
        return importance
