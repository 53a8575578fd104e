# Copyright (c) dms_razor contributors. All rights reserved.
"""The selector 'get': a hard top-k with a straight-through gradient.

The simplest way to learn a pruning ratio, with which the paper compares its
own (Table 2, GET; known from LEAP): the network sees masks of 1 or as good as
0, and backward passes through them as if they were as smooth as their sum,
``Σ m_i = k = (1 − a)N``.
"""
import torch
from torch import Tensor

from .selectors import SELECTORS, DifferentiableTopk
from .spread import spread
from .topk import TINY, hard_masks, kept_counts


@SELECTORS.register('get')
class StraightThrough(DifferentiableTopk):
    """One pruning ratio a unit, as in 'dms'; hard masks in the network.

    Nothing is pruned at the start: all ratios are 0 and all masks 1.
    """

    def soft(self, numbers: Tensor, ranks: Tensor) -> Tensor:
        """1 for the k most important, else as good as 0; ``∂m_i/∂a = −1``.

        That of a unit with nothing to lose is 0.
        """
        layout = self.layout
        kept = kept_counts(numbers, layout)
        # A unit that may not keep all its elements begins with all of them,
        # below its bound: nothing is pruned by the random order.
        kept = torch.where(numbers < self.low, layout.size, kept)
        removed = numbers * layout.removable / layout.size
        removed = spread(removed, layout)
        keep = hard_masks(kept, ranks, layout)
        # Not 0: what is left out has to tell what it was good for.
        hard = torch.where(keep, 1., TINY).to(numbers)
        return hard - (removed - removed.detach())

    def expected(self, numbers: Tensor, ranks: Tensor, soft: Tensor) -> Tensor:
        """Blocks leave one by one, each as ``(1 − a)N`` falls through it.

        The masks of the network jump from 1 to 0; a budget could not be met
        along them. These add up to ``(1 − a)N``.
        """
        layout = self.layout
        stay = (1 - numbers) * layout.size
        above = layout.size.index_select(0, layout.unit_of_element) - 1 - ranks
        share = spread(stay, layout) - above
        # At a whole number only the element that would leave next has a
        # gradient, hence no clamp.
        return torch.where((share > 0) & (share <= 1), share, (share
                                                               > 0).to(share))
