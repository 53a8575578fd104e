# Copyright (c) dms_razor contributors. All rights reserved.
"""Counts are met by bisection."""
import torch

from dms_razor.core import Layout, Unit
from dms_razor.core.bisection import bisected, within


def test_each_unit_has_its_own_root():
    wanted = torch.tensor([8., 27., 100.]).double()
    low, high = torch.zeros(3).double(), torch.full((3, ), 4.).double()
    roots = bisected(lambda x: x**3, wanted, low, high)
    # 100 lies beyond 4³: the bound.
    torch.testing.assert_close(roots, torch.tensor([2., 3., 4.]).double())


def test_ends_are_kept_off_by_what_rounds_to_them():
    layout = Layout([Unit('a', 'depth', 4), Unit('b', 'width', 1000)])
    assert within(torch.tensor([0, 1000]), layout).tolist() == [.04, 999.75]
    assert within(torch.tensor([4, 1]), layout).tolist() == [3.96, 1.]
    assert within(torch.tensor([2, 500]), layout).tolist() == [2., 500.]
