# Copyright (c) dms_razor contributors. All rights reserved.
"""Tools for detectors: their data, the quickstart, the comparison."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import shutil
import subprocess
import sys

import cv2
import pytest
from mmengine.config import Config

from dms_razor.datasets import write_digit_scenes

YOLO = 'configs/yolov8/'
NAMES = ('yolov8-d0.33-w0.125_b8-60e_coco-format.py',
         'dms-yolov8-50p_b8-60e_coco-format.py',
         'dms-yolov8-50p_b8-60e_coco-format_retrain.py')


@pytest.fixture
def tool(repo, monkeypatch):
    """Import a helper of tools/."""
    import importlib
    monkeypatch.syspath_prepend(str(repo / 'tools'))
    return importlib.import_module


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return write_digit_scenes(
        tmp_path_factory.mktemp('data') / 'scenes',
        dict(train=16, test=4),
        size=64)


def test_folder(tool, scenes, tmp_path):
    detection = tool('_detection')
    data = detection.CocoFolder(scenes)
    assert data.classes == tuple('0123456789')
    assert data.number('train') == 16 and data.number('test') == 4
    assert data.images('train') == 'train/' and not data.has('val')
    with pytest.raises(ValueError, match='annotations/train.json'):
        detection.CocoFolder(tmp_path)
    flat = tmp_path / 'flat'
    shutil.copytree(scenes / 'annotations', flat / 'annotations')
    assert detection.CocoFolder(flat).images('train') == 'images/'


@pytest.mark.parametrize('name', NAMES)
def test_configs_are_filled_in(name, tool, scenes, tmp_path, repo):
    detection = tool('_detection')
    cfg = detection.prepare(
        repo / YOLO / name,
        tmp_path,
        3,
        detection.CocoFolder(scenes),
        size=96,
        epochs=20,
        val='test')
    detection.never_flip(cfg)
    detection.set_batch_size(cfg, 4)
    used = ('train_dataloader', 'val_dataloader', 'test_dataloader',
            'custom_hooks', 'model')
    text = Config({name: cfg[name] for name in used}).dump()
    assert '320' not in text
    assert text.count('num_classes=10') == 2
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == 20
    assert cfg.train_dataloader.batch_size == 4
    switch = [h for h in cfg.custom_hooks if 'switch_epoch' in h]
    assert switch[0].switch_epoch == 18
    assert "type='mmdet.RandomFlip'" in text and 'prob=0.5' not in text
    if 'architecture' in cfg.model:
        assert cfg.model.search == dict(epochs=16, width_only_epochs=4)
        assert cfg.model.resource_loss.loss_weight == 4
        assert cfg.model.mutator.lr == pytest.approx(.02 / 4)


def test_quickstart(scenes, tmp_path, repo):
    done = subprocess.run([
        sys.executable, repo / 'tools/quickstart_detection.py', '--work-dir',
        tmp_path, '--epochs', '5', '--images', '16', '4'
    ],
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / 'table.md').read_text()
    assert table in done.stdout
    for name in ('supernet', 'searched', 'narrowed uniformly', 'mAP'):
        assert name in table
    assert cv2.imread(str(tmp_path / 'detections.png')).shape[0] > 100
    done = subprocess.run([
        sys.executable, repo / 'tools/export.py', tmp_path / 'search/subnet',
        '--checkpoint', tmp_path / 'searched/epoch_5.pth', '--boxes'
    ],
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


def test_comparison_without_data(tmp_path, repo):
    done = subprocess.run(
        [sys.executable, repo / 'tools/benchmark_detection.py', tmp_path],
        capture_output=True,
        text=True)
    assert done.returncode != 0 and 'Traceback' not in done.stderr
    assert 'annotations/train.json' in done.stderr


def test_further_columns(tool):
    from pathlib import Path
    comparison = tool('_comparison')
    rows = [
        comparison.Network(name, Path('a.py'), 10, 5, top1=[50.])
        for name in 'ab'
    ]
    text = comparison.table(rows, 'mAP (%)', {'ms': ['1.0', '2.0']})
    lines = text.split('\n')
    assert 'mAP (%)' in lines[0] and lines[0].rstrip(' |').endswith('ms')
    assert '1.0' in lines[2] and '2.0' in lines[3]
