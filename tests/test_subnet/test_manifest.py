# Copyright (c) dms_razor contributors. All rights reserved.
import hashlib
import json

import pytest

from dms_razor.counting import count_each
from dms_razor.network import fingerprint
from dms_razor.subnet import Manifest, SubnetError, slice_model
from dms_razor.subnet.manifest import checksum, describe_subnet
from .helpers import images, net, some_keep, space


@pytest.fixture
def manifest() -> Manifest:
    model, keep = net(), some_keep()
    subnet = slice_model(model, space(), keep)
    return describe_subnet(
        model,
        subnet,
        space(),
        keep,
        images(1),
        count_each(subnet, images(1)),
        target=50000)


def test_content(manifest):
    assert manifest.model['type'] == 'Net'
    assert manifest.model['tensors']['stem.weight'] == [8, 3, 3, 3]
    assert 'shift' not in manifest.model['tensors']
    assert manifest.shapes['stem.weight'] == [3, 3, 3, 3]
    assert manifest.shapes['shift'] == [8, 1, 1]
    assert manifest.shapes['counter'] == [3]
    assert manifest.removed == ['stage.1']
    assert not any(name.startswith('stage.1.') for name in manifest.modules)
    assert manifest.modules['grouped'] == dict(
        type='Conv2d',
        tensors=dict(weight=[4, 3, 3, 3], bias=[4]),
        attributes=dict(in_channels=6, out_channels=4),
        macs=9 * 3 * 4 * 16)
    assert manifest.modules['norm']['attributes'] == dict(normalized_shape=8)
    assert (manifest.metric, manifest.target) == ('macs', 50000.)
    units = {unit['name']: unit for unit in manifest.units}
    assert units['last'] == dict(
        name='last',
        kind='width',
        total=4,
        kept=2,
        groups=1,
        step=4,
        members=['last'],
        kept_index=units['last']['kept_index'])
    kept = some_keep()[20:32].nonzero().flatten().tolist()
    assert units['expand']['kept_index'] == kept and len(kept) == 6
    assert units['stage']['kept_index'] == [0]
    assert manifest.inputs == dict(shape=[1, 3, 8, 8], dtype='float32')
    assert manifest.receives['stage'] == dict(
        shape=[1, 3, 8, 8], dtype='float32')


def test_round_trip(manifest, tmp_path):
    manifest.save(tmp_path / 'subnet.json')
    assert Manifest.load(tmp_path / 'subnet.json') == manifest
    assert Manifest.load(tmp_path) == manifest
    assert [file.name for file in tmp_path.iterdir()] == ['subnet.json']
    text = (tmp_path / 'subnet.json').read_text()
    assert '"kept_index": [' in text and '"shape": [1, 3, 8, 8]' in text
    assert text == Manifest.from_json(text).to_json()


def test_fingerprint_by_hand():
    assert fingerprint({
        'b': (2, ),
        'a': [3, 4]
    }) == hashlib.sha256(b'a:[3, 4]\nb:[2]').hexdigest()


def test_truncated(manifest):
    text = manifest.to_json()
    for length in (0, 1, len(text) // 2, len(text) - 3):
        with pytest.raises(
                SubnetError,
                match='not readable as JSON .* '
                'truncated or no manifest. Export'):
            Manifest.from_json(text[:length])


def test_edited(manifest):
    text = manifest.to_json()
    for old, new in (('"kept": 3', '"kept": 4'), ('50000.0', '60000.0'),
                     ('"stage.1"', '"stage.9"'), ('"checksum"', '"check"')):
        assert old in text
        with pytest.raises(
                SubnetError,
                match='does not match its checksum: '
                'it was edited or damaged. Use'):
            Manifest.from_json(text.replace(old, new))
    # how the text is laid out is not what is checked
    again = json.dumps(json.loads(text))
    assert Manifest.from_json(again) == manifest


def test_another_version_or_format(manifest):
    text = manifest.to_json()
    with pytest.raises(
            SubnetError,
            match='is of version 2, but this '
            'dms_razor reads versions up to 1. Install the newer'):
        Manifest.from_json(text.replace('"version": 1', '"version": 2'))
    for other in ('{}', '[]', '3', text.replace('dms_razor.subnet', 'x')):
        with pytest.raises(
                SubnetError,
                match='no subnet manifest: its format '
                'is not .dms_razor.subnet.'):
            Manifest.from_json(other)


@pytest.mark.parametrize('name', ['removed', 'more'])
def test_other_fields_with_a_sound_checksum(manifest, name):
    content = json.loads(manifest.to_json())
    del content['checksum']
    if content.pop(name, None) is None:
        content[name] = 1
    content['checksum'] = checksum(content)
    with pytest.raises(
            SubnetError, match=rf"lacks or adds \['{name}'\]. Export"):
        Manifest.from_json(json.dumps(content))


def test_missing_file(tmp_path):
    with pytest.raises(SubnetError, match='There is no manifest .*nothing'):
        Manifest.load(tmp_path / 'nothing.json')
    (tmp_path / 'subnet.json').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(SubnetError, match="subnet.json' is not text"):
        Manifest.load(tmp_path)


def test_part(manifest):
    part = manifest.part('stage.')
    assert part.removed == ['1']
    assert part.shapes['0.conv1.weight'] == [2, 3, 1, 1]
    assert part.model['type'] == 'Sequential'
    assert part.model['tensors']['1.conv2.bias'] == [8]
    assert part.model['fingerprint'] == fingerprint(part.model['tensors'])
    assert part.inputs == dict(shape=[1, 3, 8, 8], dtype='float32')
    assert part.macs == dict(counted=64 * 3 * 2 + 9 * 64 * 3 * 2)
    assert part.receives['0'] == part.inputs
    assert manifest.part('') is manifest
    assert manifest.part('fc').macs == {}
    with pytest.raises(
            SubnetError,
            match="no part 'stag'. Its parts are "
            r"\['bn', 'depthwise'"):
        manifest.part('stag')
