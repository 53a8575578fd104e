# Copyright (c) dms_razor contributors. All rights reserved.
"""What the projection does where shifting and filling is not enough.

That happens in coarse spaces, where one element is more than a percent of the
network. Small ones are searched completely; larger ones hold so many networks
that trading elements and random filling find one.
"""
import math
from typing import TYPE_CHECKING, Iterator, List, Optional

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .projection import Problem

EXHAUSTIVE = 200_000  # most networks that are tried one by one
_BATCH = 8192  # networks evaluated at once
_TRADES = 20_000  # most exchanges of elements tried in one round
_ROUNDS = 20  # of exchanges
_FILLS = 256  # random fillings
_DEPTHS = 64  # other depths


def volume(problem: 'Problem', free: Optional[Tensor] = None) -> Optional[int]:
    """Number of networks if the ``free`` units vary; None if too many."""
    span = problem.most - problem.least + 1
    if free is not None:
        span = span[free]
    networks = math.prod(span.tolist())
    return networks if networks <= EXHAUSTIVE else None


def best_of_all(problem: 'Problem',
                enough: float,
                kept: Optional[Tensor] = None) -> Tensor:
    """The best of every network of the space, or at the depth of ``kept``.

    Args:
        problem (Problem): The space and the budget.
        enough (float): Share of the target that a network has to reach.
        kept (Tensor, optional): Counts ``[U]`` that fix depth. Defaults to
            None, depth varies.

    Returns:
        Tensor: Of those between ``enough`` and the target the one nearest to
        what was asked, else the largest below; int64 ``[U]``.
    """
    free = torch.ones_like(problem.is_depth)
    if kept is not None:
        free = ~problem.is_depth
    base = problem.least if kept is None else kept
    best = None
    for batch in _boxes(problem, base, free):
        batch = _select(problem, batch, enough)[None]
        best = batch if best is None else torch.cat((best, batch))
    return _select(problem, best, enough)


def _boxes(problem: 'Problem', base: Tensor, free: Tensor) -> Iterator[Tensor]:
    """All counts of the ``free`` units, in batches ``[B, U]``."""
    span = torch.where(free, problem.most - problem.least + 1, 1)
    start = torch.where(free, problem.least, base)
    stride = torch.cat((span.new_ones(1), span.cumprod(0)[:-1]))
    for numbers in torch.arange(int(span.prod())).split(_BATCH):
        yield start + numbers[:, None] // stride % span


def _select(problem: 'Problem', kept: Tensor, enough: float) -> Tensor:
    """The best of ``kept[B, U]``; any if none fits."""
    figures = problem.figure(kept)
    fits = figures <= problem.target
    good = fits & (figures >= enough * problem.target)
    if good.any():
        kept = kept[good]
        return kept[problem.distance(kept).argmin()]
    figures = figures.masked_fill(~fits, -1)
    largest = (figures == figures.max()).nonzero().flatten()
    return kept[largest[problem.distance(kept[largest]).argmin()]]


def improve(problem: 'Problem', kept: Tensor, enough: float) -> Tensor:
    """A network nearer to the target than ``kept``, at the same depth."""
    if volume(problem, ~problem.is_depth) is not None:
        return best_of_all(problem, enough, kept)
    for step in (_trade, _fill_at_random):
        kept = step(problem, kept, enough)
        if problem.figure(kept) >= enough * problem.target:
            break
    return kept


def _trade(problem: 'Problem', kept: Tensor, enough: float) -> Tensor:
    """Exchange a few elements of one unit for a few of another."""
    generator = torch.Generator().manual_seed(0)
    units = (~problem.is_depth).nonzero().flatten().tolist()
    eye = torch.eye(len(kept), dtype=torch.int64)
    for _ in range(_ROUNDS):
        figure = problem.figure(kept)
        if figure >= enough * problem.target:
            break
        pairs = torch.cartesian_prod(
            torch.tensor(units), torch.tensor(units), torch.tensor([1, 2, 3]),
            torch.tensor([0, 1, 2, 3]))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if len(pairs) > _TRADES:
            pairs = pairs[torch.randperm(len(pairs),
                                         generator=generator)[:_TRADES]]
        best = kept[None]
        for more, less, up, down in (batch.unbind(1)
                                     for batch in pairs.split(_BATCH)):
            trials = kept + up[:, None] * eye[more] - down[:, None] * eye[less]
            inside = (trials >= problem.least) & (trials <= problem.most)
            trials = trials[inside.all(1)]
            if len(trials):
                best = torch.cat((best, _select(problem, trials,
                                                enough)[None]))
        traded = _select(problem, best, enough)
        if problem.figure(traded) <= figure:
            break
        kept = traded
    return kept


def _fill_at_random(problem: 'Problem', kept: Tensor, enough: float) -> Tensor:
    """Take a little away at random and fill up in random order."""
    generator = torch.Generator().manual_seed(0)
    units = (~problem.is_depth).nonzero().flatten()
    trials = kept.repeat(_FILLS, 1)
    away = torch.randint(0, 3, (_FILLS, len(units)), generator=generator)
    trials[:, units] = (trials[:, units] - away).maximum(problem.least[units])
    rows = torch.arange(_FILLS)
    for _ in range(4):
        orders = torch.rand(_FILLS, len(units), generator=generator).argsort(1)
        for column in orders.T:
            more = trials.clone()
            unit = units[column]
            more[rows, unit] += 1
            fits = problem.figure(more) <= problem.target
            fits &= more[rows, unit] <= problem.most[unit]
            trials = torch.where(fits[:, None], more, trials)
    return _select(problem, torch.cat((kept[None], trials)), enough)


def nearby_depths(problem: 'Problem', depth: Tensor,
                  enough: float) -> List[Tensor]:
    """Other depths at which the budget may be met, nearest first.

    All of them if they are few, else those that differ by a block in one or
    two stages.
    """
    if volume(problem, problem.is_depth) is not None:
        trials = torch.cat(list(_boxes(problem, depth, problem.is_depth)))
    else:
        units = problem.is_depth.nonzero().flatten().tolist()
        eye = torch.eye(len(depth), dtype=torch.int64)
        steps = [sign * eye[u] for u in units for sign in (1, -1)]
        steps += [a + b for i, a in enumerate(steps) for b in steps[:i]]
        trials = depth + torch.stack(steps)
        inside = (trials >= problem.least) & (trials <= problem.most)
        trials = trials[(inside | ~problem.is_depth).all(1)]
    trials = trials[(trials != depth)[:, problem.is_depth].any(1)]
    smallest = torch.where(problem.is_depth, trials, problem.least)
    largest = torch.where(problem.is_depth, trials, problem.most)
    possible = (problem.figure(smallest) <= problem.target) & (
        problem.figure(largest) >= enough * problem.target)
    trials = trials[possible]
    order = problem.distance(trials).argsort(stable=True)[:_DEPTHS]
    return list(trials[order])
