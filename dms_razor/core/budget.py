# Copyright (c) dms_razor contributors. All rights reserved.
"""The target of a search: how it is read, how it falls, the loss above it."""
import math
import re
from numbers import Real
from typing import Any, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor

from ..errors import check_number, refuse_beside

_POWERS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12}
_PATTERN = re.compile(
    r'\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(%|ms|[kmgt]b?)?\s*\Z',
    re.IGNORECASE)
_FORMS = ('write a fraction of the supernet (0.5 or "50%") or an absolute '
          'number ("2.0G", "350M", 4.1e9)')


class TargetError(ValueError):
    """A target that cannot be read or cannot be met."""


def parse_target(target: Union[str, float],
                 supernet: float,
                 metric: str = 'macs') -> float:
    """The absolute amount that a target asks for.

    Args:
        target (str | float): A fraction of the supernet (numbers up to 1, or
            percent) or an absolute amount (numbers above 1, or with one of
            the suffixes K, M, G, T for powers of 1,000, in any case, and a B
            for bytes; of latency, with ms).
        supernet (float): Cost of the supernet.
        metric (str): What is counted, for messages. Defaults to 'macs'.

    Returns:
        float: Absolute amount.

    Raises:
        TargetError: If the target cannot be read, is not positive or lies
            above the supernet.
    """
    shown = repr(target)
    number, suffix, unit = target, '', ''
    if isinstance(target, str):
        match = _PATTERN.match(target)
        if match is None:
            raise TargetError(f'{metric} target {shown} cannot be read: '
                              f'{_FORMS}')
        number, unit = float(match[1]), (match[2] or '').upper()
        suffix = unit.rstrip('B').replace('MS', '')
        own = 'S' if metric == 'latency' else 'B' if metric.startswith(
            ('memory', 'traffic', 'weights_')) else ''
        if unit[1:] not in ('', own):
            raise TargetError(f'{metric} target {shown} cannot be read, '
                              f'{metric} has no such unit: {_FORMS}')
    elif isinstance(target, bool) or not isinstance(target, Real):
        raise TargetError(f'{metric} target {shown} is a '
                          f'{type(target).__name__}: {_FORMS}')
    if not (math.isfinite(number) and number > 0):
        raise TargetError(f'{metric} target {shown} is not a positive '
                          f'number: {_FORMS}')
    share = number / 100 if suffix == '%' else float(number)
    whole = suffix == '%' or (suffix == '' and number <= 1 and not unit)
    amount = share * (supernet if whole else _POWERS[suffix])
    if amount > supernet:
        raise TargetError(
            f'{metric} target {shown} is {format_amount(amount, metric)}, '
            f'above the supernet\'s {format_amount(supernet, metric)}: there '
            'is nothing to prune; lower the target or take a larger supernet')
    return amount


def check_target(target: float,
                 supernet: float,
                 minimum: float,
                 metric: str = 'macs') -> None:
    """Raise if no network of the space meets ``target``.

    Args:
        target (float): Absolute amount.
        supernet, metric: See :func:`parse_target`.
        minimum (float): Cost of the smallest network in the space.

    Raises:
        TargetError: If the target lies outside [minimum, supernet].
    """
    span = (f'this space reaches from {format_amount(minimum, metric)} to '
            f'{format_amount(supernet, metric)} {metric}')
    if target < minimum:
        share = f'; a share is written "{target:g}%"' * (1 < target <= 100)
        raise TargetError(
            f'{metric} target {format_amount(target, metric)} cannot be '
            f'reached, {span}: raise the target, or let more be pruned (fewer '
            f'fixed units, lower "least", a smaller "divisor"){share}')
    if target > supernet:
        raise TargetError(
            f'{metric} target {format_amount(target, metric)} lies above the '
            f'supernet, {span}: lower the target or take a larger supernet')


def format_amount(amount: float, metric: str = '') -> str:
    """``amount`` for people, four digits: '4.089 G', '350 M', '512', and with
    its unit where a metric has one: '3.2 ms'."""
    if metric == 'latency':
        return f'{amount:.4g} ms'
    for suffix in 'TGMK':
        if abs(amount) >= _POWERS[suffix]:
            return f'{amount / _POWERS[suffix]:.4g} {suffix}'
    return f'{amount:.4g}'


def metric_asked(target: Any, metric: Optional[str],
                 constraints: Optional[Mapping]) -> str:
    """The one metric that a target limits, 'macs' if nothing is said.

    Args:
        target (Any): Of that metric. 0.5, the default of a search, cannot be
            told from one that was not given.
        metric (str, optional): Its name.
        constraints (Mapping, optional): In place of both, the targets of
            several metrics.

    Raises:
        ValueError: If nothing is asked, or both ways at once.
    """
    refuse_beside(
        'constraints',
        constraints,
        metric=metric,
        target=None if target == .5 else target)
    if target is None and not constraints:
        raise ValueError(
            'a search needs a target, such as 0.5, "50%" or "2.0G", or '
            'constraints with one for each metric')
    return metric or 'macs'


class TargetSchedule:
    """``r_t(e) = r_0·(r_target / r_0)^(e / E)`` (paper, equation 10).

    Steps may be iterations or epochs, and count from 0. During a warm-up,
    while importances settle, the target stays at its start; then it falls, by
    default (paper) until the search proper ends, or in the first part of it,
    and stays at its end.

    Args:
        start (float): r_0, cost of the supernet.
        target (float): r_target, cost to reach, same unit.
        total (int): Length of the search proper, warm-up included (DeiT's 30
            epochs in the paper).
        warmup (int): Length of the warm-up (DeiT's 20). Defaults to 0.
        fall (float): Share of what follows the warm-up in which the target
            falls, in (0, 1]. Defaults to 1.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self,
                 start: float,
                 target: float,
                 total: int,
                 warmup: int = 0,
                 fall: float = 1.) -> None:
        check_fall(fall)
        if not 0 < target <= start < float('inf'):
            raise ValueError(
                f'the target is to fall from {start} to {target}: both must '
                'be positive and the target not above the start')
        if not 0 <= warmup < total:
            raise ValueError(
                f'a search of {total} steps with {warmup} steps of warm-up '
                'leaves no step to fall in; make total larger than warmup, '
                'and warmup not negative')
        self.start, self.target = float(start), float(target)
        self.total, self.warmup, self.fall = total, warmup, fall
        self.landing = total if fall == 1 else warmup + fall * (total - warmup)

    def __call__(self, step: float) -> float:
        """Target at ``step``, counted from 0; exact at both ends."""
        if step <= self.warmup:
            return self.start
        if step >= self.landing:
            return self.target
        progress = (step - self.warmup) / (self.landing - self.warmup)
        return self.start * (self.target / self.start)**progress

    def __repr__(self) -> str:
        return (f'TargetSchedule({self.start:g} -> {self.target:g}, '
                f'total={self.total}, warmup={self.warmup}, fall={self.fall})')


def no_schedule(step: float) -> float:
    """The schedule of a search that has no length yet: an error."""
    raise RuntimeError('this search has no length yet, so that its target '
                       'cannot fall: give total_steps, or call set_length '
                       'before the loop')


def check_fall(fall: float) -> float:
    """``fall``, or ValueError if it lies outside (0, 1]."""
    check_number('fall', fall, above=True)
    if fall > 1:
        raise ValueError(f'fall is {fall}, it is the share of the search in '
                         'which the target falls: give at most 1')
    return fall


def check_shares(fall: float, harden: float) -> Tuple[float, float]:
    """Both; or ValueError if one is no such share of a search.

    ``harden`` is in [0, 1]: the last steps, with hard masks.
    """
    check_number('harden', harden)
    if harden > 1:
        raise ValueError(f'harden is {harden}, it is the share of the search '
                         'in which the network runs with hard masks: give at '
                         'most 1')
    return check_fall(fall), harden


AUTO = 'auto'  # as a setting: the search works it out
FALL = 1 / 3  # default share of a search in which its target falls
HARDEN = .1  # default share of a search that runs with hard masks


def check_weight(weight: Union[float, str]) -> Union[float, str]:
    """λ_res, unless it is below 0 or neither a number nor 'auto'.

    Raises:
        ValueError: It is: the search would run away from its target.
    """
    if weight != AUTO:
        check_number('loss_weight, unless it is "auto",', weight)
    return weight


def constraint_loss(current: Tensor,
                    target: float,
                    weight: Union[float, str] = 1.) -> Tensor:
    """λ_res·L_res: ``log(current / target)`` above the target, else 0.

    Paper, equations 5 to 7. The loss pulls the network down to the target and
    never pushes it up. Its gradient ``1 / current`` depends on the relative
    size of a change only, so one weight serves networks of any size.

    Args:
        current (Tensor): Cost of the network, a positive scalar or ``[...]``.
        target (float): What it may be at most, positive, same unit.
        weight (float | str): λ_res; with 'auto', where each step finds it,
            the loss is shown as with 1. Defaults to 1.

    Returns:
        Tensor: Loss of the shape of ``current``, differentiable in it.

    Raises:
        ValueError: If the target is not positive.
    """
    if not target > 0:
        raise ValueError(f'the resource target is {target}, it must be '
                         'positive')
    # Strictly above: at the start the network lies exactly on its target.
    excess = torch.where(current > target, current / target, 1.)
    return (1. if weight == AUTO else weight) * torch.log(excess)
