# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch

from dms_razor.subnet import SubnetError
from .helpers import UNITS, some_keep, space


def test_rows_are_those_of_the_layout():
    layout = space().layout
    rows = space().rows(torch.arange(layout.E))
    flat = torch.cat([row.flatten() for row in rows])
    assert flat.tolist() == list(range(layout.E))
    assert rows[3].tolist() == [list(range(20, 26)), list(range(26, 32))]
    assert [tuple(row.shape) for row in rows] == [(unit.groups, unit.size)
                                                  for unit in UNITS]


@pytest.mark.parametrize('unit, change, message', [
    (0, 'none', "'stem' keeps 0 of 8 .* at least 1 must stay"),
    (4, 'one', "'grouped' keeps 1 of 4 .* at least 2 must stay"),
    (3, 'uneven', r"'expand' keeps \[3, 2\] .* equally wide"),
])
def test_keep_that_is_no_network(unit, change, message):
    keep = some_keep()
    rows = keep[space().layout.slice_of(unit)].view(UNITS[unit].groups, -1)
    if change == 'uneven':
        rows[1, rows[1].nonzero()[0]] = False
    else:
        rows.zero_()
        rows[:, :int(change == 'one')] = True
    with pytest.raises(SubnetError, match=message):
        space().checked(keep)


def test_keep_of_another_kind():
    with pytest.raises(
            TypeError,
            match='a selection is a bool tensor, not '
            'torch.float32.*Pass'):
        space().checked(some_keep().float())
    with pytest.raises(TypeError, match='not list'):
        space().checked([True])
    with pytest.raises(
            SubnetError, match=r'has shape \(3,\), but the space '
            'has 46'):
        space().checked(torch.ones(3).bool())
    assert space().counts(some_keep()).tolist() == [3, 2, 5, 3, 2, 2, 1]
