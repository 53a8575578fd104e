# Copyright (c) dms_razor contributors. All rights reserved.
"""Slim forms: found by module and name, made in place, refused elsewhere."""
import copy
import pickle

import pytest
import torch
from torch import nn

from dms_razor.adapters import registry
from dms_razor.adapters.registry import (RemovedBlock, make_slim,
                                         register_slim, slim_class, slim_name)
from dms_razor.masking.layers import LayerMasks, masked_type


class Twice(nn.Module):
    """A standard class."""

    def __init__(self):
        super().__init__()
        self.layer, self.number = nn.Linear(2, 2), 2

    def forward(self, x):
        return self.number * self.layer(x)


class SlimTwice:

    def _dms_setup(self):
        self.own = self.number

    def forward(self, x):
        return self.own * self.layer(x)


@pytest.fixture
def known(monkeypatch):
    """``SlimTwice`` is the slim form of ``Twice``, for one test."""
    monkeypatch.setattr(registry, '_SLIM', {})
    monkeypatch.setattr(registry, '_TYPES', {})
    assert register_slim(__name__, 'Twice')(SlimTwice) is SlimTwice


def test_a_layer_becomes_slim_in_place(known):
    layer, x = Twice(), torch.randn(3, 2)
    expected, parameters = layer(x), list(layer.parameters())
    assert slim_class(layer) is SlimTwice and slim_name(layer) == 'Twice'
    assert make_slim(layer, 'Twice') is layer
    assert isinstance(layer, Twice) and type(layer).__name__ == 'SlimTwice'
    assert all(a is b for a, b in zip(layer.parameters(), parameters))
    assert torch.equal(layer(x), expected)
    layer.own = 3
    torch.testing.assert_close(layer(x), 1.5 * expected)
    assert make_slim(layer, 'Twice').own == 3, 'it is slim already'


@pytest.mark.parametrize('name', ['Thrice', 'Linear'])
def test_another_name_is_refused(name, known):
    for layer in (Twice(), nn.Linear(2, 2)):
        with pytest.raises(ValueError, match=f'cannot become a slim "{name}"'):
            make_slim(layer, name)


def test_a_slim_layer_can_be_pickled(known):
    layer, x = make_slim(Twice(), 'Twice'), torch.randn(3, 2)
    layer.own = 3
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert type(again) is type(layer) and again.own == 3
        assert again.layer.weight is not layer.layer.weight
        assert torch.equal(again(x), layer(x))


def test_so_can_one_that_is_searched_again(known):
    """A masked class of a slim one is made on the fly as well."""
    layer, x = make_slim(Twice(), 'Twice'), torch.randn(3, 2)
    slim, expected = type(layer), layer(x)
    layer._dms_masks, layer._dms_shown = LayerMasks(lambda: None), None
    layer.__class__ = masked_type(layer, ('weight', ))
    again = copy.deepcopy(layer)
    assert type(again) is type(layer) is not slim
    assert torch.equal(again(x), expected)
    with pytest.warns(UserWarning, match='being searched'):
        saved = pickle.dumps(layer)
    again = pickle.loads(saved)
    assert type(again) is slim and not hasattr(again, '_dms_masks')
    assert torch.equal(again(x), expected)


def test_a_class_of_the_same_name_elsewhere_has_none(known):
    other = type('Twice', (Twice, ), dict(__module__='elsewhere'))
    assert slim_class(other()) is slim_name(other()) is None


def test_a_removed_block_returns_its_first_input():
    x = torch.randn(2)
    assert RemovedBlock()(x, torch.ones(2), mask=None) is x
