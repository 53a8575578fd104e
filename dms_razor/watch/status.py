# Copyright (c) dms_razor contributors. All rights reserved.
"""Where a search stands, as numbers and in words."""
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Dict, Iterator, Optional, Tuple

from ..core.budget import format_amount
from ..core.decision import Decision


@dataclass
class Status:
    """Where a search stands.

    Costs are in units of the metric.

    Attributes:
        network (str): Class of the network.
        space (str): How much of it is searched.
        metric (str): What the target limits.
        supernet (float): Cost of the whole network.
        target (float): The budget.
        asked (float): What the schedule asks for now; the supernet's cost
            before the search has a length.
        now (float): Cost of the soft network that trains.
        rounded (float): Cost of the network that the ratios round to.
        step (int): Steps that lie behind.
        steps (int): Steps of the search, width-only ones included; 0 if it
            has no length.
        loss (float, optional): The task's, of the last step.
        dropped (str): What was dropped, in words.
        decision (Decision, optional): Who decides the structure; None before
            a ratio has moved.
    """
    network: str
    space: str
    metric: str
    supernet: float
    target: float
    asked: float
    now: float
    rounded: float
    step: int
    steps: int
    loss: Optional[float] = None
    dropped: str = ''
    decision: Optional[Decision] = None

    @property
    def decides(self) -> str:
        """Who decides, in a few words."""
        return self.decision.decides if self.decision else 'nobody yet'

    def to_dict(self) -> Dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def line(self) -> str:
        """One line, for a progress bar or a log."""
        loss = '' if self.loss is None else f'loss {self.loss:.4g}  '
        return (f'{loss}{self.metric} asked {self.asked / self.supernet:.1%}  '
                f'now {self.now / self.supernet:.1%}')

    def rows(self) -> Iterator[Tuple[str, str]]:
        """Name and value of each line."""
        yield 'space', self.space
        yield self.metric, 'supernet ' + \
            f'{format_amount(self.supernet, self.metric)}, ' + \
            ', '.join(f'{name} {cost / self.supernet:.1%}'
                      for name, cost in (('target', self.target),
                                         ('asked now', self.asked),
                                         ('now', self.now),
                                         ('rounded', self.rounded)))
        yield 'step', f'{self.step:,} of {self.steps:,}' if self.steps else \
            f'{self.step:,}; it has no length yet: set_length(total_steps)'
        if self.loss is not None:
            yield 'loss', f'{self.loss:.4g}'
        if self.dropped:
            yield 'dropped', self.dropped
        yield 'decides', self.decides
        if self.decision is not None:
            yield 'figures', self.decision.text()
            for doubt in self.decision.doubts():
                yield 'doubt', doubt

    def text(self) -> str:
        """The rows, for people."""
        return '\n'.join([
            f'Search of {self.network}',
            *(f'  {name:<8} {value}' for name, value in self.rows())
        ])

    __str__ = text

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = ''.join(f'<tr><th style="text-align:left">{escape(name)}</th>'
                       f'<td style="text-align:left">{escape(value)}</td></tr>'
                       for name, value in self.rows())
        return (f'<table><caption>Search of {escape(self.network)}</caption>'
                f'{rows}</table>')


def status_of(search: Any, decision: bool = True) -> Status:
    """Where a search stands.

    Args:
        search (Search): The search.
        decision (bool): Whether to find out who decides, which takes three
            projections onto the budget.
    """
    whole = search.preflight().supernet[search.metric]
    steps = search.total_steps + search.width_only_steps
    moved = search.bank.motion.account.steps > 0
    return Status(
        network=type(search.model).__name__,
        space=repr(search.bank.layout),
        metric=search.metric,
        supernet=whole,
        target=search.target,
        asked=search.current_target if steps else whole,
        now=search.current(),
        rounded=search.current(hard=True),
        step=search.step_count,
        steps=steps,
        loss=search.watchers.loss,
        dropped=search.dropped.text(),
        decision=search.decision() if decision and moved else None)
