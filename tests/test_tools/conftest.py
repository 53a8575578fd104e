# Copyright (c) dms_razor contributors. All rights reserved.
"""Ways to start the tools."""
import os
import subprocess
import sys

import pytest


@pytest.fixture
def run_tool(repo, tmp_path):
    """``run_tool('train.py', *arguments, **environment)`` -> its output.

    The tool runs without a GPU, in ``tmp_path``; a failure fails the test.
    """

    def run(tool: str, *arguments, **environment) -> str:
        program = 'bash' if tool.endswith('.sh') else sys.executable
        result = subprocess.run(
            [program, repo / 'tools' / tool, *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ, 'PYTHON': sys.executable,
                'CUDA_VISIBLE_DEVICES': '-1',
                'OMP_NUM_THREADS': '1',
                **environment
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300)
        assert result.returncode == 0, result.stdout
        return result.stdout

    return run


@pytest.fixture
def load_tool(repo, monkeypatch):
    """Import a tool as a module: ``load_tool('train')``."""
    monkeypatch.syspath_prepend(str(repo / 'tools'))

    def load(name: str):
        import importlib
        return importlib.import_module(name)

    return load


@pytest.fixture
def config(tiny_config):
    """The config that the tools are tried with."""
    return tiny_config
