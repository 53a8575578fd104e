# Copyright (c) dms_razor contributors. All rights reserved.
"""Calls of reshape that look up their sizes: which, and what they then do."""
import copy
import pickle
import sys

import pytest
import torch
from torch import nn

from dms_razor.adapters.registry import make_slim
from dms_razor.adapters.reshaping import RESHAPED, reshaped_type, site_of

SEEN = []


class Seen(torch.Tensor):
    """Notes where it is reshaped from."""

    def reshape(self, *sizes):
        SEEN.append(site_of(sys._getframe(1)))
        return torch.Tensor.reshape(self.as_subclass(torch.Tensor),
                                    *sizes).as_subclass(Seen)

    view = reshape


class Shapes(nn.Module):
    """Two calls on one line, one over several, one with a tuple."""

    def forward(self, x, less=1):
        n, c = x.shape
        a = x.reshape(n, c - less + 1).reshape(c, n)
        return self.other(a.sin().reshape(2, -1)), a.view((n, c))

    def other(self, x):
        return x.reshape(x.shape)


def test_calls_are_told_by_their_place():
    SEEN.clear()
    Shapes()(torch.randn(2, 6).as_subclass(Seen))
    assert [site.call for site in SEEN] == [
        'forward_0', 'forward_1', 'forward_2', 'other_0', 'forward_3'
    ]
    assert all(isinstance(site.module, Shapes) for site in SEEN)
    outside = torch.randn(4).as_subclass(Seen)
    outside.reshape(2, 2)
    assert SEEN[-1] is None


def test_calls_look_up_what_is_known():
    module, x = Shapes(), torch.randn(2, 6)
    expected = module(x)
    make_slim(module, RESHAPED)
    assert isinstance(module, Shapes) and make_slim(module, RESHAPED) is module
    for a, b in zip(module(x), expected):
        assert torch.equal(a, b)
    module.dms_size_forward_1_0, module.dms_size_forward_1_1 = 4, 3
    module.dms_size_forward_3_0 = 3
    module.dms_size_forward_3_1 = 4
    other, last = copy.deepcopy(module)(x)
    assert torch.equal(other, x.reshape(4, 3).sin().reshape(2, -1))
    assert torch.equal(last, x.reshape(3, 4))
    assert module.dms_size_other_0_0 == sys.maxsize, 'not set'
    with pytest.raises(AttributeError):
        module.nothing_of_the_kind


def test_a_module_can_be_written_down():
    """torch.export and torch.jit.trace see ordinary reshapes."""
    module, x = make_slim(Shapes(), RESHAPED), torch.randn(2, 6)
    module.dms_size_forward_1_0, module.dms_size_forward_1_1 = 4, 3
    expected = module(x)
    for other in (torch.export.export(module, (x, )).module(),
                  torch.jit.trace(module,
                                  x), pickle.loads(pickle.dumps(module))):
        for a, b in zip(other(x), expected):
            assert torch.equal(a, b)


def test_code_that_cannot_be_rewritten_stays():

    class Parent(nn.Module):

        def forward(self, x):
            return x.reshape(-1)

    class Child(Parent):

        def forward(self, x):
            return super().forward(x.reshape(1, -1))  # needs its own class

    class Others(nn.Module):

        def forward(self, x, __private=None):
            return self.__own(torch.reshape(x, (1, -1)).reshape(2, -1))

        def __own(self, x):
            return x

        @staticmethod
        def helper(x):
            return x.view(-1)

    kind = reshaped_type(Child)
    assert 'forward' not in vars(kind)
    x = torch.randn(2, 3)
    assert torch.equal(kind()(x), x.reshape(-1))
    assert torch.equal(reshaped_type(Others)()(x), x)
    assert reshaped_type(Parent).forward.__defaults__ is None
