# Copyright (c) dms_razor contributors. All rights reserved.
"""Messages that several refusals share."""
import pytest

from dms_razor.errors import SubnetError, listed, refuse_beside


@pytest.mark.parametrize('names, text', [
    ([], ''),
    ('a', 'a'),
    ('abcde', 'a, b, c, d, e'),
    ('abcdefg', 'a, b, c, d, e and 2 more'),
])
def test_listed(names, text):
    assert listed(names) == text
    assert listed(iter(names)) == text, 'of anything that can be iterated'


def test_fewer_are_spelled_out():
    assert listed('abc', limit=1) == 'a and 2 more'


def test_a_refusal_is_a_value_error():
    with pytest.raises(ValueError, match='no subnet'):
        raise SubnetError('no subnet')


def test_what_another_argument_makes_useless():
    assert refuse_beside(
        'space', None, depth=False, width=None) == {
            'depth': False
        }
    assert refuse_beside('space', object(), depth=None) == {}
    with pytest.raises(ValueError, match='depth=, width= .* beside space='):
        refuse_beside('space', object(), depth=False, width=0)
