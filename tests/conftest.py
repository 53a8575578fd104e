# Copyright (c) dms_razor contributors. All rights reserved.
"""What every test stands on: the shims first, the source tree everywhere."""
import os
import socket
import subprocess
import sys
from pathlib import Path

# Small networks gain less from a second thread than from a second process.
# Set before torch is imported, and for the processes that tests start.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch
from mmengine.registry import DefaultScope

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))  # for tools.zoo and the like

TINY_CONFIG = '''
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR', depth=18, in_channels=1, stem_channels=4,
        base_channels=4, num_stages=2, strides=(1, 2), dilations=(1, 1),
        out_indices=(1, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=10, in_channels=8,
        loss=dict(type='CrossEntropyLoss')),
    data_preprocessor=dict(mean=[127.5], std=[127.5], num_classes=10))
_data = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='DigitsDataset', indices=16, pipeline=[dict(type='PackInputs')]))
train_dataloader = _data
test_dataloader = _data
test_evaluator = dict(type='Accuracy')
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1))
'''

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 2)))
# Tools that a test starts import this source tree, not an installed copy.
os.environ['PYTHONPATH'] = os.pathsep.join(
    filter(None, [str(REPO), os.environ.get('PYTHONPATH')]))


@pytest.fixture(autouse=True)
def no_default_scope():
    """Every test begins without a registry scope, as a new process does.

    Runners and configs leave theirs behind, so that the outcome of a test
    would depend on the tests before it.
    """
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def seed():
    """Every test draws the same random numbers, whatever ran before it.

    Another processor rounds differently, so that no test may hold for one
    draw alone: ``DMS_RAZOR_SEED=1`` shows which do.
    """
    torch.manual_seed(int(os.environ.get('DMS_RAZOR_SEED', 0)))


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


@pytest.fixture
def tiny_config(tmp_path):
    """The path of a config that trains a tiny network on 16 digits."""
    path = tmp_path / 'tiny.py'
    path.write_text(TINY_CONFIG)
    return path
