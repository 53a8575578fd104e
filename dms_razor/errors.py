# Copyright (c) dms_razor contributors. All rights reserved.
"""Errors that have a name, and common messages."""
import difflib
import inspect
from numbers import Integral, Real
from typing import Any, Callable, Dict, Iterable


class SubnetError(ValueError):
    """A subnet, manifest or checkpoint that must not be used.

    The message names the thing, the reason and the remedy. It is a
    ``ValueError``, so callers that do not know this package can catch it.
    """


class MissingPackageError(ModuleNotFoundError):
    """An optional package that what was asked for needs is not installed."""


def listed(names, limit: int = 5) -> str:
    """Join names for a message, at most ``limit`` of them.

    Args:
        names (Iterable[str]): What to list.
        limit (int): How many names are spelled out.

    Returns:
        str: ``'a, b, c and 12 more'``.
    """
    names = list(names)
    rest = len(names) - limit
    return ', '.join(names[:limit]) + f' and {rest} more' * (rest > 0)


def nearest(name: Any, known: Iterable[str]) -> str:
    """``'; did you mean "x"?'`` for a name like a known one, else ''."""
    folded = {str(each).casefold(): each for each in known}
    near = difflib.get_close_matches(str(name).casefold(), list(folded), 1)
    return f'; did you mean "{folded[near[0]]}"?' if near else ''


def refuse_unknown(owner: str, given: Iterable[str], *takers:
                   Callable) -> None:
    """Refuse arguments that nobody takes, and name the nearest.

    Args:
        owner (str): What was called, for the message.
        given (Iterable[str]): Names of its further arguments.
        *takers: Functions and classes whose arguments they may be.

    Raises:
        TypeError: None of the takers has an argument of a name.
    """
    known = [
        name for taker in takers
        for name, what in inspect.signature(taker).parameters.items()
        if what.kind not in (what.VAR_POSITIONAL, what.VAR_KEYWORD)
    ]
    for name in given:
        if name not in known:
            hint = nearest(name, known) or \
                f': it takes {", ".join(dict.fromkeys(known))}'
            raise TypeError(f'{owner} has no argument "{name}"{hint}')


def refuse_beside(owner: str, value: Any, **others: Any) -> Dict[str, Any]:
    """Refuse arguments that another one makes useless.

    Args:
        owner (str): Name of the argument that has settings of its own.
        value (Any): What was given for it, None for nothing.
        **others: Arguments that it makes useless, None for not given.

    Returns:
        dict[str, Any]: Those of the others that were given.

    Raises:
        ValueError: Both were given.
    """
    given = {name: x for name, x in others.items() if x is not None}
    if value is not None and given:
        names = ', '.join(f'{name}=' for name in given)
        raise ValueError(f'{names} would have no effect beside {owner}=, '
                         'which decides it: leave out one of them')
    return given


def check_number(name: str,
                 number: Any,
                 least: float = 0,
                 below: float = float('inf'),
                 *,
                 above: bool = False,
                 whole: bool = False) -> None:
    """Refuse what is no number of an interval, by default of [0, inf).

    Args:
        name (str): What the number is, for the message.
        number (Any): What was given.
        least (float): The least that it may be.
        below (float): What it must lie below.
        above (bool): Whether it must lie above ``least``.
        whole (bool): Whether it must be a whole number.

    Raises:
        ValueError: It is none; NaN and infinity never are.
    """
    if not (isinstance(number, Integral if whole else Real)
            and least <= number < below and not (above and number == least)):
        raise ValueError(
            f'{name} is {number!r}, it must lie in {"(" if above else "["}'
            f'{least}, {below})' + ' and be a whole number' * whole)


def check_whole(**numbers: Any) -> None:
    """Refuse what is no whole number from 0 on, by name: ValueError."""
    for name, number in numbers.items():
        check_number(name, number, whole=True)
