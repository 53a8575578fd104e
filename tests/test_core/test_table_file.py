# Copyright (c) dms_razor contributors. All rights reserved.
"""Tables of latencies from strangers: one error, which names the entry."""
import copy
import json

import pytest

from dms_razor.core.latency import (COEFFICIENTS, FORMAT, LatencyError,
                                    checksum, read_table)
from dms_razor.core.table_file import MOST_BYTES, VERSION, check_table

TABLE = dict(
    format=FORMAT,
    version=VERSION,
    layers={
        '0 stem': [9., 3., 8.],
        '1 out': [1., 8., 4.]
    },
    grid=[.5, 1.],
    parts={'0 stem': [[1., 2.], [1., 2.]]},
    coefficients=dict(base=.5, scale=1.5, rest=.01, traffic=0.),
    setting=dict(
        backend='torch',
        threads=1,
        device='cpu',
        precision='fp32',
        machine='x86_64',
        processor='mine',
        versions=dict(torch='2')),
    input=[[1, 3, 8, 8]],
    steps={'conv 3 8': {
        '8': .1,
        '9': .2
    }},
    fit=dict(measured=[1., 2.], spread=[.1, .1]),
    held_out=dict(measured=[1.], predicted=[1.1]))


def read(content, tmp_path):
    """As whoever edits a file can make it: with a checksum that is right."""
    path = tmp_path / 'table.json'
    path.write_text(json.dumps(dict(content, checksum=checksum(content))))
    return read_table(path)


def test_what_is_sound_is_read(tmp_path):
    assert read(TABLE, tmp_path)['grid'] == [.5, 1.]
    without = {
        k: v
        for k, v in TABLE.items() if k not in ('steps', 'fit', 'held_out')
    }
    assert read(without, tmp_path)['layers'] == TABLE['layers']


def test_versions(tmp_path):
    """What the first version wrote, and a later one."""
    older = {k: v for k, v in TABLE.items() if k != 'version'}
    assert read(older, tmp_path)['input'] == [[1, 3, 8, 8]]
    with pytest.raises(
            LatencyError,
            match=f'it is {VERSION + 1}, and this dms_razor reads '
            f'versions up to {VERSION}: install the newer'):
        read(
            dict(TABLE, version=VERSION + 1, grid='of another kind'), tmp_path)
    for odd in ('1', 0, None, True, 1.):
        with pytest.raises(LatencyError, match='version: .* no whole number'):
            read(dict(TABLE, version=odd), tmp_path)


#: entry -> what cannot stand there
WRONG = {
    ('grid', ): [
        None, {}, [], [1., .5], [.5], [0., 1.], [.5, '1'], [True, 1.],
        [float('nan'), 1.]
    ],
    ('grid', 0): [-.5, 1., None, 10**400],
    ('layers', ): [None, [], 4],
    ('layers', '1 out'): [None, 'x', [None], [0.] * 99],
    ('parts', ): [None, [], {
        'no such layer': [[1., 2.], [1., 2.]]
    }],
    ('parts', '0 stem'): [None, [], [[1., 2.]], [[1.], [1.]], [{}, {}], 'ab'],
    ('parts', '0 stem', 1, 0): [None, -1.,
                                float('inf'), 1e300, '1', True],
    ('coefficients', ): [dict(base=1.), [1.], 'abcd'],
    ('coefficients', 'rest'): [None, -.1, float('nan'), '0'],
    ('setting', ): [None, [], 'cpu'],
    ('setting', 'threads'): [None, 0, -1, 1.5, True, 10**30],
    ('setting', 'device'): [None, 4, []],
    ('setting', 'backend'): [None, 4, []],
    ('setting', 'versions'): [None, [], {
        'torch': 2
    }],
    ('input', ): [None, 4, [4], [[-1]], [['a']], [[1] * 99]],
    ('steps', ): [None, [], {
        'a': [1.]
    }, {
        'a': {
            'x': 1.
        }
    }, {
        'a': {
            '8': None
        }
    }],
    ('held_out', ): [[], dict(measured=[1.], predicted=[])],
    ('fit', ): [None, dict(measured=4)],
}


@pytest.mark.parametrize('path', WRONG)
def test_what_is_not_names_the_entry(path, tmp_path):
    for value in WRONG[path]:
        content = copy.deepcopy(TABLE)
        part = content
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        if value in ([], {}, None) and path == ('coefficients', ):
            continue
        with pytest.raises(
                LatencyError, match=f'(?s)no sound table.*{path[0]}.*again'):
            read(content, tmp_path)


@pytest.mark.parametrize('name',
                         ['grid', 'layers', 'parts', 'setting', 'input'])
def test_what_is_missing_is_named(name, tmp_path):
    with pytest.raises(LatencyError, match=f'no sound table.*{name}'):
        read({k: v for k, v in TABLE.items() if k != name}, tmp_path)


def test_a_file_that_is_too_large_or_too_deep(tmp_path):
    path = tmp_path / 'table.json'
    with path.open('wb') as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(LatencyError, match='more than 64,000,000 bytes'):
        read_table(path)
    path.write_text('[' * 100_000)
    with pytest.raises(LatencyError, match='cannot be read as a table'):
        read_table(path)


def test_the_table_itself_is_left_alone():
    before = copy.deepcopy(TABLE)
    check_table(TABLE, COEFFICIENTS)
    assert TABLE == before
