# Copyright (c) dms_razor contributors. All rights reserved.
"""The selector 'sns': every unit chooses one of the counts it may keep.

The way of searches over candidate numbers, with which the paper compares its
ratios (Table 2, SNS; known from FBNetV2): each candidate has a logit, the
network sees the sum of the candidates' masks, weighted by a Gumbel softmax.
A candidate's mask lets the most important elements through, as many as it
says. There is a number for each count above 0, 11,468 for ResNet-50; that a
stage loses all its blocks has the fixed logit 0.
"""
import torch
from torch import Tensor

from ..errors import check_number
from .bisection import bisected, within
from .draws import DrawnSelector, Draws
from .layout import Layout
from .selectors import SELECTORS


class _Candidates:
    """The counts that units may keep, unit by unit, ascending.

    Attributes:
        count, unit (Tensor): Of each candidate, int64 ``[C]``.
        number (Tensor): Place of its logit among the numbers after a 0,
            which is the logit of a count of 0; int64 ``[C]``.
        has_none (Tensor): Units that may lose everything, bool ``[U]``.
        largest (Tensor): The last candidate of each unit, int64 ``[U]``.
        first (Tensor): The candidate from which on an element stays, if it
            is the n-th most important of its group, is ``first[start[u] + n
            − 1]``, C for none; int64 ``[Σ N]``.
        start (Tensor): int64 ``[U]``.
    """

    def __init__(self, layout: Layout) -> None:
        allowed = [torch.tensor(unit.allowed) for unit in layout.units]
        self.count = torch.cat(allowed)
        sizes = torch.tensor([len(counts) for counts in allowed])
        self.unit = torch.arange(layout.U).repeat_interleave(sizes)
        self.number = (self.count > 0).cumsum(0) * (self.count > 0)
        self.has_none = torch.tensor([counts[0] == 0 for counts in allowed])
        ends = sizes.cumsum(0)
        self.largest = ends - 1
        self.start = layout.size.cpu().cumsum(0) - layout.size.cpu()
        self.first = torch.cat([
            self._after(counts, end, unit.size)
            for counts, end, unit in zip(allowed, ends.tolist(), layout.units)
        ])

    def _after(self, counts: Tensor, end: int, size: int) -> Tensor:
        place = torch.bucketize(torch.arange(1, size + 1), counts)
        none = place == len(counts)
        return torch.where(none, len(self.count), end - len(counts) + place)

    def spread(self, per_unit: Tensor) -> Tensor:
        """Of units ``[U]``, for each candidate ``[C]``."""
        return per_unit.index_select(0, self.unit)

    def sums(self, values: Tensor) -> Tensor:
        """Sum of ``[C]`` over the candidates of each unit, ``[U]``."""
        return values.new_zeros(len(self.largest)).index_add(
            0, self.unit, values)

    def most(self, values: Tensor) -> Tensor:
        """Largest of ``[C]`` in each unit, ``[U]``; a constant."""
        values = values.detach()
        return values.new_zeros(len(self.largest)).scatter_reduce(
            0, self.unit, values, 'amax', include_self=False)

    def softmax(self, logits: Tensor) -> Tensor:
        """Probabilities within each unit, ``[C]``."""
        weights = (logits - self.spread(self.most(logits))).exp()
        return weights / self.spread(self.sums(weights))


@SELECTORS.register('sns')
class NumberChoice(DrawnSelector):
    """One logit a candidate count.

    At the start the largest count is by far the most probable and all others
    are equal: at most a hundredth of a group and a quarter of an element is
    expected to go, so that every hard count is the largest. A unit that may
    not keep all its elements begins at the most it may keep.

    What a unit keeps, hard, is the count nearest to the expected one, not the
    most probable one: among hundreds of candidates each has little.

    Args:
        layout (Layout): The units.
        seed (int): Of the noise. Defaults to 0.
        tau (float): Temperature of the softmax that the network sees; the
            smaller, the nearer to a single count. Defaults to 1.

    Raises:
        ValueError: If ``tau`` is not positive.
    """
    span = 24.

    def __init__(self, layout: Layout, seed: int = 0, tau: float = 1.) -> None:
        check_number('tau of the choices', tau, above=True)
        super().__init__(layout, seed)
        self.tau = tau
        self._candidates = candidates = _Candidates(layout)
        self.draws = Draws(len(candidates.count), seed, layout.device)
        others = torch.bincount(candidates.unit, minlength=layout.U) - 1
        others = others.clamp(min=1).double()
        # Share of a group that is lost at most, were all others its losers.
        lost = (1 - within(layout.size, layout) / layout.size)
        # Beyond the bounds the probability of a candidate is so small that it
        # could not come back.
        self._gap = (10 * others / lost).log()
        self.high = self._gap[candidates.unit[candidates.count > 0]]
        self.low = -self.high * candidates.has_none[candidates.unit[
            candidates.count > 0]]
        start = torch.zeros_like(candidates.count, dtype=torch.float64)
        start[candidates.largest] = (others / lost).log()
        self.numbers = start[candidates.count > 0]

    def _logits(self, numbers: Tensor) -> Tensor:
        """Of all candidates, ``[C]``."""
        zero = numbers.new_zeros(1)
        return torch.cat((zero, numbers)).index_select(0,
                                                       self._candidates.number)

    def _masks(self, probabilities: Tensor, ranks: Tensor) -> Tensor:
        """Of elements: the probability of all counts that reach them."""
        candidates, unit = self._candidates, self.layout.unit_of_element
        # Sums from each candidate on, over all units that follow as well.
        sums = probabilities.flip(0).cumsum(0).flip(0)
        sums = torch.cat((sums, sums.new_zeros(1)))
        place = (candidates.start + self.layout.size - 1).index_select(0, unit)
        first = candidates.first.index_select(0, place - ranks)
        after = (candidates.largest + 1).index_select(0, unit)
        masks = sums.index_select(0, first) - sums.index_select(0, after)
        return torch.where(first < len(probabilities), masks, 0.).clamp(0, 1)

    def soft(self, numbers: Tensor, ranks: Tensor) -> Tensor:
        """By the choice as it is drawn for this update."""
        logits = (self._logits(numbers) + self.draws.gumbel) / self.tau
        return self._masks(self._candidates.softmax(logits), ranks)

    def expected(self, numbers: Tensor, ranks: Tensor, soft: Tensor) -> Tensor:
        """By the probabilities, without noise."""
        probabilities = self._candidates.softmax(self._logits(numbers))
        return self._masks(probabilities, ranks)

    def counts(self, numbers: Tensor) -> Tensor:
        """The mean of the counts, by their probabilities."""
        probabilities = self._candidates.softmax(self._logits(numbers))
        return self._candidates.sums(probabilities * self._candidates.count)

    def set_kept(self, kept: Tensor, units: Tensor) -> None:
        """Tilt the logits of each unit, ``logit + θ·count``.

        What was preferred among neighbouring counts stays so.
        """
        candidates = self._candidates
        logits = self._logits(self.numbers)

        def tilted(tilt: Tensor) -> Tensor:
            moved = logits + candidates.spread(tilt) * candidates.count
            gap = candidates.spread(self._gap)
            moved = moved - candidates.spread(candidates.most(moved))
            moved = torch.maximum(moved, -gap)
            zero = moved[candidates.largest -
                         (torch.bincount(candidates.unit) - 1)]
            zero = torch.where(candidates.has_none, zero, -self._gap)
            return (moved - candidates.spread(zero))[candidates.count > 0]

        steep = 4 * self._gap
        tilt = bisected(lambda tilt: self.counts(tilted(tilt)),
                        within(kept, self.layout), -steep, steep)
        chosen = candidates.spread(units)[candidates.count > 0]
        self.numbers = torch.where(chosen, tilted(tilt), self.numbers)
