# Copyright (c) dms_razor contributors. All rights reserved.
import torch

from dms_razor.core import Axis, Cost, Term
from dms_razor.core.tables import compile_tables

AXES = [
    Axis((Term(3), )),
    Axis((Term(2, (1, )), )),
    Axis((Term(1, (1, )), Term(1, (2, 5)))),
    Axis((Term(1, (2, )), )),
]
# Two units and masks of three elements: index 5 is the mask of element 2.
COSTS = [
    Cost('a', 'Conv2d', 'macs', 9, (0, 1)),
    Cost('b', 'Conv2d', 'macs', 1, (1, 0)),
    Cost('c', 'Conv2d', 'macs', 1, (1, 2), (0, )),
]


def test_merged_rows_have_the_same_sum():
    merged = compile_tables(AXES, COSTS, num_units=2, merge=True)
    apart = compile_tables(AXES, COSTS, num_units=2, merge=False)
    assert len(merged.cost_coef) == 2 and len(apart.cost_coef) == 3
    counts, masks = torch.tensor([5., 7.]), torch.tensor([.5, 0., .25])
    by_hand = [9 * 3 * 10, 3 * 10, .5 * 10 * (5 + 7 * .25)]
    used = masks[apart.used]
    assert apart.used.tolist() == [0, 2] and used.tolist() == [.5, .25]
    assert apart.rows(counts, used).tolist() == by_hand
    assert merged.value(counts, used).item() == sum(by_hand)


def test_axes_that_no_cost_reads_are_left_out():
    tables = compile_tables(AXES, COSTS[:2], num_units=2, merge=True)
    assert tables.num_axes == 2 and not tables.axis_sums
    assert len(tables.used) == 0


def test_a_network_without_axes():
    tables = compile_tables([], [Cost('a', 'x', 'params', 7)], 2, True)
    none = torch.ones(0)
    assert tables.value(torch.ones(2), none).item() == 7
    assert tables.value(torch.ones(4, 2), torch.ones(4, 0)).tolist() == [7] * 4


def test_an_axis_without_terms_is_zero():
    axes = [Axis(()), Axis((Term(2), ))]
    costs = [
        Cost('a', 'x', 'macs', 5, (0, )),
        Cost('b', 'x', 'macs', 3, (1, ))
    ]
    tables = compile_tables(axes, costs, 1, False)
    rows = tables.rows(torch.ones(1), torch.ones(0))
    assert rows.tolist() == [0, 6]
