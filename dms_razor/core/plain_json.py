# Copyright (c) dms_razor contributors. All rights reserved.
"""JSON from anywhere: text that Python's own decoder can be given."""
import json
import re
from typing import Any

#: How deep objects and lists of a file may nest.
MOST_DEPTH = 100


def nests_deeper(text: str, most: int = MOST_DEPTH) -> bool:
    """Whether objects and lists of a JSON text nest deeper.

    A recursion limit that somebody has raised (some packages do, when they are
    imported) would let Python's decoder run out of the stack, which ends the
    process.

    Args:
        text (str): The text, JSON or not.
        most (int): Of how deep they may.
    """
    depth = 0
    for bracket in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        depth += {'[': 1, '{': 1, ']': -1, '}': -1}.get(bracket[0], 0)
        if depth > most:
            return True
    return False


def loads(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: It is none, or nests too deep.
    """
    if nests_deeper(text):
        raise ValueError(f'it nests deeper than {MOST_DEPTH} levels')
    return json.loads(text)
