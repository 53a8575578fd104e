# Copyright (c) dms_razor contributors. All rights reserved.
"""The tool runs and reports; how fast things are is not tested here."""
import json

import pytest
from in_process import call
from torch import nn
from toy_runs import toy_config


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = toy_config(tmp_path)
    cfg.custom_imports = dict(imports=['dms_razor.openmmlab'])
    cfg.dump(tmp_path / 'search.py')
    return 'search.py'


def test_keys(config, load_tool, monkeypatch, capsys):
    result = call(load_tool, monkeypatch, capsys, 'benchmark_methods', config,
                  '--batch', 4, '--rounds', 1, '--warmup', 0, '--json', '-')
    assert result.returncode == 0, result.stdout
    found = json.loads(result.stdout)
    assert found.pop('plain_s') > 0
    assert set(found) == {'search', 'activations', 'group_fisher', 'dmcp'}
    assert all(method['ratio'] > 0 and method['control_ratio'] > 0
               for method in found.values())
    assert found['dmcp']['saved_bytes_ratio'] is None
    assert found['activations']['saved_bytes_ratio'] > 1


def test_masks_on_activations(config, load_tool):
    """Every batch norm's result is multiplied, and the masks learn."""
    from mmengine.config import Config
    tool = load_tool('benchmark_methods')
    cfg = Config.fromfile(config)
    _, plain = load_tool('benchmark_overhead').make_sides(cfg, 2)
    for module in plain.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # some begin at 0
    side = tool.masked_activations(plain, cfg)
    side.loss().backward()
    norms = [m for m in side.model.modules() if hasattr(m, 'mask')]
    assert norms and all(m.mask.grad.abs().sum() > 0 for m in norms)
    assert not any(hasattr(m, 'mask') for m in plain.model.modules())


def test_text(load_tool):
    text = load_tool('benchmark_methods').text(
        dict(
            plain_s=1.5,
            search=dict(ratio=1.02, control_ratio=1., saved_bytes_ratio=1.1),
            dmcp=dict(ratio=3.5, control_ratio=.9, saved_bytes_ratio=None)))
    assert text.splitlines() == [
        'plain         1.5 s a step',
        'search        1.020 x, control 1.000, kept for backward 1.100 x',
        'dmcp          3.500 x, control 0.900'
    ]
