# Copyright (c) dms_razor contributors. All rights reserved.
"""FSDP2 on two ranks against one process, float64."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from language_nets import decoder
from torch.distributed import fsdp

from dms_razor.masking.sharded import gathered, is_sharded, written_once

SCRIPT = Path(__file__).resolve().parents[1] / 'sharded_runs.py'


def test_one_process_writes():
    net = decoder()
    assert not is_sharded(net)
    with written_once(net) as here:
        assert here
    with gathered(net) as replaced:
        assert not any(isinstance(x, torch.Tensor) for x in replaced.values())


@pytest.mark.skipif(
    not hasattr(fsdp, 'fully_shard'), reason='FSDP2 is in torch from 2.6 on')
def test_two_ranks_find_what_one_finds(tmp_path):
    import sharded_runs
    done = subprocess.run([
        sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run',
        '--standalone', '--nproc_per_node', '2',
        str(SCRIPT),
        str(tmp_path)
    ],
                          capture_output=True,
                          text=True,
                          env=dict(os.environ, OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stderr
    alone = tmp_path / 'alone'
    alone.mkdir()
    sharded_runs.run(alone)
    expected = torch.load(alone / 'ratios0.pt')
    assert expected.max() > .2
    manifest = json.loads((alone / 'subnet' / 'subnet.json').read_text())
    weights = torch.load(alone / 'subnet' / 'subnet.pth')
    for when in ('before', 'after'):
        for rank in range(2):
            ratios = torch.load(tmp_path / when / f'ratios{rank}.pt')
            assert (ratios - expected).abs().max() < 1e-9
        found = tmp_path / when / 'subnet'
        assert json.loads((found / 'subnet.json').read_text()) == manifest
        again = torch.load(found / 'subnet.pth')
        assert again.keys() == weights.keys()
        for name, weight in weights.items():
            assert torch.allclose(weight, again[name], atol=1e-9)
