# Copyright (c) dms_razor contributors. All rights reserved.
"""An evolutionary algorithm over the space of a search (paper, section 4.1.2).

The stochastic search that the paper compares with in Tables 3 and 13: a
population of networks, each scored as it stands, the best of which are
mutated and crossed. A candidate is the counts that a search would learn, so
both look at the very same networks and pay for them by the same closed form.

Candidates drawn at random hardly ever cost what is asked (of 30 draws in the
quickstart's space none lay between 99 % and 100 % of the budget), so that
rejecting those that miss would not end. Each is projected onto the budget
instead, by the projection that the search itself ends with.
"""
import math
import random
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..core.budget import TargetError, format_amount
from ..core.projection import ENOUGH, project
from ..errors import check_number
from ..search import Search

_ROUNDS = 4  # a projection is at rest after one or two
_TRIES = 20  # draws for one new candidate


@dataclass(frozen=True)
class Candidate:
    """A network that was scored.

    Attributes:
        kept (tuple[int]): Kept elements a group of each unit, ``[U]``.
        cost (float): In units of the search's metric.
        score (float): What ``evaluate`` gave; larger is better.
    """
    kept: Tuple[int, ...]
    cost: float
    score: float


@dataclass
class Evolution:
    """What an evolution found.

    Attributes:
        best (Candidate): The best of all.
        history (list[list[Candidate]]): What each generation scored anew.
    """
    best: Candidate
    history: List[List[Candidate]]

    @property
    def evaluations(self) -> int:
        """Networks that were scored: the cost of the search."""
        return sum(map(len, self.history))


class CountsInBudget:
    """Counts of a search's space that cost just what is asked.

    Args:
        search (Search): The space, and the ranks that say what a count keeps.
        budget (float | str, optional): As for :meth:`Search.budget`; by
            default the search's own.
        least (float): Share of the budget that has to be reached.

    Attributes:
        budget (float): In units of the metric.

    Raises:
        TargetError: If the budget is unreadable or out of reach.
    """

    def __init__(self,
                 search: Search,
                 budget: Union[None, float, str] = None,
                 least: float = ENOUGH) -> None:
        check_number('least', least, 0, 1)
        self.search, self.layout = search, search.space.layout.to('cpu')
        self.budget, self.least = search.budget(budget), least

    def cost(self, kept: Tensor, metric: Optional[str] = None) -> float:
        """Cost of a network in a metric, by default the search's.

        Args:
            kept (Tensor): Kept elements a group, int64 ``[U]``.
            metric (str, optional): A name of ``METRICS``.
        """
        selection = self.search.bank.hard(kept)
        kept = kept.double().to(selection.device)
        return float(
            self.search.resource(kept, selection.double(), metric
                                 or self.search.metric))

    def fit(self, kept: Tensor) -> Optional[Tensor]:
        """The network of the budget that is nearest to any counts.

        What comes out is at rest: projected again, as an export does, it is
        the same network.

        Args:
            kept (Tensor): Counts that the units may keep, int64 ``[U]``.

        Returns:
            Tensor | None: int64 ``[U]``; None where the projection misses.
        """
        for _ in range(_ROUNDS):
            before, kept = kept, project(
                self.layout,
                self.search.resource,
                1 - kept.double() / self.layout.size,
                self.search.metric,
                self.budget,
                ranks=self.search.bank.ranks)
            if torch.equal(before, kept):
                break
        else:
            return None
        fits = self.least * self.budget <= self.cost(kept) <= self.budget
        return kept if fits else None

    def sample(self, draw: random.Random) -> Tensor:
        """Uniform counts, wherever their cost lies; int64 ``[U]``."""
        return torch.tensor(
            [draw.choice(unit.allowed) for unit in self.layout.units])

    def nothing_found(self, tries: int) -> TargetError:
        """The error for a space in which the budget is not met."""
        amount = format_amount(self.budget)
        return TargetError(
            f'none of {tries} networks costs {self.least:.1%} to 100% of '
            f'{amount} {self.search.metric}: the units are too coarse for '
            'it; lower "least" of the evolution, or take a budget that a '
            'network of the space meets')


def crossed(one: Sequence[int], other: Sequence[int], rate: float,
            draw: random.Random) -> Tensor:
    """Each count of ``one``, or with probability ``rate`` of ``other``."""
    return torch.tensor(
        [b if draw.random() < rate else a for a, b in zip(one, other)])


def evolve(search: Search,
           evaluate: Callable[[Search], float],
           *,
           population: int = 50,
           generations: int = 20,
           mutation: float = .1,
           seed: int = 0,
           budget: Union[None, float, str] = None,
           parents: Optional[int] = None,
           least: float = ENOUGH) -> Evolution:
    """Search by mutation and crossover instead of by gradients.

    Of every generation half are mutants of the best so far and half are
    their children, as in MMRazor; the first one is random. What was scored
    is not scored again. Afterwards the search stands at the best network (its
    ratios are overwritten), which ``search.export(folder)`` writes.

    Args:
        search (Search): The space; its ranks say which elements a count
            keeps and stay as they are.
        evaluate (Callable): ``evaluate(search)`` gives a network's score,
            larger is better, while ``search.model`` runs under its hard
            masks. Where BatchNorm matters it should recalibrate first
            (:func:`dms_razor.subnet.recalibrate`).
        population (int): Networks a generation. Defaults to 50.
        generations (int): Defaults to 20.
        mutation (float): Probability with which a unit of a mutant is drawn
            anew. Defaults to 0.1.
        seed (int): Of all that is drawn. Defaults to 0.
        budget (float | str, optional): Defaults to the search's own.
        parents (int, optional): How many have children; a fifth by default.
        least (float): Share of the budget that each network has to cost.
            Defaults to 0.99.

    Returns:
        Evolution: Shorter than asked where nothing new is found any more.

    Raises:
        ValueError: If a number is out of range or a score is not finite.
        TargetError: If the budget is out of reach or no network meets it.
    """
    parents = max(population // 5, 1) if parents is None else parents
    check_number('population', population, 1, whole=True)
    check_number('generations', generations, 1, whole=True)
    check_number('parents', parents, 1, whole=True)
    check_number('mutation', mutation, 0, 1, above=True)
    space, draw = CountsInBudget(search, budget, least), random.Random(seed)
    scored: Dict[Tuple[int, ...], Candidate] = {}
    history: List[List[Candidate]] = []
    for _ in range(generations):
        new = _generation(space, scored, population, parents, mutation, draw)
        if not new:
            break
        scored.update((kept, _scored(space, kept, evaluate)) for kept in new)
        history.append([scored[kept] for kept in new])
    if not scored:
        raise space.nothing_found(population * _TRIES)
    best = _best(scored)[0]
    search.bank.set_kept(torch.tensor(best.kept))
    return Evolution(best, history)


def _best(scored: Dict[Tuple[int, ...], Candidate]) -> List[Candidate]:
    """All candidates, the best first."""
    return sorted(scored.values(), key=lambda one: -one.score)


def _generation(space: CountsInBudget, known: Dict[Tuple[int, ...], Candidate],
                population: int, parents: int, mutation: float,
                draw: random.Random) -> List[Tuple[int, ...]]:
    """Networks that are new: mutants, children, and random ones beside."""
    best = _best(known)[:parents]

    def mutant() -> Tensor:
        one = draw.choice(best).kept
        return crossed(one, space.sample(draw).tolist(), mutation, draw)

    def child() -> Tensor:
        return crossed(
            draw.choice(best).kept,
            draw.choice(best).kept, .5, draw)

    new: Dict[Tuple[int, ...], None] = {}
    for number in range(population):
        make = (mutant, child)[number % 2] if best else None
        for attempt in range(_TRIES):
            # Parents that are alike have no new children: draw at random.
            alone = make is None or attempt >= _TRIES // 2
            kept = space.fit(space.sample(draw) if alone else make())
            key = None if kept is None else tuple(kept.tolist())
            if key is not None and key not in known and key not in new:
                new[key] = None
                break
    return list(new)


def _scored(space: CountsInBudget, kept: Tuple[int, ...],
            evaluate: Callable[[Search], float]) -> Candidate:
    """Score one network under its hard masks."""
    counts = torch.tensor(kept)
    space.search.bank.set_kept(counts)
    with space.search.masks('hard'):
        score = float(evaluate(space.search))
    if not math.isfinite(score):
        raise ValueError(
            f'evaluate gave {score} for a network of '
            f'{format_amount(space.cost(counts))} {space.search.metric}; it '
            'has to give a finite number, larger for a better network')
    return Candidate(kept, space.cost(counts), score)
