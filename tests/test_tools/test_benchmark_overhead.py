# Copyright (c) dms_razor contributors. All rights reserved.
"""The tool runs and reports; how fast things are is not tested here."""
import json
import subprocess
import sys
from pathlib import Path

from in_process import call
from toy_runs import toy_config


def test_keys(load_tool, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = toy_config(tmp_path)
    cfg.custom_imports = dict(imports=['dms_razor.openmmlab'])
    cfg.dump(tmp_path / 'search.py')
    result = call(load_tool, monkeypatch, capsys, 'benchmark_overhead',
                  'search.py', '--batch', 4, '--rounds', 2, '--warmup', 1,
                  '--json', '-')
    assert result.returncode == 0
    result = json.loads(result.stdout)
    assert set(result) == {
        'plain_s', 'search_s', 'ratio', 'control_ratio', 'saved_bytes_ratio',
        'masks_ms'
    }
    assert all(value > 0 for value in result.values())
    assert result['saved_bytes_ratio'] > 1


def test_json_alone_on_stdout(tmp_path):
    """In a process of its own: mmengine's logger has a stdout of its own."""
    cfg = toy_config(tmp_path)
    cfg.custom_imports = dict(imports=['dms_razor.openmmlab'])
    cfg.log_level = 'INFO'
    cfg.dump(tmp_path / 'search.py')
    tool = Path(__file__).parents[2] / 'tools' / 'benchmark_overhead.py'
    run = subprocess.run([
        sys.executable, tool, tmp_path / 'search.py', '--batch', '2',
        '--rounds', '1', '--warmup', '0', '--json', '-'
    ],
                         capture_output=True,
                         text=True,
                         cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)['ratio'] > 0
