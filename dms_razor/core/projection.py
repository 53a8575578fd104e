# Copyright (c) dms_razor contributors. All rights reserved.
"""From ratios to the hard network that meets the budget.

A search ends near its target, not on it: a single step and the rounding of k
can miss it by percents, and the resource loss never pushes up. So the network
is projected onto the budget when depth freezes and at export:

1. depth keeps what it was given or what its ratios round to; a block is added
   back or removed only where no width at all could meet the budget;
2. all width ratios move by one common shift, bisected on hard counts, to the
   largest network that fits;
3. what is left of the budget is filled, next in line first.

The result costs at most the target. Where it costs less than 99 % of it
:func:`search_networks` looks for a better one, depth included; it looks at
every network of a small space, so there the answer is exact.
"""
from typing import Optional

import torch
from torch import Tensor

from .budget import TargetError, check_target, format_amount
from .layout import Layout
from .resource import ResourceModel
from .topk import nearest_counts

ENOUGH = 0.99  # of the target: what a projected network has to reach
FILLED = 0.999  # of the target: where filling stops
_PROBES, _ROUNDS = 32, 8  # the shift ends up exact to 2·32**-8
_WORK = 2 * 10**8  # multiplications that looking at networks may cost, seconds
_VALUES = 32  # counts of a unit that are tried
_BATCH = 8192  # networks evaluated at once


class BudgetProblem:
    """Find kept counts in a box whose cost is just below the target.

    Everything is a function of the kept counts alone: the ranks say which
    blocks a count keeps. All on the CPU.

    Takes the arguments of :func:`project`.

    Attributes:
        asked (Tensor): What the search would keep, ``(1 − a)N``, whole for
            depth; float64 ``[U]``.
        size, least, most (Tensor): Of each unit, int64 ``[U]``.
        is_depth (Tensor): bool ``[U]``.
        target (float): Cost that must not be exceeded.
        work (int): About the multiplications that one cost takes.
    """

    def __init__(self, layout: Layout, resource: ResourceModel, ratios: Tensor,
                 ranks: Tensor, metric: str, target: float,
                 depth_kept: Optional[Tensor]) -> None:
        layout = self.layout = layout.to('cpu')
        ratios = ratios.detach().cpu().double()
        self.size, self.is_depth = layout.size, layout.is_depth
        self.least, self.most = layout.least, layout.most
        self.target = target
        self._tables = resource.tables(metric, torch.device('cpu'))
        used = self._tables.used
        self.work = self._tables.work + layout.U
        self._used_unit = layout.unit_of_element[used]
        # The mask of an element is 1 from this count of its unit on.
        self._used_from = (
            layout.size[self._used_unit] - ranks.detach().cpu()[used])
        asked = (1 - ratios) * layout.size
        depth = asked if depth_kept is None else depth_kept.cpu().double()
        self.asked = torch.where(self.is_depth,
                                 nearest_counts(depth, layout).double(), asked)

    def cost(self, kept: Tensor) -> Tensor:
        """Cost of networks, float64 ``[...]``, of kept ``[..., U]``."""
        masks = kept[..., self._used_unit] >= self._used_from
        return self._tables.value(kept.double(), masks.double())

    def distance(self, kept: Tensor) -> Tensor:
        """How far ``kept[..., U]`` is from what the search would keep.

        Squared shares of the units, a block counting more than any width.
        """
        weight = torch.where(self.is_depth, 1e3, 1.).double()
        return ((kept - self.asked) / self.size).square() @ weight

    def shifted(self, kept: Tensor, shift: Tensor) -> Tensor:
        """Width counts at common shifts ``[S]``, depth of ``kept[U]``."""
        share = self.asked / self.size + shift.double()[:, None]
        width = nearest_counts(share * self.size, self.layout)
        return torch.where(self.is_depth, kept, width)

    def next(self, kept: Tensor, way: int) -> Tensor:
        """The next larger (1) or smaller (-1) count of each unit, [U].

        One too many or too few where there is none.
        """
        if not self.layout.has_choices:
            return kept + way
        return torch.tensor([
            min((c for c in unit.choices or () if (c - k) * way > 0),
                key=lambda c: abs(c - k),
                default=k + way)
            for unit, k in zip(self.layout.units, kept.tolist())
        ])

    def waiting(self, kept: Tensor, way: int = 1) -> Tensor:
        """Shift at which the next element of each unit would come, [U]."""
        return ((kept + self.next(kept, way)) / 2 - self.asked) / self.size


@torch.no_grad()
def project(layout: Layout,
            resource: ResourceModel,
            ratios: Tensor,
            metric: str,
            target: float,
            *,
            ranks: Tensor,
            depth_kept: Optional[Tensor] = None) -> Tensor:
    """Kept counts of the network that meets a budget.

    Args:
        layout (Layout): The units.
        resource (ResourceModel): Costs of the network.
        ratios (Tensor): Pruning ratios of the search, ``[U]``.
        metric (str): What the budget limits.
        target (float): Budget, in units of ``metric``.
        ranks (Tensor): Rank of every element, ``[E]``: which blocks leave
            first, since they may differ in cost.
        depth_kept (Tensor, optional): Kept counts ``[U]``, of which the depth
            units' are used. Defaults to what the ratios round to.

    Returns:
        Tensor: Kept elements a group, int64 ``[U]`` on the CPU.

    Raises:
        TargetError: If not even the smallest network meets the budget.
    """
    problem = BudgetProblem(layout, resource, ratios, ranks, metric, target,
                            depth_kept)
    check_target(
        min(target, resource.supernet(metric)), resource.supernet(metric),
        resource.minimum(metric), metric)
    smallest = problem.cost(problem.least).item()
    if smallest > target:
        raise TargetError(
            f'{metric} target {format_amount(target, metric)} cannot be '
            'reached with the blocks that are now the most important, the '
            f'least is {format_amount(smallest, metric)}: lower "least" of '
            'the stages or raise the target')
    if problem.cost(problem.most).item() <= target:
        return problem.most.clone()

    kept = _fit_width(problem, _possible_depth(problem))
    if problem.cost(kept) < ENOUGH * target:
        kept = _fill(problem, search_networks(problem, kept, ENOUGH))
    return kept


def _possible_depth(problem: BudgetProblem) -> Tensor:
    """Counts with a depth at which some width meets the budget.

    Blocks come back in the order in which they would be next, and go in the
    opposite one.
    """
    is_depth, target = problem.is_depth, problem.target
    kept = torch.where(is_depth, problem.asked.long(), problem.most)
    while problem.cost(kept) < ENOUGH * target:
        can = is_depth & (kept < problem.most)
        if not can.any():
            break
        unit = problem.waiting(kept).masked_fill(~can, float('inf')).argmin()
        kept[unit] = problem.next(kept, 1)[unit]
    kept = torch.where(is_depth, kept, problem.least)
    while problem.cost(kept) > target:
        can = is_depth & (kept > problem.least)
        waiting = problem.waiting(kept, -1)
        unit = waiting.masked_fill(~can, -float('inf')).argmax()
        kept[unit] = problem.next(kept, -1)[unit]
    return kept


def _fit_width(problem: BudgetProblem, depth: Tensor) -> Tensor:
    """Largest common shift that fits at this depth, then filled up."""
    kept = problem.shifted(depth, torch.zeros(1))[0]
    if FILLED * problem.target <= problem.cost(kept) <= problem.target:
        return kept  # nothing to do, as after a projection before
    low, high = -1., 1.
    for _ in range(_ROUNDS):
        shifts = torch.linspace(low, high, _PROBES + 1, dtype=torch.float64)
        trials = problem.shifted(depth, shifts)
        fits = problem.cost(trials) <= problem.target
        # Costs grow with the shift, and the lowest one fits.
        last = int(fits.sum()) - 1
        kept = trials[last]
        low = shifts[last].item()
        high = shifts[min(last + 1, _PROBES)].item()
    return _fill(problem, kept)


def _fill(problem: BudgetProblem, kept: Tensor) -> Tensor:
    """Add width, next in line first, until nothing more fits."""
    candidates = (~problem.is_depth).nonzero().flatten()
    own = torch.zeros(
        len(candidates), len(kept),
        dtype=torch.bool).scatter_(1, candidates[:, None], True)
    while problem.cost(kept) < FILLED * problem.target:
        trials = torch.where(own, problem.next(kept, 1), kept)
        fits = problem.cost(trials) <= problem.target
        fits &= kept[candidates] < problem.most[candidates]
        if not fits.any():
            break
        waiting = problem.waiting(kept)[candidates]
        kept = trials[waiting.masked_fill(~fits, float('inf')).argmin()]
    return kept


def search_networks(problem: BudgetProblem, kept: Tensor,
                    enough: float) -> Tensor:
    """A network closer to the target than ``kept``, if there is one.

    What the projection does in coarse spaces, where one element is more than
    a percent of the network and shifting and filling is not enough.

    Args:
        problem (BudgetProblem): The space and the budget.
        kept (Tensor): Counts of a network that fits, int64 ``[U]``.
        enough (float): Share of the target that a network should reach.

    Returns:
        Tensor: Of those between ``enough`` and the target the one nearest to
        what was asked; if there is none the largest below, and ``kept`` if
        nothing is larger; int64 ``[U]``.
    """
    found = networks_between(problem, enough * problem.target)
    if len(found):
        return found[problem.distance(found).argmin()]
    found = networks_between(problem, problem.cost(kept).item())
    costs = problem.cost(found)
    if not (costs > problem.cost(kept)).any():
        return kept
    found = found[costs == costs.max()]
    return found[problem.distance(found).argmin()]


def networks_between(problem: BudgetProblem, floor: float) -> Tensor:
    """Networks whose cost lies between ``floor`` and the target.

    They are built up unit by unit, costly units first. Since costs grow with
    every element, a half-built network is given up as soon as its smallest
    completion exceeds the target or its largest falls short. What is left is
    everything that fits, so in a small space the search is complete; in a
    large one only a sample is carried on from unit to unit.

    Returns:
        Tensor: All of them if the space is small, else some; int64
        ``[B, U]``.
    """
    generator = torch.Generator().manual_seed(0)
    rows = problem.least[None]
    done = torch.zeros_like(problem.is_depth)
    room = _WORK // (len(done) * problem.work)
    without = torch.where(
        torch.eye(len(done), dtype=torch.bool), problem.least, problem.most)
    for unit in problem.cost(without).argsort(stable=True).tolist():
        values = _values(problem, unit)
        done[unit] = True
        rows = _thinned(problem, rows, max(room // len(values), 8), generator)
        extended = []
        for part in rows.split(max(_BATCH // len(values), 1)):
            part = part.repeat_interleave(len(values), 0)
            part[:, unit] = values.repeat(len(part) // len(values))
            part = part[problem.cost(part) <= problem.target]
            largest = torch.where(done, part, problem.most)
            extended.append(part[problem.cost(largest) >= floor])
        rows = torch.cat(extended)
    return rows


def _values(problem: BudgetProblem, unit: int) -> Tensor:
    """Counts that are tried: all, or some and what was asked; ``[V]``."""
    spec = problem.layout.units[unit]
    if spec.choices is not None or spec.most - spec.least < _VALUES:
        return torch.tensor(spec.allowed)
    spread = torch.linspace(spec.least, spec.most, _VALUES).round().long()
    asked = problem.asked[unit].round().long().clamp(spec.least, spec.most)
    return torch.cat((spread, asked[None])).unique()


def _thinned(problem: BudgetProblem, rows: Tensor, most: int,
             generator: torch.Generator) -> Tensor:
    """At most ``most`` rows: half the nearest to what was asked, half any."""
    if len(rows) <= most:
        return rows
    # Units that are still open stand at their least in all rows alike.
    nearest = problem.distance(rows).argsort(stable=True)
    others = nearest[most // 2:]
    others = others[torch.randperm(len(others), generator=generator)]
    return rows[torch.cat((nearest[:most // 2], others[:most - most // 2]))]
