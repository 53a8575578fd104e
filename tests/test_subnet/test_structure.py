# Copyright (c) dms_razor contributors. All rights reserved.
import pytest

from dms_razor.subnet.structure import (Stage, by_stage, stage_name,
                                        structure_table)


@pytest.mark.parametrize('unit, stage', [
    ('backbone.conv1', 'backbone.conv1'),
    ('backbone.layer1.0.conv1', 'backbone.layer1'),
    ('backbone.layers.4.1.conv.0', 'backbone.layers.4'),
    ('features.3', 'features'),
    ('stem', 'stem'),
])
def test_stage_of_a_unit(unit, stage):
    assert stage_name(unit) == stage


STRUCTURE = [
    dict(name='conv', kind='width', kept=3, total=4),
    dict(name='layer1.0.conv1', kind='width', kept=1200, total=2400),
    dict(name='layer1.1.conv1', kind='width', kept=300, total=600),
    dict(name='layer1', kind='depth', kept=1, total=2),
]


def test_units_add_up_to_stages():
    assert by_stage(STRUCTURE) == [
        Stage('conv', 3, 4),
        Stage('layer1', 1500, 3000, 1, 2)
    ]


def test_table_shows_every_stage():
    lines = structure_table(STRUCTURE).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ['conv', '3', '/', '4', '75%']
    assert lines[2].split() == [
        'layer1', '1,500', '/', '3,000', '50%', '1', '/', '2'
    ]
