# Copyright (c) dms_razor contributors. All rights reserved.
"""Names of what can be added from outside."""
import pytest

from dms_razor.core.registry import Registry


@pytest.fixture
def registry():
    known = Registry('colour')
    known.register('red', 'scarlet')(1)
    known.register('green')(2)
    return known


def test_one_entry_under_several_names(registry):
    assert registry.find('red') == registry.find('scarlet') == 1
    assert list(registry) == ['red', 'scarlet', 'green']


def test_register_returns_the_entry(registry):
    entry = object()
    assert registry.register('blue')(entry) is entry
    assert registry.register('blue')(entry) is entry, 'once more: the same'


def test_a_name_is_taken_once(registry):
    with pytest.raises(ValueError, match='the colour "red" is registered'):
        registry.register('red')(3)
    assert registry['red'] == 1


@pytest.mark.parametrize('name, hint', [
    ('gren', 'did you mean "green"'),
    (None, 'use one of red, scarlet, green'),
])
def test_unknown_names(registry, name, hint):
    with pytest.raises(ValueError, match=hint):
        registry.find(name)
