# Copyright (c) dms_razor contributors. All rights reserved.
"""Manifests of strangers: sound, or one error, and nothing is built."""
import copy
import json
import os
import random
from dataclasses import asdict

import pytest
import torch

from dms_razor.subnet import Manifest, SubnetError, build_subnet
from dms_razor.subnet.export import export_subnet
from dms_razor.subnet.manifest import checksum
from .helpers import Net, net, some_keep, space


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    """An export's subnet.json without its checksum."""
    folder = tmp_path_factory.mktemp('export') / 'subnet'
    export_subnet(folder, net(), space(), some_keep(), picture=False)
    content = json.loads((folder / 'subnet.json').read_text())
    del content['checksum']
    return content


def sealed(content):
    """With a checksum that is right, as whoever edits it can make it."""
    return json.dumps(dict(content, checksum=checksum(content)))


def edited(content, path, value):
    content = copy.deepcopy(content)
    part = content
    for name in path[:-1]:
        part = part[name]
    if value is REMOVED:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return content


REMOVED = object()
TOO_MUCH = [10**6, 3, 10**4]


def test_what_is_written_is_read(content):
    manifest = Manifest.from_json(sealed(content))
    assert asdict(manifest)['modules'] == content['modules']
    build_subnet(Net(), manifest)


@pytest.mark.parametrize('path, value, told', [
    (('modules', 'expand', 'tensors', 'weight'), [30, 3, 1, 1], 'no part of'),
    (('modules', 'expand', 'tensors', 'weight'), [-6, 3, 1, 1], 'no whole'),
    (('modules', 'expand', 'tensors', 'weight'), [6, 0, 1, 1], 'no part of'),
    (('modules', 'expand', 'attributes', 'out_channels'), -6, 'no whole'),
    (('modules', 'expand', 'attributes', 'out_channels'), True, 'no whole'),
    (('modules', 'expand', 'attributes', 'out_channels'), 2.5, 'no whole'),
    (('modules', 'expand', 'kind'), 'x', 'lacks or adds'),
    (('modules', 'a.b'), dict(type='', tensors={}, attributes={},
                              macs=0), 'in no module'),
    (('modules', ''), REMOVED, 'the network itself'),
    (('macs', 'counted'), REMOVED, 'lacks or adds'),
    (('params', 'counted'), -3, 'no whole'),
    (('macs', 'searched'), 10**9, 'costs more than the supernet'),
    (('macs', 'samples'), 0, 'no samples'),
    (('inputs', 0, 'shape'), TOO_MUCH, 'takes 120,000,000,000 bytes'),
    (('inputs', 0, 'dtype'), 'os', 'no dtype'),
    (('inputs', ), dict(array=[1], dtype='O'), 'no dtype'),
    (('inputs', ), dict(array=[1], dtype='S999999999'), 'no dtype'),
    (('inputs', ), dict(value=[1]), 'no plain value'),
    (('receives', 'stage', 'shape'), TOO_MUCH, 'bytes'),
    (('receives', 'nowhere'), dict(shape=[1], dtype='int8'), 'no module'),
    (('removed', ), ['stage.1', 'stage.1'], 'twice'),
    (('removed', ), 'stage.1', 'no list'),
    (('removed', ), ['stage.1', ''], 'was removed'),
    (('branches', ), {
        'stage.0': [1, 0]
    }, 'is there'),
    (('branches', ), {
        'stage.1': [2, 0]
    }, 'zero, outputs'),
    (('model', 'fingerprint'), 'ab', 'not that of'),
    (('model', 'tensors', 'more'), [2**60, 2**60], 'no'),
    (('units', 0, 'kept'), 9, 'no whole number from 0 to 8'),
    (('units', 0, 'kept_index'), [0, 0, 1], 'does not name'),
    (('units', 0, 'kind'), 'colour', 'no kind'),
    (('units', 1, 'name'), 'stem', 'twice'),
    (('metric', ), None, 'no text'),
    (('target', ), '50%', 'no number'),
    (('others', ), dict(x=dict(supernet=1)), 'lacks or adds'),
    (('limits', ), dict(macs=-1), 'no number'),
])
def test_every_entry_is_of_its_kind_and_in_its_bounds(content, path, value,
                                                      told):
    text = sealed(edited(content, path, value))
    with pytest.raises(
            SubnetError, match=f'is no sound manifest: .*{told}.*export the'):
        Manifest.from_json(text)


@pytest.mark.parametrize('text, told', [
    ('{"format": 1, "format": 2}', "the key 'format' twice"),
    ('{"a": NaN}', 'no finite number'),
    ('{"a": 1e999}', 'no finite number'),
    ('[' * 10**5, 'not readable'),
    ('1' * 10**5, 'not readable'),
    (' ' * 64_000_001, 'more than any subnet'),
])
def test_what_is_no_such_json(text, told):
    with pytest.raises(SubnetError, match=told):
        Manifest.from_json(text)


@pytest.mark.parametrize('path, value, told', [
    (('modules', 'expand', 'slim'), 'Attention', 'cannot become a slim'),
    (('modules', 'expand', 'attributes', 'depth'), 1, "no width 'depth'"),
    (('modules', 'expand', 'attributes', 'out_channels'), 13, 'which is less'),
    (('modules', 'stage.2'),
     dict(type='Block', tensors={}, attributes={},
          macs=0), 'no module stage.2'),
    (('removed', ), ['stage.1', 'stage.7'], 'no module stage.7'),
    (('inputs', ), dict(named={}, type='os:stat_result'), 'cannot be made'),
    (('inputs', ), dict(named={}, type='nobody:knows'), 'not imported'),
])
def test_what_only_the_network_can_tell(content, path, value, told):
    model = Net()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    manifest = Manifest.from_json(sealed(edited(content, path, value)))
    with pytest.raises(SubnetError, match=told):
        build_subnet(model, manifest)
    assert all(
        torch.equal(value, before[name])
        for name, value in model.state_dict().items())


VALUES = (None, True, -1, 0, 1, 10**12, .5, '', 'stem', [], {}, [1, 2], [[]], {
    '': 1
})


def places(part, path=()):
    for name, value in (part.items() if isinstance(part, dict) else
                        enumerate(part) if isinstance(part, list) else ()):
        yield (*path, name)
        yield from places(value, (*path, name))


def test_mutations_are_refused_or_the_same_network(content):
    source = random.Random(int(os.environ.get('DMS_RAZOR_SEED', 0)))
    everywhere, built = list(places(content)), 0
    for number in range(400):
        path = source.choice(everywhere)
        value = source.choice((REMOVED, *VALUES))
        try:
            manifest = Manifest.from_json(sealed(edited(content, path, value)))
            model = build_subnet(Net(), manifest) if number % 4 == 0 else None
        except SubnetError:
            continue
        if model is not None:
            built += 1
            assert {
                name: list(tensor.shape)
                for name, tensor in model.state_dict().items()
            }.items() <= Manifest.from_json(sealed(content)).shapes.items()
    assert built < 50
