# Copyright (c) dms_razor contributors. All rights reserved.
"""What is said of figures, by hand."""
import pytest

from dms_razor.subnet.timed import Timed, rows, told, where, within

SETTING = dict(
    backend='onnxruntime',
    threads=2,
    device='cpu',
    precision='fp32',
    processor='Brain',
    versions=dict(torch='2', onnxruntime='1'))


def timed(**changes):
    return Timed(**{
        **dict(limit=3., predicted=2.95, setting=SETTING),
        **changes
    })


def test_not_measured():
    found = timed(reason='measure=False was given')
    assert told(found.to_dict()) == (
        'Latency: 2.95 ms predicted, at most 3 ms asked; not measured: '
        'measure=False was given.')
    assert found.warning() == '' and found.figures() == {}
    assert rows(
        found.to_dict()) == [['the subnet', '2.95 ms', '-', '-', '3 ms']]


def test_within_and_above():
    found = timed(measured=3.06, spread=.02)
    assert found.warning() == ''
    assert told(found.to_dict()).endswith(
        'within the tolerance, 2.0% above the limit.')
    assert where(found.to_dict()) == (
        'Table and subnet: onnxruntime on cpu, 2 threads, fp32, Brain '
        '(torch 2, onnxruntime 1).')


@pytest.mark.parametrize('kept, named, above', [(1, 'second', False),
                                                (0, 'first', True)])
def test_a_correction(kept, named, above):
    tried = [
        dict(predicted=2.95, measured=3.54, spread=.01, kept=not kept),
        dict(predicted=2.98, measured=2.97, spread=.02, kept=bool(kept))
    ]
    found = timed(
        measured=tried[kept]['measured'], spread=.01, tried=tried, factor=1.2)
    text = found.warning()
    assert '20.0% slower than predicted' in text
    assert '2.98 ms predicted, 2.97 ms measured (spread 2.0%)' in text
    assert f'The {named} is exported' in text
    assert ('18.0% above the limit' in text) == above
    assert [row[0] for row in rows(found.to_dict())
            ][kept] == ['as searched', 'corrected'][kept] + ' (exported)'


def test_the_tolerance():
    assert within(1.05, 1., .051) and within(.95, 1., .051)
    assert not within(1.06, 1., .05) and not within(.94, 1., .05)
