# Copyright (c) dms_razor contributors. All rights reserved.
"""What the projection does where shifting and filling is not enough.

That happens in coarse spaces, where one element is more than a percent of the
network. Networks are built up unit by unit, costly units first. Since figures
grow with every element, a half-built network is given up as soon as its
smallest completion exceeds the target or its largest falls short. What is
left is everything that fits, so in a small space the search is complete; in a
large one only a sample is carried on from unit to unit.
"""
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .projection import BudgetProblem

_WORK = 2 * 10**8  # multiplications the search may cost, a second or two
_VALUES = 32  # counts of a unit that are tried
_BATCH = 8192  # networks evaluated at once


def search_networks(problem: 'BudgetProblem', kept: Tensor,
                    enough: float) -> Tensor:
    """A network closer to the target than ``kept``, if there is one.

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
    figure = problem.figure(kept)
    found = networks_between(problem, figure.item())
    figures = problem.figure(found)
    if not (figures > figure).any():
        return kept
    largest = found[figures == figures.max()]
    return largest[problem.distance(largest).argmin()]


def networks_between(problem: 'BudgetProblem', floor: float) -> Tensor:
    """Networks whose figure lies between ``floor`` and the target.

    Returns:
        Tensor: All of them if the space is small, else some; int64
        ``[B, U]``.
    """
    generator = torch.Generator().manual_seed(0)
    rows = problem.least[None]
    done = torch.zeros_like(problem.is_depth)
    room = _WORK // (len(done) * problem.work)
    for unit in _costly_first(problem):
        values = _values(problem, unit)
        done[unit] = True
        rows = _thinned(problem, rows, max(room // len(values), 8), generator)
        extended = []
        for part in rows.split(max(_BATCH // len(values), 1)):
            part = part.repeat_interleave(len(values), 0)
            part[:, unit] = values.repeat(len(part) // len(values))
            part = part[problem.figure(part) <= problem.target]
            largest = torch.where(done, part, problem.most)
            extended.append(part[problem.figure(largest) >= floor])
        rows = torch.cat(extended)
    return rows


def _costly_first(problem: 'BudgetProblem') -> list:
    """Units by what they take away from the largest network."""
    without = torch.where(
        torch.eye(len(problem.most), dtype=torch.bool), problem.least,
        problem.most)
    return problem.figure(without).argsort(stable=True).tolist()


def _values(problem: 'BudgetProblem', unit: int) -> Tensor:
    """Counts that are tried: all, or some and what was asked; ``[V]``."""
    least, most = problem.least[unit].item(), problem.most[unit].item()
    if problem.layout.units[unit].choices is not None:
        return torch.tensor(problem.layout.units[unit].choices)
    if most - least < _VALUES:
        return torch.arange(least, most + 1)
    spread = torch.linspace(least, most, _VALUES).round().long()
    asked = problem.asked[unit].round().long().clamp(least, most)
    return torch.cat((spread, asked[None])).unique()


def _thinned(problem: 'BudgetProblem', rows: Tensor, most: int,
             generator: torch.Generator) -> Tensor:
    """At most ``most`` rows: half the nearest to what was asked, half any."""
    if len(rows) <= most:
        return rows
    # Units that are still open stand at their least in all rows alike.
    nearest = problem.distance(rows).argsort(stable=True)
    others = nearest[most // 2:]
    others = others[torch.randperm(len(others), generator=generator)]
    return rows[torch.cat((nearest[:most // 2], others[:most - most // 2]))]
