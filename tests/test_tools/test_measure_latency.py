# Copyright (c) dms_razor contributors. All rights reserved.
"""The command, for a device that is somewhere else."""
import json
from functools import partial

import pytest
from in_process import call

from dms_razor.timing.on_device import measure_parts


@pytest.fixture
def tool(load_tool, monkeypatch, capsys):
    return partial(call, load_tool, monkeypatch, capsys, 'measure_latency')


def test_parts_there_and_back(tool, tmp_path):
    network = ('--model', 'toy_nets:plain_net', '--input', 1, 3, 8, 8)
    done = tool(*network, '--write-parts', tmp_path / 'parts')
    assert done.returncode == 0, done.stderr
    assert 'run measure_parts.py there' in done.stdout
    measure_parts(
        str(tmp_path / 'parts' / 'parts.zip'),
        str(tmp_path / 'times.json'),
        rounds=1)
    done = tool(*network, '--read-parts', tmp_path / 'times.json', '--out',
                tmp_path / 'latency.json')
    assert done.returncode == 0, done.stderr
    assert 'onnxruntime on cpu' in done.stdout
    assert 'Widths pay in steps of 8 (advised for cpu' in done.stdout
    table = json.loads((tmp_path / 'latency.json').read_text())
    assert len(table['parts']) == 8 and table['coefficients']


@pytest.mark.parametrize('arguments, message', [
    (('x.py', ), 'give one of --out FILE and --write-parts FOLDER'),
    (('x.py', '--out', 'a', '--write-parts', 'b'), 'give one of --out'),
    (('x.py', '--write-parts', 'b', '--threads', 2), 'to measure_parts.py'),
    (('x.py', '--out', 'a', '--read-parts', 'b', '--backend', 'torch'),
     'to measure_parts.py'),
    (('--out', 'a'), 'give either a config or --model'),
])
def test_what_contradicts_itself(tool, arguments, message):
    done = tool(*arguments)
    assert done.returncode == 2 and message in ' '.join(done.stderr.split())


def test_times_that_are_none(tool, tmp_path):
    done = tool('--model', 'toy_nets:plain_net', '--input', 1, 3, 8, 8,
                '--read-parts', tmp_path / 'none.json', '--out',
                tmp_path / 'latency.json')
    assert done.returncode == 1 and 'cannot be read as times' in done.stderr
