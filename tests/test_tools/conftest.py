# Copyright (c) dms_razor contributors. All rights reserved.
"""A training of two iterations an epoch, and a way to start the tools."""
import os
import subprocess
import sys

import pytest

CONFIG = '''
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


@pytest.fixture
def config(tmp_path):
    """The path of a config that trains a tiny network on 16 digits."""
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG)
    return path


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
