# Copyright (c) dms_razor contributors. All rights reserved.
"""What every test stands on: the shims first, the source tree everywhere."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch

REPO = Path(__file__).resolve().parents[1]

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 2)))
# Tools that a test starts import this source tree, not an installed copy.
os.environ['PYTHONPATH'] = os.pathsep.join(
    filter(None, [str(REPO), os.environ.get('PYTHONPATH')]))


@pytest.fixture(autouse=True)
def seed():
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def repo() -> Path:
    """The root of the source tree."""
    return REPO


@pytest.fixture
def run_python(tmp_path):
    """Run a piece of Python in a fresh process without a GPU.

    ``run_python(code, *arguments, **environment)`` returns the completed
    process; its output is text, its working folder the test's ``tmp_path``.
    """

    def run(code: str, *arguments: str, **environment: str):
        return subprocess.run(
            [sys.executable, '-c', code, *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ, 'CUDA_VISIBLE_DEVICES': '-1',
                **environment
            },
            capture_output=True,
            text=True,
            timeout=300)

    return run


@pytest.fixture
def free_port() -> int:
    """A TCP port on which nothing listens at the moment."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]
