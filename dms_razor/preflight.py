# Copyright (c) dms_razor contributors. All rights reserved.
"""What a search can do, said before it starts.

:func:`preflight` looks at a traced network and answers, without training:
how many ratios there are and over how many elements, what the supernet and
the smallest network of the space cost, whether a target lies between the two,
about how many steps the search needs to get there, and which modules keep
their full width and why.
"""
import json
from dataclasses import asdict, dataclass, field
from typing import (Any, Callable, Dict, Iterator, List, Mapping, Optional,
                    Tuple, Union)

from torch import Tensor

from .core.budget import (AUTO, TargetError, check_target, format_amount,
                          parse_target)
from .core.decision import SETTLED
from .core.descent import descend
from .core.layout import KINDS
from .core.limits import Limits
from .core.resource import ResourceModel
from .core.selectors import Selector
from .space import Space

Target = Union[str, float]


class PreflightError(ValueError):
    """A search that cannot start; ``report`` is its pre-flight."""

    def __init__(self, report: 'Preflight') -> None:
        super().__init__(report.problem)
        self.report = report


@dataclass
class Preflight:
    """The answers of :func:`preflight`.

    Args:
        metric (str): What the target limits, e.g. ``'macs'``.
        kinds (dict): ``{kind: {'units': …, 'elements': …}}`` over the units
            whose ratio can move; ``'width'`` and ``'depth'`` are always there.
        supernet (dict): Cost of the whole network by metric.
        minimum (dict): Cost of the smallest network of the space by metric.
        target (float, optional): The target in units of ``metric``.
        full_width (list[dict]): ``{'module', 'reason'}`` of what is not
            pruned.
        problem (str, optional): Why a search cannot start; None when it can.
        steps (int, optional): About how many ratio updates the target needs;
            None when no target is given or when it is not in sight.
        total_steps (int, optional): How many updates the search has.
        lr (float | str): Step size of the ratios that ``steps`` assumes.
        exact (bool): Whether each step meets the target by itself, so that
            ``steps`` has no meaning.
        resource_only (Tensor, optional): Pruning ratios to which the resource
            alone leads, see :mod:`dms_razor.core.descent`.
        samples (int): Samples in the example input; costs are of one.
        input_shape (tuple[int]): Shape of the first tensor in it.
        training (str): What was seen of train mode, in words.
        proof (str): What the self-check has shown, in words.
        limits (Limits, optional): In place of one target, several; ``metric``
            is their tightness then, and ``target`` 1.
        taken (dict): Share of each limit that the network takes which meets
            all of them and is narrowed evenly.
    """
    metric: str
    kinds: Dict[str, Dict[str, int]]
    supernet: Dict[str, float]
    minimum: Dict[str, float]
    target: Optional[float] = None
    full_width: List[Dict[str, str]] = field(default_factory=list)
    problem: Optional[str] = None
    steps: Optional[int] = None
    total_steps: Optional[int] = None
    lr: Union[float, str] = AUTO
    exact: bool = False
    resource_only: Optional[Tensor] = None
    samples: int = 1
    input_shape: Tuple[int, ...] = ()
    training: str = ''
    proof: str = 'none'
    limits: Optional[Limits] = None
    taken: Dict[str, float] = field(default_factory=dict)

    @property
    def ratios(self) -> int:
        """Learnable scalars of the search, one for each unit."""
        return sum(kind['units'] for kind in self.kinds.values())

    @property
    def elements(self) -> int:
        """Elements that can be removed, over all kinds of units."""
        return sum(kind['elements'] for kind in self.kinds.values())

    def check(self) -> 'Preflight':
        """Return self, or raise what stands against a search.

        Raises:
            PreflightError: If nothing can be pruned or the target is
                unreadable, above the supernet, or below the smallest network.
        """
        if self.problem is not None:
            raise PreflightError(self)
        return self

    def amount(self, target: Union[str, float]) -> float:
        """A target in units of the metric.

        Raises:
            TargetError: If it is unreadable or out of reach.
        """
        whole = self.supernet[self.metric]
        amount = parse_target(target, whole, self.metric)
        check_target(amount, whole, self.minimum[self.metric], self.metric)
        return amount

    def aim(self, target: Target) -> None:
        """Take in the target; TargetError as for :meth:`amount`."""
        whole = self.supernet[self.metric]
        self.target = parse_target(target, whole, self.metric)
        check_target(self.target, whole, self.minimum[self.metric],
                     self.metric)

    def to_dict(self) -> Dict[str, Any]:
        """The report as plain data, the content of the JSON."""
        amounts = self.amounts
        costs = {
            metric:
            dict(
                supernet=self.supernet[metric],
                minimum=self.minimum[metric],
                target=amounts.get(metric))
            for metric in self._listed
        }
        return dict(
            ratios=self.ratios,
            elements=self.elements,
            **{
                kind: self.kinds.get(kind, dict(units=0, elements=0))
                for kind in KINDS
            },
            **costs,
            metric=self.metric,
            reachable=self.problem is None,
            problem=self.problem,
            steps=self.steps,
            total_steps=self.total_steps,
            training=self.training,
            proof=self.proof,
            full_width=self.full_width)

    @property
    def amounts(self) -> Dict[str, float]:
        """What each metric may cost at most."""
        if self.limits is not None:
            return self.limits.amounts
        return {} if self.target is None else {self.metric: self.target}

    @property
    def _listed(self) -> List[str]:
        """Metrics without the tightness."""
        hidden = self.limits and self.limits.name
        return [metric for metric in self.supernet if metric != hidden]

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def text(self) -> str:
        """The report as a table for people."""
        rows = list(self._rows())
        wide = max(len(name) for name, _ in rows)
        lines = ['Pre-flight of the search space']
        lines += [f'  {name:<{wide}}  {value}' for name, value in rows]
        if self.full_width:
            lines.append(f'  at full width ({len(self.full_width)}):')
            lines += [
                f'    {item["module"]}: {item["reason"]}'
                for item in self.full_width
            ]
        return '\n'.join(lines)

    __str__ = text

    def _rows(self) -> Iterator[Tuple[str, str]]:
        """Name and value of each line of the table."""
        yield 'ratios', f'{self.ratios:,}'
        yield 'elements', f'{self.elements:,}'
        for kind, count in self.kinds.items():
            yield (f'  {kind}', f'{count["units"]:,} units, '
                   f'{count["elements"]:,} elements')
        if self.input_shape[:1] not in ((), (1, )):
            shape = '×'.join(map(str, self.input_shape))
            yield ('samples', f'{self.samples} in the example input of '
                   f'{shape}; costs are of one')
        for metric in self._listed:
            whole, least = self.supernet[metric], self.minimum[metric]
            yield (
                metric, f'supernet {format_amount(whole, metric)}, smallest '
                f'{format_amount(least, metric)} ({least / (whole or 1.):.1%})'
            )
        if self.training:
            yield 'training', self.training
        yield 'proof', self.proof
        for metric, amount in self.amounts.items():
            share = amount / self.supernet[metric]
            taken = self.taken.get(metric)
            binds = '' if taken is None else (
                ', binds' if taken == max(self.taken.values()) else
                f', {taken:.1%} of it taken where the others bind')
            yield ('target', f'{format_amount(amount, metric)} {metric} '
                   f'({share:.1%} of the supernet){binds}')
        if self.problem is not None:
            yield 'reachable', f'no: {self.problem}'
        elif self.target is not None:
            yield 'reachable', 'yes'
            yield 'steps', self._advice()

    def _hint(self) -> str:
        """What speaks against the length of the search; often nothing."""
        if self.total_steps is None or self.total_steps >= SETTLED:
            return ''
        return (f'{self.total_steps} are few: importances average over about '
                f'{SETTLED}, so the structure will be decided by chance; '
                'search longer')

    def _advice(self) -> str:
        """How many steps the target takes, and what to do if too many."""
        if self.exact:
            return self._hint() or ('each step meets the target that the '
                                    'schedule has reached')
        if self.lr == AUTO:
            return 'as many as the gradients of the task allow'
        if self.steps is None:
            return ('the ratios alone do not get there; the projection at '
                    'export will')
        text = (f'about {self.steps:,} with an lr of {self.lr:g}, by the '
                'resource loss alone')
        if self.total_steps is not None and self.steps > self.total_steps:
            lr = self.lr * self.steps / max(1, self.total_steps)
            text += (f'; the search has {self.total_steps:,}: if it lags '
                     f'behind the target, try an lr of about {lr:.1g}')
        return text


def _kinds(space: Space) -> Dict[str, Dict[str, int]]:
    """Units that can change, and their elements, by kind."""
    moving = [u for u in space.layout.units if u.least < u.most]
    kinds = dict.fromkeys(['width', 'depth', *(unit.kind for unit in moving)])
    return {
        kind:
        dict(
            units=sum(u.kind == kind for u in moving),
            elements=sum(u.elements for u in moving if u.kind == kind))
        for kind in kinds
    }


def preflight(space: Space,
              target: Union[None, str, float] = None,
              metric: str = 'macs',
              constraints: Optional[Mapping[str, Target]] = None,
              *,
              lr: Union[float, str] = AUTO,
              loss_weight: Union[float, str] = AUTO,
              total_steps: Optional[int] = None,
              selector: Union[str, Callable, Selector] = 'dms') -> Preflight:
    """Describe a search space and say whether a target can be reached in it.

    Args:
        space (Space): What :func:`dms_razor.trace` returned.
        target (str | float, optional): See :func:`.parse_target`.
        metric (str): What it limits; :data:`dms_razor.core.METRICS`.
        constraints (Mapping, optional): In place of both, the target of each
            of several metrics, e.g. ``dict(macs='50%', params='2M')``.
        lr (float | str): Step size of the ratios.
        loss_weight (float | str): λ_res, or 'auto'.
        total_steps (int, optional): Ratio updates that the search has.
        selector (str | Callable | Selector): What the search learns.

    Returns:
        Preflight: The report. A target that cannot be met is told in its
        ``problem``; :meth:`Preflight.check` raises it.

    Raises:
        ValueError: If there is no such metric.
    """
    resource = space.resource
    for each in constraints or (metric, ):
        resource.costs_of(each)  # refuses what is not known
    report = Preflight(
        metric=metric,
        kinds=_kinds(space),
        supernet={m: resource.supernet(m)
                  for m in resource.metrics},
        minimum={m: resource.minimum(m)
                 for m in resource.metrics},
        full_width=[asdict(item) for item in space.full_width],
        total_steps=total_steps,
        lr=lr,
        exact=loss_weight == AUTO,
        samples=space.batch_size,
        input_shape=space.input_shape,
        training=space.training,
        proof=space.proof.text() if space.proof else 'none')
    if report.ratios == 0:
        report.problem = _nothing(report)
    elif target is not None or constraints is not None:
        try:
            if constraints is not None:
                resource = _limit(report, resource, constraints)
            else:
                report.aim(target)
            _descend(report, resource, loss_weight, selector)
        except TargetError as error:
            report.problem = str(error)
    return report


def _nothing(report: Preflight) -> str:
    """Why nothing can be pruned."""
    reasons = '; '.join(f'{item["module"]}: {item["reason"]}'
                        for item in report.full_width[:3])
    return ('nothing in this network can be pruned'
            f'{" (" + reasons + ")" if reasons else ""}; allow width or depth '
            'and free some units of `units`, or search another network')


def _limit(report: Preflight, resource: ResourceModel,
           constraints: Mapping[str, Target]) -> ResourceModel:
    """Take several targets into a report; the resource that knows them.

    Raises:
        TargetError: If one is unreadable or out of reach, or all of them
            cannot be met together; all are named.
    """
    amounts = {}
    for metric, target in constraints.items():
        try:
            amounts[metric] = parse_target(target, report.supernet[metric],
                                           metric)
            check_target(amounts[metric], report.supernet[metric],
                         report.minimum[metric], metric)
        except TargetError as error:
            others = ' and '.join(f'{m} {t!r}' for m, t in constraints.items()
                                  if m != metric)
            beside = f' (asked together with {others})' if others else ''
            raise TargetError(f'{error}{beside}') from None
    limits = Limits(resource, amounts)
    limits.check()
    resource, name = limits.resource, limits.name
    report.limits, report.metric, report.target = limits, name, 1.
    report.supernet[name] = resource.supernet(name)
    report.minimum[name] = resource.minimum(name)
    report.taken = limits.taken_evenly()
    return resource


def _descend(report: Preflight, resource: ResourceModel,
             loss_weight: Union[float, str],
             selector: Union[str, Callable, Selector]) -> None:
    """Where the resource alone leads, and in how many steps."""
    known = AUTO not in (report.lr, loss_weight)
    steps, report.resource_only = descend(
        resource.layout,
        resource,
        report.metric,
        report.target,
        speed=report.lr * loss_weight if known else 1e-3,
        selector=selector)
    report.steps = steps if known else None


def steps_to_target(
        space: Space,
        target: float,
        metric: str = 'macs',
        lr: float = 5e-3,
        loss_weight: float = 1.,
        selector: Union[str, Callable, Selector] = 'dms') -> Optional[int]:
    """About how many ratio updates lead from the supernet to the target.

    Of the resource loss alone, see :func:`.core.descent.descend`: the task's
    gradient mostly holds against it, but an untrained network may need half
    as many.

    Returns:
        int | None: None if the ratios come to rest before the target or it is
        not in sight after a million steps.
    """
    return descend(
        space.layout,
        space.resource,
        metric,
        target,
        speed=lr * loss_weight,
        selector=selector).steps
