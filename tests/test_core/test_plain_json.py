# Copyright (c) dms_razor contributors. All rights reserved.
"""JSON that would end the process is refused before it is decoded."""
import json
import sys

import pytest

from dms_razor.core.plain_json import MOST_DEPTH, loads, nests_deeper


def nested(depth):
    return '[' * depth + ']' * depth


def test_what_is_json_is_read():
    for value in ({
            'a': [1, {
                'b': None
            }]
    }, [], 'text', 1.5, {
            'brackets "[[[[': '\\"[{' * 99
    }):
        assert loads(json.dumps(value)) == value
    assert loads(nested(MOST_DEPTH)) == json.loads(nested(MOST_DEPTH))


@pytest.mark.parametrize('text', [
    nested(MOST_DEPTH + 1), '[' * 100_000, '{"a":' * 100_000,
    '"' + '[' * 9 + '"' + '[' * 100_000
])
def test_what_nests_too_deep_is_not(text):
    """Whatever the recursion limit is: the decoder would take all."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        with pytest.raises(ValueError, match='deeper than 100 levels'):
            loads(text)
    finally:
        sys.setrecursionlimit(before)


def test_depth():
    assert nests_deeper('[[{', 2) and not nests_deeper('[[{', 3)
    assert not nests_deeper('[][][][]', 1)
    with pytest.raises(ValueError, match='Expecting value'):
        loads('half [')
