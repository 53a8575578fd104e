# Copyright (c) dms_razor contributors. All rights reserved.
"""From what a search prefers to what is exported: rounded, and measured.

A latency that a table predicts is a promise; here it is measured, as the
table was, before anything is written. Where the two differ by more than the
tolerance, the table is scaled until they agree, the search is projected onto
its budget once more, and both networks are measured, taking turns.
"""
import os
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.budget import TargetError
from ..core.latency import latency_table, scaled
from ..core.layout import Layout
from ..core.limits import Limits
from ..core.projection import project
from ..core.steps import resolved_divisor, rounded
from ..errors import check_number
from ..network import as_arguments, map_tensors, run_model
from ..space import Space
from ..subnet.slicing import plain_copy
from ..subnet.timed import Timed, within
from .bench import Here
from .clock import Setting, TimingError
from .measure import whole_jobs

TOLERANCE = .05


@dataclass
class Chosen:
    """What is exported.

    Attributes:
        selection (Tensor): Bool ``[E]``.
        space (Space): The search's, or with a table that was scaled.
        timed (Timed, optional): Under a latency, what is known of it.
    """
    selection: Tensor
    space: Space
    timed: Optional[Timed] = None


def choose(search: Any,
           budget: float,
           measure: bool = True,
           tolerance: float = TOLERANCE,
           divisor: Union[None, int, str] = None,
           **others: Any) -> Dict[str, Any]:
    """What a search exports for a budget.

    Args:
        search (Search): The search.
        budget (float): In units of its metric.
        measure (bool): Whether a latency is measured.
        tolerance (float): Share that predicted and measured may differ by.
        divisor (int | str, optional): Widths become multiples of it; 'auto':
            of what the table of latencies shows.
        **others: Other arguments of :func:`~dms_razor.subnet.export_subnet`.

    Returns:
        dict: Its arguments.

    Raises:
        TargetError: No network meets the budget.
        ValueError: An option is unreadable.
    """
    check_number('tolerance', tolerance)
    if not isinstance(measure, bool):
        raise ValueError(f'measure={measure!r} is neither True nor False')
    layout, notes = search.space.layout, list(others.pop('notes', ()))
    if divisor is not None:
        latency = latency_table(search.space.resource)
        divisor, why = resolved_divisor(divisor, latency and latency.table)
        layout = rounded(layout, divisor)
        notes.append(f'Widths are multiples of {divisor} or whole: {why}.')
    propose = partial(projected, search, budget, layout)
    chosen = Chosen(propose(search.space), search.space)
    limit = _limit(search, budget)
    if limit is not None and latency_table(search.space.resource):
        chosen.timed = _predicted(chosen, limit, tolerance)
        chosen = _gated(search, chosen, propose, measure)
    return dict(others, **vars(chosen), notes=notes)


def _gated(search: Any, chosen: Chosen, propose: Callable[[Space], Tensor],
           measure: bool) -> Chosen:
    """Measured if it can be; a warning says if the table is too far off."""
    table = latency_table(search.space.resource).table
    reason = _refusal(table,
                      search.space) if measure else 'measure=False was given'
    if not reason:
        try:
            chosen = _measured(search, chosen, propose)
        except TimingError as error:
            reason = str(error)
    chosen.timed.reason = chosen.timed.reason or reason
    if chosen.timed.warning():
        warnings.warn(chosen.timed.warning(), stacklevel=4)
    return chosen


def projected(search: Any, budget: float, layout: Layout,
              space: Space) -> Tensor:
    """The selection that a search prefers in a budget, bool ``[E]``.

    Args:
        search, budget: As for :func:`choose`.
        layout (Layout): With the counts that units may keep.
        space (Space): With the costs.
    """
    if space is search.space and layout is space.layout:
        return search.keep(search.project(budget))
    resource, metric, limits = space.resource, search.metric, search.limits
    if limits is not None:
        amounts = {
            name: min(amount, resource.supernet(name))
            for name, amount in limits.upto(budget).items()
        }
        limits = Limits(resource, amounts)
        resource, metric, budget = limits.resource, limits.name, 1.
    kept = project(
        layout,
        resource,
        search.bank.ratios,
        metric,
        min(budget, resource.supernet(metric)),
        ranks=search.bank.ranks,
        depth_kept=search.bank.frozen_kept)
    return search.bank.hard(kept)


def _limit(search: Any, budget: float) -> Optional[float]:
    """Milliseconds that are allowed; None if latency is not limited."""
    if search.limits is not None:
        return search.limits.upto(budget).get('latency')
    return budget if search.metric == 'latency' else None


def _predicted(chosen: Chosen, limit: float, tolerance: float) -> Timed:
    """What the table says of a network, layer by layer."""
    space, selection = chosen.space, chosen.selection.cpu()
    latency = latency_table(space.resource)
    used = latency.used
    every = torch.ones_like(selection)
    before, after = (
        latency.by_layer(space.counts(one), one[used].double())
        for one in (every, selection))
    known = latency.table.get('held_out', {})
    return Timed(
        limit=limit,
        predicted=space.cost(selection, 'latency'),
        tolerance=tolerance,
        setting=latency.table['setting'],
        points={
            name: known[name]
            for name in ('measured', 'predicted') if name in known
        },
        layers={name: [before[name], after[name]]
                for name in before})


def _refusal(table: Dict[str, Any], space: Space) -> str:
    """Why this machine's times cannot be compared; empty if they can."""
    there = table['setting']
    try:
        here = Setting(there['backend'], there['threads']).describe()
    except (TimingError, ValueError) as error:
        return str(error)
    differ = [
        f'{name} {there.get(name)} there, {value} here'
        for name, value in here.items()
        if name != 'versions' and there.get(name) != value
    ] + [
        f'{name} {there["versions"].get(name)} there, {value} here'
        for name, value in here['versions'].items()
        if there['versions'].get(name) != value
    ]
    if there['threads'] > (os.cpu_count() or 1):
        differ.append(f'{there["threads"]} threads there, {os.cpu_count()} '
                      'processors here')
    if differ:
        return ('the table was measured on another machine: '
                f'{"; ".join(differ)}')
    if inputs_like(space.example_inputs, table['input']) is None:
        return (f'the table was measured with inputs of {table["input"]}, '
                'which the example inputs are not')
    return ''


def inputs_like(inputs: Tuple, shapes: List[List[int]]) -> Optional[Tuple]:
    """Example inputs in the batch size of a table; None if they differ more.

    Args:
        inputs (tuple): Tensors, or anything in one sample or batch.
        shapes (list[list[int]]): Of the tensors among them.
    """
    inputs, _ = as_arguments(inputs, run_model)
    left = list(shapes)
    taken = []
    for value in inputs:
        if not isinstance(value, Tensor):
            taken.append(value)
            continue
        shape = left.pop(0) if left else None
        if shape is None or list(value.shape[1:]) != shape[1:]:
            return None
        if list(value.shape) != shape:
            places = torch.arange(shape[0]) % max(1, len(value))
            value = value[places.to(value.device)]
        taken.append(value)
    return None if left else tuple(taken)


def _measured(search: Any, chosen: Chosen,
              propose: Callable[[Space], Tensor]) -> Chosen:
    """Measure, and correct once if the table is too far off."""
    timed = chosen.timed
    setting = timed.setting
    time = partial(_times, search,
                   Here(Setting(setting['backend'], setting['threads'])))
    found, = time([chosen.selection])
    timed.measured, timed.spread = found['ms'], found['spread']
    if within(timed.measured, timed.predicted, timed.tolerance):
        return chosen
    factor = timed.measured / timed.predicted
    space = replace(
        chosen.space, resource=scaled(chosen.space.resource, factor))
    try:
        selection = propose(space)
    except TargetError:
        timed.reason = 'with a table scaled to it no network meets the budget'
        return chosen
    if torch.equal(selection, chosen.selection):
        timed.reason = 'with a table scaled to it the network is the same'
        return chosen
    other = Chosen(selection, space)
    other.timed = _predicted(other, timed.limit, timed.tolerance)
    other.timed.factor = factor
    pair = chosen, other
    for one, found in zip(pair, time([one.selection for one in pair])):
        one.timed.measured, one.timed.spread = found['ms'], found['spread']
    best = better(*(one.timed for one in pair))
    tried = [
        dict(
            predicted=one.timed.predicted,
            measured=one.timed.measured,
            spread=one.timed.spread,
            kept=number == best) for number, one in enumerate(pair)
    ]
    pair[best].timed.tried = tried
    return pair[best]


def better(first: Timed, second: Timed) -> int:
    """Which one is exported, 0 or 1: the larger one within the limit.

    If neither is, the one that is nearer to it.
    """
    times = [one.measured for one in (first, second)]
    fits = [ms <= first.limit for ms in times]
    if any(fits):
        return max((0, 1), key=lambda i: (fits[i], times[i]))
    return min((0, 1), key=lambda i: times[i])


def _times(search: Any, bench: Here,
           selections: List[Tensor]) -> List[Dict[str, float]]:
    """Time of subnets of a search's network, as its table was measured."""
    space = search.space
    table = latency_table(space.resource).table
    plain: nn.Module = plain_copy(search.model).cpu().eval()
    _, forward = as_arguments(space.example_inputs, search.forward
                              or run_model)
    inputs = inputs_like(space.example_inputs, table['input'])
    inputs = tuple(map_tensors(lambda x: x.detach().cpu(), inputs))
    return bench(whole_jobs(plain, space, selections, inputs, forward))
