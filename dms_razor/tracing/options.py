# Copyright (c) dms_razor contributors. All rights reserved.
"""What users can say about units by name pattern."""
from fnmatch import fnmatchcase
from typing import Dict, Tuple

from ..core.layout import Unit

OPTIONS = ('fixed', 'divisor', 'least', 'most', 'choices')


def matches(name: str, pattern: str) -> bool:
    """Whether a name is meant: as in fnmatch, or letter by letter.

    Names of units may hold brackets, as in ``stem[1]``.
    """
    return name == pattern or fnmatchcase(name, pattern)


def check_options(units: Dict[str, dict]) -> Dict[str, dict]:
    """Check the options of units; see :func:`dms_razor.trace`.

    Raises:
        TypeError: Options are no dict, or ``fixed`` is no bool.
        ValueError: An option is unknown or no positive whole number.
    """
    if not isinstance(units, dict):
        raise TypeError(
            f'units is {units!r}; give a dict of name patterns and options, '
            "e.g. {'*.conv1': dict(divisor=8)}. On a command line: "
            '--cfg-options model.mutator.units.NAME.divisor=8')
    for pattern, options in units.items():
        if not isinstance(options, dict):
            raise TypeError(f'units["{pattern}"] is {options!r}; give a dict '
                            'of options, e.g. dict(fixed=True)')
        for key, value in options.items():
            if key not in OPTIONS:
                raise ValueError(
                    f'units["{pattern}"] has the unknown option "{key}"; use '
                    f'{", ".join(OPTIONS)}')
            whole = type(value) is int and value >= (key != 'least')
            if key == 'choices' and not (isinstance(value, (list, tuple))
                                         and value and all(
                                             type(n) is int and n >= 0
                                             for n in value)):
                raise ValueError(
                    f'units["{pattern}"]: choices={value!r} is no list of the '
                    'channels, heads or blocks that may be kept')
            if key == 'fixed' and not isinstance(value, bool):
                raise TypeError(f'units["{pattern}"]: fixed={value!r} is '
                                'neither True nor False')
            if key not in ('choices', 'fixed') and not whole:
                raise ValueError(f'units["{pattern}"]: {key}={value!r} is no '
                                 'positive whole number')
    return units


def make_unit(name: str, kind: str, size: int, groups: int, step: int,
              options: dict, members: Tuple[str, ...]) -> Unit:
    """A unit of ``size`` channels a group with the user's bounds.

    Raises:
        ValueError: A bound is no multiple of the step.
    """
    bounds = {}
    for key in ('least', 'most'):
        bound = options.get(key)
        if bound is not None and bound % step:
            raise ValueError(f'unit "{name}": {key}={bound} channels are no '
                             f'multiple of its step {step}')
        bounds[key] = None if bound is None else bound // step
    choices = options.get('choices')
    if choices is not None:
        odd = [choice for choice in choices if choice % step]
        if odd:
            raise ValueError(f'unit "{name}": the choice of {odd[0]} channels '
                             f'is no multiple of its step {step}')
        bounds['choices'] = tuple(choice // step for choice in choices)
    return Unit(
        name, kind, size // step, groups, step, members=members, **bounds)
