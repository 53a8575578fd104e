# Copyright (c) dms_razor contributors. All rights reserved.
"""Messages that several refusals share."""
import pytest

from dms_razor.errors import (SubnetError, check_number, listed, nearest,
                              refuse_beside, refuse_unknown)


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


@pytest.mark.parametrize('number, limits, span', [
    (-1, {}, r'\[0, inf\)'),
    (float('nan'), {}, r'\[0, inf\)'),
    (float('inf'), {}, r'\[0, inf\)'),
    (None, {}, r'\[0, inf\)'),
    ('1', {}, r'\[0, inf\)'),
    (0, dict(above=True), r'\(0, inf\)'),
    (1., dict(below=1), r'\[0, 1\)'),
    (0, dict(least=1), r'\[1, inf\)'),
    (2., dict(whole=True), r'\[0, inf\) and be a whole number'),
])
def test_numbers_outside_their_interval_are_named(number, limits, span):
    check_number('x', 1 if 'below' not in limits else .5, **limits)
    with pytest.raises(ValueError, match=f'x is {number!r}, it must .*{span}'):
        check_number('x', number, **limits)


def test_unknown_arguments_name_the_nearest():

    def taker(total_steps, *args, target=None, **kwargs):
        pass

    refuse_unknown('Search', ['target'], taker)
    with pytest.raises(
            TypeError,
            match='Search has no argument "total_step"; '
            'did you mean "total_steps"'):
        refuse_unknown('Search', ['target', 'total_step'], taker)
    with pytest.raises(TypeError, match='"z": it takes total_steps, target$'):
        refuse_unknown('Search', ['z'], taker)
    assert nearest('tailor', ['taylor', 'snip']) == '; did you mean "taylor"?'
    assert nearest('x', ['taylor']) == ''
