# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch
from torch.nn import functional as F

from dms_razor.tracing.record import OpCall
from dms_razor.tracing.rules.table import op_name


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
