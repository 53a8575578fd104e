# Copyright (c) dms_razor contributors. All rights reserved.
"""Which place in a cache is whose, after layers were removed."""
from types import SimpleNamespace

import pytest
from torch import nn

from dms_razor.adapters.layer_numbers import layer_numbers
from dms_razor.subnet.slicing import replace_by_identity


class Attention(nn.Module):

    def __init__(self, number):
        super().__init__()
        self.layer_idx = number

    def forward(self, x):
        return x


class Layer(nn.Module):

    def __init__(self, number):
        super().__init__()
        self.attention, self.layer_idx = Attention(number), number

    def forward(self, x):
        return self.attention(x)


class Decoder(nn.Module):

    def __init__(self, types=None):
        super().__init__()
        self.layers = nn.ModuleList(map(Layer, range(5)))
        self.config = SimpleNamespace(layer_types=types, use_cache=True)
        self.head = nn.Linear(2, 2)

    def numbers(self):
        return [(getattr(layer, 'layer_idx', None),
                 getattr(getattr(layer, 'attention', None), 'layer_idx', None))
                for layer in self.layers]


GONE = (None, None)


@pytest.mark.parametrize('types, removed, expected', (
    (None, [], [(n, n) for n in range(5)]),
    (None, ['layers.1'], [(0, 0), GONE, (2, 2), (3, 3), (4, 4)]),
    (None, ['layers.0', 'layers.1'], [GONE, GONE, (0, 0), (3, 3), (4, 4)]),
    (None, ['layers.0.attention'], [(1, None), (0, 0), (2, 2), (3, 3),
                                    (4, 4)]),
    (['a', 'b', 'a', 'b', 'a'], ['layers.0'
                                 ], [GONE, (1, 1), (0, 0), (3, 3), (4, 4)]),
    (['a', 'b', 'a', 'b', 'a'], ['layers.0', 'layers.1'
                                 ], [GONE, GONE, (0, 0), (1, 1), (4, 4)]),
    (['a', 'b', 'b', 'b', 'b'], ['layers.0'
                                 ], [GONE, (1, 1), (2, 2), (3, 3), (4, 4)]),
))
def test_the_first_that_is_left_of_each_type_is_first(types, removed,
                                                      expected):
    model = Decoder(types)
    assert layer_numbers(model) == {n: 2 for n in range(5)}
    replace_by_identity(model, removed)
    assert model.numbers() == expected


@pytest.mark.parametrize(
    'config',
    (None, SimpleNamespace(),
     SimpleNamespace(use_cache=True, scale_attn_by_inverse_layer_idx=True)))
def test_numbers_that_are_no_places_stay(config):
    model = Decoder()
    model.config = config
    replace_by_identity(model, ['layers.0'])
    assert model.numbers() == [GONE, (1, 1), (2, 2), (3, 3), (4, 4)]
