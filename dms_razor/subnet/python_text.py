# Copyright (c) dms_razor contributors. All rights reserved.
"""Plain values as readable Python text, the way config files are written."""
import keyword
import math
import textwrap
from typing import Any

from .errors import SubnetError

WIDTH = 79


def assignment(name: str, value: Any) -> str:
    """Write ``name = value``.

    Args:
        name (str): The variable.
        value (Any): Dicts, lists, tuples, strings, numbers, booleans, None.

    Returns:
        str: Python text, wrapped at 79 columns where lists and dicts allow.

    Raises:
        SubnetError: Something in ``value`` is none of these.
    """
    return f'{name} = {_text(value, name, 0, len(name) + 3)}'


def comment(text: str) -> str:
    """Write a comment, wrapped at 79 columns."""
    return '\n'.join(
        textwrap.wrap(
            text,
            WIDTH,
            initial_indent='# ',
            subsequent_indent='# ',
            break_long_words=False))


def _text(value: Any, where: str, indent: int, used: int) -> str:
    """Write a value on one line, or spread over several if it is too long.

    ``indent`` is that of the line the value starts on, ``used`` the columns
    of that line that are taken.
    """
    if isinstance(value, dict):
        plain = all(
            isinstance(key, str) and key.isidentifier()
            and not keyword.iskeyword(key) for key in value)
        opening, closing = ('dict(', ')') if plain else ('{', '}')
        items = [(f'{key}=' if plain else f'{_atom(key, where)}: ', part,
                  f'{where}.{key}') for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        opening, closing = '[]' if isinstance(value, list) else '()'
        items = [('', part, f'{where}[{number}]')
                 for number, part in enumerate(value)]
    else:
        return _atom(value, where)
    if isinstance(value, tuple) and len(value) == 1:
        closing = ',)'
    line = ', '.join(key + _text(part, place, 0, -10**6)
                     for key, part, place in items)
    if used + len(opening + line + closing) < WIDTH:
        return opening + line + closing
    inner = indent + 4
    lines = [
        ' ' * inner + key + _text(part, place, inner, inner + len(key))
        for key, part, place in items
    ]
    return opening + '\n' + ',\n'.join(lines) + closing


def _atom(value: Any, where: str) -> str:
    """Write a value without parts."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    # exact types: the repr of a subclass need not be Python text
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise SubnetError(
        f'{where} is a {type(value).__name__}, which cannot be written into '
        'a config as text. Name classes by their registered names, and use '
        'plain values.')
