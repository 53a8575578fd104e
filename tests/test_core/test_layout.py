# Copyright (c) dms_razor contributors. All rights reserved.
import copy

import pytest
import torch

from dms_razor.core import Layout, Unit


@pytest.fixture
def layout():
    return Layout([
        Unit('conv', 'width', 3, groups=2, step=8),
        Unit('stage', 'depth', 2, members=('stage.0', 'stage.1')),
        Unit('one', 'width', 1),
        Unit('heads', 'heads', 4, least=2, most=3),
    ])


def test_flat_order(layout):
    assert (layout.U, layout.R, layout.E) == (4, 5, 13)
    assert layout.unit_of_element.tolist() == [0] * 6 + [1] * 2 + [2] + [3] * 4
    assert layout.row_of_element.tolist() == ([0] * 3 + [1] * 3 + [2] * 2 +
                                              [3] + [4] * 4)
    assert layout.place_in_row.tolist() == [
        0, 1, 2, 0, 1, 2, 0, 1, 0, 0, 1, 2, 3
    ]
    assert layout.row_start.tolist() == [0, 3, 6, 8, 9]
    assert layout.size_of_row.tolist() == [3, 3, 2, 1, 4]
    assert [layout.slice_of(u) for u in range(4)
            ] == [slice(0, 6),
                  slice(6, 8),
                  slice(8, 9),
                  slice(9, 13)]
    assert layout.depth_elements.tolist(
    ) == [False] * 6 + [True] * 2 + [False] * 5


def test_figures_of_units(layout):
    conv, stage, one, heads = layout.units
    assert (conv.elements, conv.channels, conv.temperature) == (6, 48, 3)
    assert (stage.elements, stage.channels, stage.temperature) == (2, 2, 8)
    assert heads.temperature == 16
    assert Unit('router.experts', 'experts', 8).temperature == 32
    assert layout.channels == 48 + 2 + 1 + 4
    assert [u.least for u in layout.units] == [1, 0, 1, 2]
    assert [u.most for u in layout.units] == [3, 2, 1, 3]
    assert [u.prunable for u in layout.units] == [True, True, False, True]
    assert layout.removable.tolist() == [3, 2, 0, 4]


def test_index_names_what_is_missing(layout):
    assert layout.index('stage') == 1
    with pytest.raises(KeyError, match='stage2.*conv, stage, one, heads'):
        layout.index('stage2')


def test_equality_copy_and_device(layout):
    other = copy.deepcopy(layout)
    assert other == layout and hash(other) == hash(layout)
    assert layout.to('cpu') is layout
    moved = layout.to('meta')
    assert moved.device.type == 'meta' and layout.device.type == 'cpu'
    assert moved.row_of_element.device.type == 'meta' and moved == layout
    assert layout != Layout(layout.units[:2])


def test_fingerprint_tells_units_apart():
    base = Unit('a', 'width', 4)
    prints = [
        tuple(Layout([unit]).fingerprint().flatten().tolist()) for unit in (
            base,
            Unit('b', 'width', 4),
            Unit('a', 'heads', 4),
            Unit('a', 'width', 5),
            Unit('a', 'width', 4, groups=2),
            Unit('a', 'width', 4, step=2),
        )
    ]
    assert len(set(prints)) == len(prints)
    bounded = Layout([Unit('a', 'width', 4, least=2, most=3)])
    assert tuple(bounded.fingerprint().flatten().tolist()) == prints[0]


@pytest.mark.parametrize('arguments, message', [
    (dict(kind='length', size=4), 'kind "length" is not known'),
    (dict(kind='width', size=0), 'size is 0'),
    (dict(kind='width', size=4, groups=0), 'groups is 0'),
    (dict(kind='width', size=4, step=0), 'step is 0'),
    (dict(kind='width', size=4, least=0), 'least=0'),
    (dict(kind='width', size=4, least=3, most=2), 'least=3 and most=2'),
    (dict(kind='depth', size=4, most=5), 'most=5'),
    (dict(kind='depth', size=4, most=0), 'most is 0'),
    (dict(kind='depth', size=4, groups=2), 'no groups'),
    (dict(kind='depth', size=3, members=('a', 'b')), '2 members'),
])
def test_bad_units_are_named(arguments, message):
    with pytest.raises(ValueError, match=f'unit "u.*{message}'):
        Unit('u', **arguments)


def test_bad_layouts():
    with pytest.raises(ValueError, match='nothing in this network'):
        Layout([])
    with pytest.raises(ValueError, match='two units are named "a"'):
        Layout([Unit('a', 'width', 2), Unit('a', 'depth', 2)])


def test_tensors_of_a_bigger_layout_agree_with_loops():
    units = [
        Unit(f'u{i}', 'width', 1 + i % 5, groups=1 + i % 3) for i in range(40)
    ]
    layout = Layout(units)
    unit_of, row_of, place, row = [], [], [], 0
    for u, unit in enumerate(units):
        for _ in range(unit.groups):
            for i in range(unit.size):
                unit_of.append(u)
                row_of.append(row)
                place.append(i)
            row += 1
    assert layout.unit_of_element.tolist() == unit_of
    assert layout.row_of_element.tolist() == row_of
    assert layout.place_in_row.tolist() == place
    assert torch.equal(layout.unit_of_element.bincount(),
                       layout.size * layout.groups)
