# Copyright (c) dms_razor contributors. All rights reserved.
import json

from dms_razor.subnet.report import first_shape, table
from .test_export import export  # noqa: F401

HEAD = '|  | supernet | asked | searched | counted | share |'


def test_json(export):  # noqa: F811
    report = json.loads((export.path / 'report.json').read_text())
    assert report == json.loads(export.report.to_json())
    assert report['asked'] == dict(
        metric='macs', target=50000.0, fraction=50000 / 95616)
    assert report['macs'] == dict(
        supernet=95616, searched=14464, counted=14464)
    assert report['params'] == dict(supernet=2382, searched=553, counted=553)
    assert report['counter'] == 'torch.utils.flop_counter'
    assert report['removed'] == ['stage.1']
    assert report['full_width'] == [
        dict(module='fc', reason='it is the output of the network')
    ]
    assert dict(
        name='expand', kind='width', kept=3, total=6, groups=2,
        step=1) in report['units']
    layers = {layer['name']: layer for layer in report['layers']}
    assert layers['stem']['outputs'] == [8, 3]


def test_markdown(export):  # noqa: F811
    text = (export.path / 'report.md').read_text('utf-8')
    lines = text.splitlines()
    assert HEAD in lines
    assert ('| MACs | 95,616 | at most 50,000 | 14,464 | 14,464 | 15.13% |'
            in lines)
    assert '| `stem` | Conv2d | 3 ⇒ 3 | 8 ⇒ 3 | 13.82 K ⇒ 5.184 K |' in lines
    assert '| `stage.1.conv1` | Conv2d | 8 | 6 ⇒ removed | 3.072 K ⇒ 0 |' \
        in lines
    assert '| `stage` | 2 ⇒ 1 | `stage.1` |' in lines
    assert '| `fc` | it is the output of the network |' in lines
    assert 'for an input of 1×3×8×8' in text


def test_table_and_shape():
    assert table(('a', 'b'),
                 [('1', 'x|y')]) == ('| a | b |\n| --- | --- |\n| 1 | x\\|y |')
    shape = dict(shape=[1, 3], dtype='float32')
    assert first_shape([shape, dict(value=1)]) == '1×3'
    assert first_shape(dict(named=dict(x=shape))) == '1×3'
    assert first_shape([]) == first_shape(dict(value=2)) == 'no tensor'
