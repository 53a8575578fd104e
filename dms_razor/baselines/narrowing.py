# Copyright (c) dms_razor contributors. All rights reserved.
"""A structure without a search: score the elements, keep the best.

What the paper's Table 5 and 6 compare with, on the very same space, budget
and export. The scope says how the budget is shared out:

* 'local': every unit keeps the same share;
* 'global': the best elements of the whole network stay, so that units end up
  with shares of their own.
"""
import inspect
from typing import Any, Callable, Iterable, Optional, Union

import torch
from torch import Tensor, nn

from ..core.budget import TargetError, format_amount
from ..core.layout import Layout
from ..core.projection import ENOUGH, FILLED, BudgetProblem, project
from ..core.selectors import Selector
from ..core.topk import nearest_counts, rank_order, ranks_from_order
from ..search import Search
from .methods import METHODS

SCOPES = ('local', 'global')


@torch.no_grad()
def narrow(search: Search,
           method: Union[str, Callable],
           *,
           scope: str = 'local',
           batches: Optional[Iterable[Any]] = None,
           loss: Optional[Callable[[nn.Module, Any], Tensor]] = None,
           depth: bool = False,
           seed: int = 0) -> Tensor:
    """Set the structure of a search without searching.

    Afterwards ``search.export(folder)`` writes the network, and
    ``search.masks('subnet')`` shows it. A search that begins or goes on from
    here does so at this structure, and with the scores as importances until
    its own have replaced them; unless the clock is moved first
    (:meth:`Search.advance`), its target still falls from the supernet's cost.

    Args:
        search (Search): Space, budget and network; its bank is changed.
        method (str | Callable): A name of :data:`~.methods.METHODS`:
            'uniform', 'random', 'l1' or 'taylor'; or a method.
        scope (str): 'local', the same share of every unit, or 'global', one
            threshold for all elements. Defaults to 'local'.
        batches, loss: For methods that need them, see
            :func:`~.sensitivity.taylor`.
        depth (bool): Whether blocks may go as well, as elements of their
            stage; else all stay. Defaults to False.
        seed (int): For methods that draw. Defaults to 0.

    Returns:
        Tensor: Kept elements a group, int64 ``[U]`` on the CPU. The cost is
        at most the budget, and 99 % of it where the space has such a network;
        to get there in a space of few elements, the projection may also take
        a block.

    Raises:
        ValueError: The method or scope is not known, an argument is missing
            or has no effect, the scores are none, or the selector of the
            search does not rank by importance.
        TargetError: With all blocks no network meets the budget.
    """
    if scope not in SCOPES:
        raise ValueError(f'scope "{scope}" is not known, use one of '
                         f'{", ".join(SCOPES)}')
    _refuse_own_ranking(search.bank.selector, search.bank.importance)
    scores = _scores(search, method, dict(batches=batches, loss=loss), scope,
                     seed)
    kept = _counts(search, scores, scope, depth)
    search.bank.set_kept(kept)
    return kept


def _refuse_own_ranking(selector: Selector, importance: Tensor) -> None:
    """Raise ValueError if no score would decide what stays."""
    if not selector.score(importance).equal(importance):
        raise ValueError(
            f'the {type(selector).__name__} selector ranks by numbers of its '
            'own and not by scores: narrow a search with another selector, '
            "such as 'dms'")


def _counts(search: Search, scores: Tensor, scope: str, depth: bool) -> Tensor:
    """Rank by the scores and share out the budget, int64 ``[U]``."""
    bank = search.bank
    ratios = torch.zeros_like(bank.layout.size).double()
    ranks = ranks_from_order(
        rank_order(scores, bank.layout, bank.order), bank.layout)
    problem = BudgetProblem(bank.layout, search.resource, ratios, ranks,
                            search.metric, search.target, None)
    frozen = torch.zeros_like(problem.is_depth) if depth else problem.is_depth
    _refuse_blocks(problem, frozen, search.metric)
    # From here on importances say something: ratios may move, and an export
    # is not one of a search that never made a step.
    bank.importance, bank.updates = scores, max(bank.updates, 1)
    bank.refresh()
    if scope == 'local':
        kept = _same_share(problem, frozen)
    else:
        kept = _filled(problem, frozen, scores.cpu(), bank.ranks.cpu())
        if problem.cost(kept) >= ENOUGH * search.target:
            return kept
        ratios = 1 - kept.to(ratios.device) / bank.layout.size
    # One shift of equal ratios is one share of every unit.
    return project(
        bank.layout,
        search.resource,
        ratios,
        search.metric,
        search.target,
        ranks=bank.ranks,
        depth_kept=kept)


def _scores(search: Search, method: Union[str, Callable], given: dict,
            scope: str, seed: int) -> Tensor:
    """What the method makes of the elements, float64 ``[E]``."""
    name = method if isinstance(method, str) else method.__name__
    if isinstance(method, str):
        method = METHODS.find(method)
    takes = inspect.signature(method).parameters
    useless = [
        f'{key}=' for key, value in given.items()
        if value is not None and key not in takes
    ]
    if useless:
        raise ValueError(f'{", ".join(useless)} would have no effect on the '
                         f"method '{name}': leave it out")
    given.update(scope=scope, seed=seed)
    scores = method(
        search, **{
            key: value
            for key, value in given.items() if key in takes
        })
    importance = search.bank.importance
    scores = scores.detach().to(importance)
    if scores.shape != importance.shape or not (torch.isfinite(scores).all()
                                                and (scores >= 0).all()):
        raise ValueError(
            f"the method '{name}' gave scores of shape {tuple(scores.shape)}; "
            f'it must give {len(importance)} finite numbers, none negative')
    return scores


def _refuse_blocks(problem: BudgetProblem, frozen: Tensor,
                   metric: str) -> None:
    """Raise TargetError if the budget cannot be met with what stays."""
    smallest = torch.where(frozen, problem.most, problem.least)
    cost = problem.cost(smallest).item()
    if cost > problem.target:
        raise TargetError(
            f'with all blocks the smallest network has {format_amount(cost)} '
            f'{metric}, more than the target {format_amount(problem.target)}: '
            'narrow with depth=True, or raise the target')


def _same_share(problem: BudgetProblem, frozen: Tensor) -> Tensor:
    """Counts at the largest share of every unit that fits."""

    def counts(share: float) -> Tensor:
        kept = nearest_counts(share * problem.size.double(), problem.layout)
        return torch.where(frozen, problem.most, kept)

    low, high = 0., 1.
    while high - low > 1e-6:
        middle = (low + high) / 2
        if problem.cost(counts(middle)) <= problem.target:
            low = middle
        else:
            high = middle
    return counts(low)


def _filled(problem: BudgetProblem, frozen: Tensor, scores: Tensor,
            ranks: Tensor) -> Tensor:
    """Counts of the elements with the highest scores, as many as fit."""
    layout = problem.layout
    order = scores.argsort(stable=True, descending=True)
    units = layout.unit_of_element[order]

    def counts(number: int) -> Tensor:
        best = torch.bincount(units[:number], minlength=layout.U)
        kept = nearest_counts(best.double() / layout.groups, layout)
        return torch.where(frozen, problem.most, kept)

    low, high = 0, layout.E
    while high - low > 1:
        middle = (low + high) // 2
        if problem.cost(counts(middle)) <= problem.target:
            low = middle
        else:
            high = middle
    kept = counts(high)
    if problem.cost(kept) > problem.target:
        kept = counts(low)
    by_rank = _by_rank(scores, ranks, layout)
    while problem.cost(kept) < FILLED * problem.target:
        unit = _next_best(problem, kept, frozen, by_rank)
        if unit is None:
            break
        kept[unit] = problem.next(kept, 1)[unit]
    return kept


def _by_rank(scores: Tensor, ranks: Tensor, layout: Layout) -> Tensor:
    """Mean over the groups of the scores, best first; ``[U, N]``."""
    found = scores.new_zeros(layout.U, int(layout.size.max()))
    unit = layout.unit_of_element
    place = layout.size[unit] - 1 - ranks
    found.index_put_((unit, place),
                     scores / layout.groups[unit],
                     accumulate=True)
    return found


def _next_best(problem: BudgetProblem, kept: Tensor, frozen: Tensor,
               by_rank: Tensor) -> Optional[int]:
    """The unit whose next element is worth most, of those it fits in."""
    more = problem.next(kept, 1)
    best = None
    for unit in (~frozen & (kept < problem.most)).nonzero().flatten().tolist():
        worth = by_rank[unit, kept[unit]:more[unit]].mean().item()
        if best is None or worth > best[0]:
            trial = kept.clone()
            trial[unit] = more[unit]
            if problem.cost(trial) <= problem.target:
                best = worth, unit
    return None if best is None else best[1]
