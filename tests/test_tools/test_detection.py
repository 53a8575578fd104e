# Copyright (c) dms_razor contributors. All rights reserved.
"""Tools for detectors: their data, the quickstart, the comparison."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import json
import re
import shutil
import subprocess
import sys

import cv2
import pytest
from in_process import call
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from tools._digit_scenes import write_digit_scenes

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
    assert [len(data.content[s]['images'])
            for s in ('train', 'test')] == [16, 4]
    assert data.images('train') == 'train/' and 'val' not in data.content
    with pytest.raises(ValueError, match='annotations/train.json'):
        detection.CocoFolder(tmp_path)
    flat = tmp_path / 'flat'
    shutil.copytree(scenes / 'annotations', flat / 'annotations')
    shutil.copytree(scenes / 'train', flat / 'images')
    assert detection.CocoFolder(flat).images('train') == 'images/'


@pytest.mark.parametrize('name', NAMES)
def test_configs_are_filled_in(name, tool, scenes, tmp_path, repo):
    detection = tool('_detection')
    cfg = detection.prepare(
        repo / YOLO / name,
        detection.CocoFolder(scenes),
        size=96,
        epochs=20,
        val='test',
        flip=False)
    used = ('train_dataloader', 'val_dataloader', 'test_dataloader',
            'custom_hooks', 'model')
    text = Config({name: cfg[name] for name in used}).dump()
    assert '320' not in text
    assert text.count('num_classes=10') == 2
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == 20
    switch = [h for h in cfg.custom_hooks if 'switch_epoch' in h]
    assert switch[0].switch_epoch == 18
    assert "type='mmdet.RandomFlip'" in text and 'prob=0.5' not in text
    if 'architecture' in cfg.model:
        assert cfg.model.search == dict(epochs=16, width_only_epochs=4)


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
    assert 'WARNING' not in done.stdout + done.stderr
    assert 'index created' not in done.stdout, 'chatter of pycocotools'
    for name in ('supernet', 'searched', 'narrowed uniformly', 'mAP'):
        assert name in table
    assert cv2.imread(str(tmp_path / 'detections.png')).shape[0] > 100
    # what retrains it, and what inferencers read, knows data and image size
    cfg = Config.fromfile(tmp_path / 'search/subnet/retrain.py')
    assert 'work_dir' not in cfg and cfg.train_cfg.max_epochs == 5
    init_default_scope('mmyolo')
    loader = Runner.build_dataloader(cfg.val_dataloader)
    assert loader.dataset.metainfo['classes'] == tuple('0123456789')
    assert len(loader.dataset) == 4
    assert next(iter(loader))['inputs'][0].shape == (3, 128, 128)
    done = subprocess.run([
        sys.executable, repo / 'tools/export.py', tmp_path / 'search/subnet',
        '--checkpoint', tmp_path / 'searched/epoch_5.pth', '--boxes'
    ],
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def compare(load_tool, monkeypatch, capsys, tmp_path):
    """Run tools/benchmark_detection.py in this process."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        return call(load_tool, monkeypatch, capsys, 'benchmark_detection',
                    *arguments)

    return run


def test_comparison(compare, scenes, tmp_path):
    """All of it on tiny images; results of other settings are kept apart."""
    settings = ('--size', 64, '--epochs', 5, '--threads', 1, '--work-dir',
                tmp_path / 'out')
    done = compare(scenes, *settings)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / 'out/table.md').read_text()
    assert table in done.stdout
    head, _, *rows = table.strip().split('\n')
    for name in ('MACs', 'mAP, test (%)', 'mAP at 0.5, test (%)',
                 '1 thread (ms)'):
        assert f'| {name} ' in head
    cells = [[cell.strip() for cell in row.split('|')] for row in rows]
    assert [row[1] for row in cells] == ['supernet', 'searched', 'uniform']
    macs = [int(row[2].replace(',', '')) for row in cells]
    assert all(.495 * macs[0] <= n <= .5 * macs[0] for n in macs[1:])
    assert all(float(row[-2]) > 0 for row in cells)

    written = tmp_path / 'out/searched-0/result.json'
    before = written.stat().st_mtime_ns
    done = compare(scenes, *settings)
    assert done.returncode == 0 and 'training' not in done.stdout
    assert written.stat().st_mtime_ns == before
    for change, name in ((('--target', '40%'), 'target 50%, not 40%'),
                         (('--size', 96), 'size 64, not 96'),
                         (('--seeds', 1, 0), 'seed_of_the_search 0, not 1')):
        done = compare(scenes, *settings, *change)
        assert done.returncode != 0
        assert f'holds results with {name}; name another' in done.stderr


@pytest.mark.parametrize('arguments, told', [
    (('--epochs', 4), '--epochs: give at least 5'),
    (('--size', 100), '--size 100: YOLOv8 takes multiples of 32'),
    (('--size', 0), '--size 0: YOLOv8'),
    (('--seeds', 1, 1), '--seeds: give different'),
    (('--seeds', -1), '--seeds: give different'),
    (('--threads', 0), '--threads: give numbers'),
    (('--target', 'half', '--size', 64), 'SearchError: .*cannot be read'),
    (('--target', '200%', '--size', 64), 'SearchError: .*above the supernet'),
])
def test_comparison_with_wrong_options(arguments, told, compare, scenes):
    done = compare(scenes, *arguments)
    assert done.returncode != 0 and 'Traceback' not in done.stderr
    assert re.search(told, done.stderr)


def changed(scenes, folder, split='train', **changes):
    """A copy of the data in which something of a split is another."""
    shutil.copytree(scenes, folder)
    path = folder / f'annotations/{split}.json'
    content = dict(json.loads(path.read_text()), **changes)
    path.write_text(json.dumps(content))
    return folder


def test_data_that_cannot_be_trained_on(compare, scenes, tmp_path):
    classes = [dict(id=i, name=str(i)) for i in range(10)]
    image = dict(id=0, file_name='no.png', width=64, height=64)
    first = json.loads((scenes / 'annotations/train.json').read_text())
    cases = {
        'annotations/train.json is not there':
        tmp_path,
        'no.png, the first image of test.json, is not there':
        changed(scenes, tmp_path / 'a', 'test', images=[image]),
        'train.json has no annotations':
        changed(scenes, tmp_path / 'b', annotations=[]),
        'labels would be mixed up':
        changed(scenes, tmp_path / 'c', 'test', categories=classes[::-1]),
        'has 3 training images, which make no batch of 8':
        changed(scenes, tmp_path / 'd', images=first['images'][:3]),
    }
    for number, text in enumerate(('{', '[]', '{"images": 1}')):
        folder = changed(scenes, tmp_path / f'e{number}')
        (folder / 'annotations/train.json').write_text(text)
        cases[f'e{number}/annotations/train.json is not in COCO'] = folder
    alone = changed(scenes, tmp_path / 'f')
    (alone / 'annotations/test.json').unlink()
    cases['annotations/val.json is not there'] = alone
    for told, folder in cases.items():
        done = compare(folder)
        assert done.returncode != 0 and 'Traceback' not in done.stderr
        assert done.stderr.startswith('DataError: ')
        assert told in done.stderr


def test_classes_are_counted_as_mmdet_counts_them(tool, scenes, tmp_path):
    """In the order of the file, whatever the ids."""
    from mmdet.datasets import CocoDataset
    classes = [
        dict(id=9 - i if i < 5 else i - 5, name=f'n{i}') for i in range(10)
    ]
    folder = changed(scenes, tmp_path / 'a', categories=classes)
    shutil.copy(folder / 'annotations/train.json',
                folder / 'annotations/test.json')
    (folder / 'test').rename(folder / 'unused')
    shutil.copytree(folder / 'train', folder / 'test')
    data = tool('_detection').CocoFolder(folder)
    dataset = CocoDataset(
        ann_file=str(data.annotations('train')),
        data_prefix=dict(img=str(folder / 'train')),
        metainfo=dict(classes=data.classes))
    names = {entry['id']: entry['name'] for entry in classes}
    notes = json.loads(data.annotations('train').read_text())['annotations']
    expected = [names[n['category_id']] for n in notes if n['image_id'] == 0]
    found = dataset.get_data_info(0)['instances']
    assert [data.classes[f['bbox_label']] for f in found] == expected


@pytest.mark.parametrize('arguments, told', [
    (('--seed', -1), '--seed: give a number'),
    (('--images', 0, 4), '--images: give numbers'),
    (('--images', 4, 4), 'DataError: .*make no batch of 8'),
    (('--images', 8, 2, '--target', 'x'), 'SearchError: .*cannot be read'),
])
def test_quickstart_with_wrong_options(arguments, told, load_tool, monkeypatch,
                                       capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = call(load_tool, monkeypatch, capsys, 'quickstart_detection',
                *arguments)
    assert done.returncode != 0 and re.search(told, done.stderr)


def test_further_columns(tool):
    from pathlib import Path
    comparison = tool('_steps')
    rows = [
        comparison.Network(name, Path('a.py'), 10, 5, top1=[50.])
        for name in 'ab'
    ]
    text = comparison.table(rows, 'mAP (%)', {'ms': ['1.0', '2.0']})
    lines = text.split('\n')
    assert 'mAP (%)' in lines[0] and lines[0].rstrip(' |').endswith('ms')
    assert '1.0' in lines[2] and '2.0' in lines[3]
