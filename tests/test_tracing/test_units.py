# Copyright (c) dms_razor contributors. All rights reserved.
"""From merged channels to units, written down as facts."""
import torch

from dms_razor.tracing.facts import Facts, Partition, Producer
from dms_razor.tracing.labels import Variables
from dms_razor.tracing.units import UnitFinder


class Found:
    """Facts about layers whose channels are all read."""

    def __init__(self):
        self.variables = Variables()
        self.facts = Facts(self.variables)

    def layer(self, name, number):
        """A layer that makes channels, which another one reads."""
        labels = self.variables.new(number)
        self.facts.producers.append(Producer(name, labels))
        self.facts.axis(f'reader.of.{name}', 1, labels, reads=True)
        return labels

    def parts(self, *rows):
        """A vector with equal parts."""
        self.facts.partitions.append(Partition(torch.stack(rows), 'm', 'why'))

    def units(self):
        """(first module, rows of channel numbers) of every unit."""
        while True:
            finder = UnitFinder(self.facts, lambda path: False)
            groups = finder.find()
            if groups is not None:
                self.fixed = finder.fixed
                return [(g.modules[0], g.rows) for g in groups]


def test_merged_layers_are_one_unit():
    found = Found()
    a, b, c = (found.layer(name, 3) for name in 'abc')
    found.variables.merge(a, c)
    assert found.units() == [('a', [[1, 2, 3]]), ('b', [[4, 5, 6]])]


def test_channels_that_nothing_reads_stay():
    found = Found()
    found.facts.producers.append(Producer('a', found.variables.new(2)))
    found.layer('b', 2)
    assert found.units() == [('b', [[3, 4]])]
    assert set(found.fixed.values()) == {'no layer reads its channels'}


def test_parts_are_groups_of_one_unit():
    found = Found()
    a = found.layer('a', 6)
    found.parts(a[:3], a[3:])
    assert found.units() == [('a', [[1, 2, 3], [4, 5, 6]])]


def test_parts_within_parts():
    found = Found()
    a = found.layer('a', 8)
    found.parts(a[:4], a[4:])
    found.parts(a[:2], a[2:4], a[4:6], a[6:])
    assert found.units() == [('a', [[1, 2], [3, 4], [5, 6], [7, 8]])]


def test_parts_of_several_layers():
    found = Found()
    a, b = found.layer('a', 2), found.layer('b', 2)
    found.parts(a, b)
    assert found.units() == [('a', [[1, 2], [3, 4]])]


def test_rows_that_lie_in_all_parts_are_free():
    # A channel shuffle: place j of all parts is one channel.
    found = Found()
    a = found.layer('a', 6)
    found.variables.merge(a[:3], a[3:])
    found.parts(a[:3], a[3:])
    assert found.units() == [('a', [[1, 2, 3]])]


def test_surplus_stays():
    found = Found()
    a, b = found.layer('a', 4), found.layer('b', 2)
    zeros = torch.zeros(2, dtype=torch.long)
    found.parts(a, torch.cat([b, zeros]))
    assert found.units() == [('a', [[1, 2], [5, 6]])]
    assert set(found.fixed) == {3, 4}
    assert set(
        found.fixed.values()) == {'why, and its parts cannot be kept equal'}


def test_what_lies_unevenly_in_parts_stays():
    found = Found()
    a, b = found.layer('a', 3), found.layer('b', 3)
    # Channel 1 lies twice in one part and once in the other.
    found.parts(torch.cat([a[:1], a[:1], a[1:]]), torch.cat([a[:1], b]))
    assert found.units() == [('a', [[2, 3], [4, 5]])]
    assert set(found.fixed) == {1, 6}


def test_parts_that_hold_other_numbers_of_rows_stay():
    found = Found()
    a, b, c = found.layer('a', 4), found.layer('b', 2), found.layer('c', 2)
    found.parts(a, torch.cat([b, c]))
    assert found.units() == []
    assert set(found.fixed) == set(range(1, 9))
