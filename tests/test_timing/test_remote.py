# Copyright (c) dms_razor contributors. All rights reserved.
"""Parts go to a device and times come back; times themselves are not held."""
import ast
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from toy_nets import plain_net

from dms_razor.core.latency import LatencyError
from dms_razor.timing import on_device
from dms_razor.timing.measure import measure
from dms_razor.timing.on_device import feed_of, measure_parts, session_of
from dms_razor.timing.parts import COPIES
from dms_razor.timing.remote import Elsewhere, write_parts
from dms_razor.trace import trace

SETTINGS = dict(grid=(.5, 1.), whole=3)


@pytest.fixture(scope='module')
def space():
    return trace(plain_net(), torch.zeros(1, 3, 8, 8), check=False)


@pytest.fixture(scope='module')
def folder(space, tmp_path_factory):
    return write_parts(plain_net(), space,
                       tmp_path_factory.mktemp('there') / 'parts', **SETTINGS)


@pytest.fixture(scope='module')
def times(folder):
    """The script as it is copied, run without this package."""
    done = subprocess.run([
        sys.executable, '-I', 'measure_parts.py', '--rounds', '3', '--out',
        'times.json'
    ],
                          cwd=folder,
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert '--read-parts times.json' in done.stdout
    return folder / 'times.json'


def plan_of(folder):
    with zipfile.ZipFile(folder / 'parts.zip') as archive:
        return json.loads(archive.read('parts.json'))


def test_the_script_needs_little(folder):
    tree = ast.parse((folder / 'measure_parts.py').read_text())
    names = {
        name.name.partition('.')[0]
        for node in ast.walk(tree) if isinstance(node, ast.Import)
        for name in node.names
    }
    names |= {
        node.module.partition('.')[0]
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert names - set(sys.stdlib_module_names) == {'numpy', 'onnxruntime'}


def test_a_part_computes_what_its_layer_does(folder):
    """3 × 3 convolutions of weights .01, one output each, at half width."""
    plan = plan_of(folder)
    name, = (
        name for name in plan['files']
        if 'widths=(12, 12)' in name and name.endswith('6 12, 3 times'))
    with zipfile.ZipFile(folder / 'parts.zip') as archive:
        content = archive.read(plan['files'][name]['file'])
    shape, dtype = plan['files'][name]['inputs']['input0']
    assert shape == [1, 6, 8, 8]
    found = session_of(content, 1, 'CPUExecutionProvider').run(
        None, dict(input0=np.ones(shape, dtype)))
    assert [each.shape for each in found] == [(1, 12, 1, 1)] * COPIES
    # in the corner 4 of the 9 positions are inside
    assert found[0][0, 0, 0, 0] == pytest.approx(.01 * 4 * 6 + .01)


def test_the_table_is_made_of_those_times(space, times, tmp_path):
    known = json.loads(times.read_text())['times']
    path = tmp_path / 'table.json'
    table = measure(plain_net(), space, Elsewhere(times), path, **SETTINGS)
    key, = (key for key in table['points'] if 'widths=(12, 12)' in key)
    for name, (ms, spread) in table['points'][key].items():
        several, one = (
            known[f'{key} at {name}, {n} times'] for n in (COPIES, 1))
        assert spread == max(several['spread'], one['spread'])
        assert ms == pytest.approx(
            max(0., several['ms'] - one['ms']) / (COPIES - 1))
    assert table['fit']['measured'] == pytest.approx([
        found['ms'] for name, found in known.items()
        if name.startswith('subnet ')
    ])
    assert table['setting']['backend'] == 'onnxruntime'
    assert table['setting']['device'] == 'cpu'
    assert set(table['setting']['versions']) == {'torch', 'onnxruntime'}
    assert space.limiting(['latency'], path).resource.supernet('latency') > 0


def test_what_was_stopped_goes_on(folder, times, tmp_path, monkeypatch):
    whole, out = json.loads(times.read_text()), tmp_path / 'times.json'
    some = dict(list(whole['times'].items())[:6])
    out.write_text(json.dumps(dict(whole, times=some)))
    timed = []
    monkeypatch.setattr(
        on_device, 'interleaved', lambda runs, rounds:
        (timed.append(len(runs)), [dict(ms=7., spread=0.) for _ in runs])[1])
    found = measure_parts(str(folder / 'parts.zip'), str(out))
    assert sum(timed) == len(whole['times']) - 6
    assert {n: found['times'][n] for n in some} == some
    assert json.loads(out.read_text()) == found
    with pytest.raises(ValueError, match='other parts, another machine or se'):
        measure_parts(str(folder / 'parts.zip'), str(out), threads=2)


def test_times_of_something_else(space, times, tmp_path):
    with pytest.raises(LatencyError, match='cannot be read as times'):
        Elsewhere(tmp_path / 'none.json')
    wrong = tmp_path / 'wrong.json'
    wrong.write_text('{}')
    with pytest.raises(LatencyError, match='format is not'):
        Elsewhere(wrong)
    other = trace(
        plain_net(),
        torch.zeros(1, 3, 8, 8),
        check=False,
        units={'stem': dict(fixed=True)})
    with pytest.raises(LatencyError, match='has no time of .* unfinished'):
        measure(plain_net(), other, Elsewhere(times), tmp_path / 'table.json',
                **SETTINGS)
    with pytest.raises(LatencyError, match='has no time of .*--held-out'):
        measure(plain_net(), space, Elsewhere(times), tmp_path / 'new.json',
                **dict(SETTINGS, held_out=2))


def test_inputs_of_their_kind():
    found = feed_of(
        dict(a=[[2, 3], 'float32'], b=[[4], 'int64'], c=[[1], 'bool']))
    assert found['a'].shape == (2, 3) and found['a'].dtype == np.float32
    assert found['a'].std() > 0
    assert found['b'].tolist() == [0] * 4 and found['b'].dtype == np.int64
    assert found['c'].tolist() == [False]
