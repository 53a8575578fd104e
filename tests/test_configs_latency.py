# Copyright (c) dms_razor contributors. All rights reserved.
"""Configs under a latency, with a table that is made up: MACs as time."""
import json
from pathlib import Path

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
from mmengine.config import Config

from dms_razor import trace as trace_package
from dms_razor.core import latency
from dms_razor.core.latency import FORMAT, LatencyError, checksum
from dms_razor.openmmlab.from_config import preflight_of_config

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = {
    'ofa/dms-ofa-3ms_8xb128-30e_in1k':
    'ofa/dms-ofa-450m_8xb128-30e_in1k',
    'yolov8/dms-yolov8-50p-latency_b8-60e_coco-format':
    'yolov8/dms-yolov8-50p_b8-60e_coco-format',
}


def test_all_are_here():
    found = {
        path.relative_to(ROOT).with_suffix('').as_posix()
        for path in ROOT.glob('*/*.py') if 'latency_table' in path.read_text()
    }
    assert found == set(CONFIGS)


@pytest.mark.parametrize('name', CONFIGS)
def test_only_the_budget_is_another(name):
    """What it shares is tested to its end with the config under MACs."""
    cfg, other = (
        Config.fromfile(ROOT / f'{stem}.py') for stem in (name, CONFIGS[name]))
    assert cfg.model.metric == 'latency'
    for key in ('metric', 'latency_table', 'target'):
        cfg.model.pop(key), other.model.pop(key, None)
    assert cfg.to_dict() == other.to_dict()
    retrains = [
        Config.fromfile(path)
        for path in (ROOT / name).parent.glob('*_retrain.py')
    ]
    subnet = f'work_dirs/{Path(name).name}/subnet/subnet.json'
    assert [r for r in retrains if r.model.subnet == subnet]
    # the README says how the table is made
    readme = ((ROOT / name).parent / 'README.md').read_text()
    assert f'tools/measure_latency.py configs/{name}.py' in ' '.join(
        readme.replace('\\\n', ' ').split())
    table = Config.fromfile(ROOT / f'{name}.py').model.latency_table
    assert f'--out {table}' in readme


def test_three_milliseconds(tmp_path, monkeypatch):
    """So many MACs a millisecond that 3 ms are the paper's 0.45 G."""
    cfg = Config.fromfile(ROOT / 'ofa/dms-ofa-3ms_8xb128-30e_in1k.py')
    with pytest.raises(LatencyError, match='no table of.*ofa-mobilenet-v3'):
        latency.read_table(cfg.model.latency_table)
    # The self-check is that of the search under MACs.
    monkeypatch.setattr(trace_package, 'check_space',
                        lambda model, inputs, run, builder, space, *_: space)
    # what belongs to this network's table is tested elsewhere
    monkeypatch.setattr(latency, 'layers_of', lambda resource: {})
    content = dict(
        format=FORMAT,
        layers={},
        parts={},
        setting=dict(
            backend='torch',
            threads=1,
            device='cpu',
            precision='fp32',
            processor='mine',
            versions={}),
        input=[],
        grid=[.5, 1.],
        coefficients=dict(base=0., scale=0., rest=3 / .45e9, traffic=0.))
    cfg.model.latency_table = str(tmp_path / 'table.json')
    Path(cfg.model.latency_table).write_text(
        json.dumps(dict(content, checksum=checksum(content))))
    report = preflight_of_config(cfg).to_dict()
    assert report['reachable'] and report['latency']['target'] == 3.
    assert report['latency']['supernet'] == pytest.approx(
        3 * .566 / .45, rel=5e-3)
