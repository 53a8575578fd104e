# Copyright (c) dms_razor contributors. All rights reserved.
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn import functional as F

from dms_razor.network import tensors_of
from dms_razor.tracing.record import OpCall, op_name


@pytest.mark.parametrize('func,name', [
    (torch.add, 'add'),
    (torch.Tensor.__iadd__, 'add'),
    (torch.Tensor.__radd__, 'add'),
    (torch.Tensor.add_, 'add'),
    (torch.Tensor.__rtruediv__, 'reciprocal'),
    (torch.Tensor.__rpow__, 'pow'),
    (torch.Tensor.__invert__, 'bitwise_not'),
    (torch.Tensor.__and__, 'bitwise_and'),
    (torch.concat, 'cat'),
    (torch.Tensor.__setitem__, 'setitem'),
    (torch.Tensor.T.__get__, 'T'),
    (F.relu, 'relu'),
    (torch.relu_, 'relu'),
    (torch.ops.aten.relu.default, 'relu'),
    (torch.ops.aten.relu, 'relu'),
    (torch.swapaxes, 'transpose'),
])
def test_op_name(func, name):
    assert op_name(func) == name


@dataclass
class Result:
    """What some networks return."""
    scores: torch.Tensor
    more: object = None


def test_tensors_of_whatever_a_network_returns():
    a, b, c, d = (torch.full((), float(i)) for i in range(4))
    sample = BaseDataElement(feature=d)
    found = tensors_of((a, [dict(x=b), None], Result(c, more='text'),
                        OrderedDict(y=(sample, )), nn.Linear(2, 2), 3))
    assert [float(t) for t in found] == [0, 1, 2, 3]


def test_tensors_of_something_that_holds_itself():
    a = torch.ones(1)
    loop = [a]
    loop.append(loop)
    assert tensors_of(loop) == [a]


def test_arguments_by_position_and_by_name():
    call = OpCall(torch.add, 'add', (1, 2), dict(alpha=3), [], [])
    assert call.argument(1, 'other') == 2
    assert call.argument(2, 'alpha') == 3
    assert call.argument(3, 'out', 'none') == 'none'


def test_numpys_name_of_a_dimension():
    """``torch.cat(x, axis=1)`` is allowed, and used in mmyolo's PPYOLOE."""
    call = OpCall(torch.cat, 'cat', ([], ), dict(axis=1), [], [])
    assert call.argument(1, 'dim', 0) == 1
    assert call.argument(1, 'dims') is None
