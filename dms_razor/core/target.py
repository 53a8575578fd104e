# Copyright (c) dms_razor contributors. All rights reserved.
"""Reading a resource target: ``0.5``, ``'50%'``, ``'2.0G'`` or ``4.1e9``."""
import math
import re
from numbers import Real
from typing import Union

_POWERS = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12}
_PATTERN = re.compile(
    r'\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(%|[kmgt])?\s*\Z',
    re.IGNORECASE)
_FORMS = ('write a fraction of the supernet (0.5 or "50%") or an absolute '
          'number ("2.0G", "350M", 4.1e9)')


class TargetError(ValueError):
    """A target that cannot be read or cannot be met."""


def parse_target(target: Union[str, float],
                 supernet: float,
                 metric: str = 'macs') -> float:
    """The absolute figure that a target asks for.

    Args:
        target (str | float): A fraction of the supernet (numbers up to 1, or
            percent) or an absolute figure (numbers above 1, or with one of
            the suffixes K, M, G, T for powers of 1,000, in any case).
        supernet (float): Figure of the supernet.
        metric (str): What is counted, for messages. Defaults to 'macs'.

    Returns:
        float: Absolute figure.

    Raises:
        TargetError: If the target cannot be read, is not positive or lies
            above the supernet.
    """
    shown = repr(target)
    if isinstance(target, str):
        match = _PATTERN.match(target)
        if match is None:
            raise TargetError(f'{metric} target {shown} cannot be read: '
                              f'{_FORMS}')
        number, suffix = float(match[1]), (match[2] or '').upper()
    elif isinstance(target, Real) and not isinstance(target, bool):
        number, suffix = float(target), ''
    else:
        raise TargetError(f'{metric} target {shown} is a '
                          f'{type(target).__name__}: {_FORMS}')
    if not (math.isfinite(number) and number > 0):
        raise TargetError(f'{metric} target {shown} is not a positive '
                          f'number: {_FORMS}')
    if suffix == '%':
        figure = number / 100 * supernet
    elif suffix == '' and number <= 1:
        figure = number * supernet
    else:
        figure = number * _POWERS[suffix]
    if figure > supernet:
        raise TargetError(
            f'{metric} target {shown} is {format_amount(figure)}, above the '
            f'supernet\'s {format_amount(supernet)}: there is nothing to '
            'prune; lower the target or take a larger supernet')
    return figure


def check_target(target: float,
                 supernet: float,
                 minimum: float,
                 metric: str = 'macs') -> None:
    """Raise if no network of the space meets ``target``.

    Args:
        target (float): Absolute figure, see :func:`parse_target`.
        supernet (float): Figure of the supernet.
        minimum (float): Figure of the smallest network in the space.
        metric (str): What is counted, for messages. Defaults to 'macs'.

    Raises:
        TargetError: If the target lies outside [minimum, supernet].
    """
    span = (f'this space reaches from {format_amount(minimum)} to '
            f'{format_amount(supernet)} {metric}')
    if target < minimum:
        raise TargetError(
            f'{metric} target {format_amount(target)} cannot be reached, '
            f'{span}: raise the target, or let more be pruned (fewer fixed '
            'units, lower "least", a smaller "divisor")')
    if target > supernet:
        raise TargetError(
            f'{metric} target {format_amount(target)} lies above the '
            f'supernet, {span}: lower the target or take a larger supernet')


def format_amount(figure: float) -> str:
    """``figure`` for people, four digits: '4.089 G', '350 M', '512'."""
    for suffix in 'TGMK':
        if abs(figure) >= _POWERS[suffix]:
            return f'{figure / _POWERS[suffix]:.4g} {suffix}'
    return f'{figure:.4g}'
