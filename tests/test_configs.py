# Copyright (c) dms_razor contributors. All rights reserved.
"""Every config is searched, exported and retrained for two iterations.

The whole path of `tools/train.py` runs: data from files, the config's own
pipelines, optimizer, hooks, validation and export. What is made small is the
number and the size of the images and the length of the training; MACs are
counted at the config's own input size.
"""
import copy
import functools
import json
from pathlib import Path

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from dms_razor import trace as trace_package
from dms_razor.core.budget import parse_target
from dms_razor.openmmlab.example_input import input_shape_from_config

ROOT = Path(__file__).parents[1] / 'configs'
DETECTORS = ('retinanet', 'yolov8', 'quickstart_detection')
ALL = sorted(
    path for path in ROOT.glob('*/*.py') if path.parent.name != '_base_')
# detectors have tests of their own, in test_detection_configs.py
FILES = [path for path in ALL if path.parent.name not in DETECTORS]
RETRAINS = [path for path in FILES if path.stem.endswith('_retrain')]
# their tables do not ship; see test_configs_latency.py
LATENCY = [path for path in FILES if 'latency_table' in path.read_text()]
SEARCHES = [
    path for path in FILES if path.stem.startswith('dms-')
    and path not in RETRAINS and path not in LATENCY
]
EVOLUTIONS = [
    path for path in FILES
    if path.stem.startswith('ea-') and path not in RETRAINS
]
PLAIN = [
    path for path in FILES
    if path not in RETRAINS + SEARCHES + EVOLUTIONS + LATENCY
]

# What the paper and the standard models say: the supernet's MACs at the
# config's input size (published figures, 3 digits) and the target.
BUDGETS = {
    'dms-resnet34-50p_digits': (None, '50%'),
    'dms-resnet34-50p-pretrained_digits': (None, '50%'),
    'dms-resnet34-80p-200i-pretrained_digits': (None, '80%'),
    'dms-resnet152-4g_8xb32-10e_in1k': (11.5e9, 4.0e9),
    'dms-resnet50-1g_8xb32-10e_in1k': (4.09e9, 1.0e9),
    'dms-resnet50-1600m-width_8xb32-10e-pretrained_in1k': (4.09e9, 1.6e9),
    'dms-resnet50-3g_8xb32-800i-pretrained_in1k': (4.09e9, 3.0e9),
    'dms-mobilenet-v2-300m_8xb32-30e_in1k': (1.37e9, 0.3e9),
    'dms-en-350_8xb32-30e_in1k': (1.50e9, 0.35e9),
    'dms-en-b0_8xb32-30e_in1k': (1.50e9, 0.39e9),
    'dms-en-450_8xb32-30e_in1k': (1.50e9, 0.45e9),
    'dms-en-b1_8xb32-30e_in1k': (6.75e9, 0.68e9),
    'dms-en-b2_8xb32-30e_in1k': (8.54e9, 1.1e9),
    'dms-deit-small-b16-1300m_4xb256-30e_in1k': (6.10e9, 1.3e9),
    'dms-autoformer-tiny-coarse_4xb256-30e_in1k': (2.54e9, 1.8e9),
    'dms-autoformer-tiny-fine_4xb256-30e_in1k': (2.54e9, 1.8e9),
    'dms-autoformer-base-coarse_4xb256-30e_in1k': (16.5e9, 11e9),
    'dms-autoformer-base-fine_4xb256-30e_in1k': (16.5e9, 11e9),
    'dms-ofa-450m_8xb128-30e_in1k': (.566e9, .45e9),
    'dms-ofa-450m-fine_8xb128-30e_in1k': (.566e9, .45e9),
    'dms-swin-tiny-50p_16xb64-30e_in1k': (4.49e9, '50%'),
    'dms-convnext-tiny-50p_32xb128-30e_in1k': (4.46e9, '50%'),
}


@functools.lru_cache(maxsize=None)
def read(path):
    return Config.fromfile(path)


def config(path):
    """A fresh copy of a config file."""
    return copy.deepcopy(read(path))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Two noise images with labels, in the layout of ImageNet."""
    root = tmp_path_factory.mktemp('imagenet')
    rng = np.random.default_rng(0)
    for name in ('a.jpg', 'b.jpg'):
        cv2.imwrite(
            str(root / name), rng.integers(0, 256, (48, 56, 3), np.uint8))
    (root / 'list.txt').write_text('a.jpg 3\nb.jpg 7\n')
    return root


@pytest.fixture(autouse=True)
def one_thread():
    """Small layers gain nothing from threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def as_list(value):
    return value if isinstance(value, list) else [value]


def shrink(cfg, images, work_dir):
    """Two small images, two iterations, no checkpoints."""
    # Windows of Swin and position tables do not fit small images.
    large = ('swin-tiny', 'autoformer')
    side = 224 if any(n in Path(cfg.filename).stem for n in large) else 32
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = Path(cfg.filename).stem
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
    cfg.log_level = 'WARNING'
    cfg.randomness = dict(seed=0)
    # Batch norms of two images amplify gradients beyond all numbers.
    cfg.optim_wrapper.clip_grad = dict(max_norm=1.)
    loaders = [cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]
    if 'dataloader' in cfg.train_cfg:  # an evolution's
        loaders.append(cfg.train_cfg.dataloader)
    for loader in loaders:
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        if loader.dataset.type == 'DigitsDataset':
            loader.dataset.indices = 2
            continue
        loader.dataset.update(
            data_root=str(images), split='', ann_file='list.txt', indices=None)
        for transform in loader.dataset.pipeline:
            for key in ('scale', 'crop_size'):
                if key in transform:
                    edge = transform['type'] == 'ResizeEdge'
                    transform[key] = 40 if edge and side == 32 else side
    if 'dataloader' in cfg.train_cfg:
        cfg.train_cfg.update(
            max_epochs=2,
            num_candidates=3,
            top_k=2,
            num_mutation=1,
            num_crossover=1,
            calibrate_sample_num=2)
    elif cfg.train_cfg.get('by_epoch'):
        cfg.train_cfg.update(max_epochs=2, val_interval=2)
        for scheduler in as_list(cfg.param_scheduler):
            for key, last in (('begin', 1), ('end', 2)):
                if key in scheduler:
                    scheduler[key] = min(scheduler[key], last)
    else:
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    return cfg


def search(path, images, work_dir):
    """The search of a config file, two iterations; the runner."""
    cfg = config(path)
    shape = cfg.model.get('input_shape') or input_shape_from_config(cfg)
    cfg = shrink(cfg, images, work_dir)
    cfg.model.input_shape = shape
    unit = 'epochs' if cfg.train_cfg.get('by_epoch') else 'iters'
    cfg.model.search = {unit: 1, f'width_only_{unit}': 1}
    if cfg.get('load_from'):
        # the checkpoint's place is taken by a random network's
        assert cfg.load_from.startswith(
            ('https://download.openmmlab.com/', 'work_dirs/'))
        init_default_scope('mmpretrain')
        plain = MODELS.build(cfg.model.architecture)
        cfg.load_from = str(work_dir / 'plain.pth')
        torch.save(dict(state_dict=plain.state_dict()), cfg.load_from)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def retrain(path, subnet, images, work_dir):
    """The training of an exported subnet, two iterations; the runner."""
    cfg = shrink(config(path), images, work_dir)
    student = student_of(cfg)
    student.subnet = str(subnet)
    if student.get('checkpoint'):
        student.checkpoint = str(subnet.with_name('subnet.pth'))
    if cfg.model.type == 'DMSDistill':
        # the teacher's checkpoint, which a config beside it trains, is taken
        # by a random network's
        folder, epoch = cfg.model.teacher_ckpt.split('/')[1:]
        trained = config(path.with_name(f'{folder}.py'))
        assert epoch == f'epoch_{trained.train_cfg.max_epochs}.pth'
        assert plain_dict(trained.model) == plain_dict(student.cfg)
        cfg.model.teacher_ckpt = str(work_dir / 'teacher.pth')
        work_dir.mkdir()
        init_default_scope('mmpretrain')
        torch.save(
            MODELS.build(trained.model).state_dict(), cfg.model.teacher_ckpt)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def student_of(cfg):
    """The subnet in a retrain config, with a teacher or without."""
    return cfg.model.get('architecture', cfg.model)


def retrains_of(path):
    """The retrain configs that read a search's export."""
    subnet = f'work_dirs/{path.stem}/subnet/subnet.json'
    return [
        retrain for retrain in RETRAINS
        if student_of(read(retrain)).subnet == subnet
    ]


def plain_dict(cfg):
    """A model config without the scopes that `_base_` writes into it."""
    if isinstance(cfg, dict):
        return {k: plain_dict(v) for k, v in cfg.items() if k != '_scope_'}
    if isinstance(cfg, (list, tuple)):
        return [plain_dict(item) for item in cfg]
    return cfg


@pytest.mark.parametrize('path', SEARCHES, ids=lambda path: path.stem)
def test_search_export_and_retrain(path, images, tmp_path, monkeypatch):
    if 'autoformer-base' in path.stem:
        # The self-check of this code is that of autoformer-tiny.
        monkeypatch.setattr(
            trace_package, 'check_space',
            lambda model, inputs, run, builder, space, *_: space)
    whole, target = BUDGETS[path.stem]
    runner = search(path, images, tmp_path)
    report = runner.model.search.preflight().to_dict()
    assert report['reachable']
    if whole is not None:
        assert report['macs']['supernet'] == pytest.approx(whole, rel=5e-3)
    target = parse_target(target, report['macs']['supernet'], 'macs')
    assert report['macs']['target'] == target

    counted = json.loads((tmp_path / 'subnet/report.json').read_text())
    assert .99 * target <= counted['macs']['counted'] <= target
    exported = Config.fromfile(tmp_path / 'subnet/retrain.py')
    params = counted['params']['counted']
    del runner

    models = []
    for number, file in enumerate(retrains_of(path)):
        work_dir = tmp_path / f'retrain{number}'
        runner = retrain(file, tmp_path / 'subnet/subnet.json', images,
                         work_dir)
        student = getattr(runner.model, 'architecture', runner.model)
        assert sum(p.numel() for p in student.parameters()) == params
        assert runner.iter == 2
        models.append(plain_dict(student_of(read(file)).cfg))
    # the config that the search writes is the one that stands beside it
    assert plain_dict(exported.model.cfg) in models


@pytest.mark.parametrize('path', EVOLUTIONS, ids=lambda path: path.stem)
def test_evolution_export_and_retrain(path, images, tmp_path):
    """From the checkpoint of the one-shot training that `load_from` names."""
    cfg = config(path)
    folder = cfg.load_from.split('/')[1]
    one_shot = config(path.with_name(f'{folder}.py'))
    assert cfg.load_from == (
        f'work_dirs/{folder}/epoch_{one_shot.train_cfg.max_epochs}.pth')
    # the same space, and the same elements kept by the same counts
    assert plain_dict(one_shot.model.mutator) == plain_dict(cfg.model.mutator)
    shape = one_shot.model.input_shape
    trained = MODELS.build(dict(one_shot.model, _scope_='mmpretrain'))
    cfg = shrink(cfg, images, tmp_path)
    cfg.model.input_shape = shape
    cfg.load_from = str(tmp_path / 'supernet.pth')
    torch.save(dict(state_dict=trained.state_dict()), cfg.load_from)
    if 'predictor_cfg' in cfg.train_cfg:
        cfg.train_cfg.predictor_cfg.update(train_samples=3)
        cfg.train_cfg.predictor_cfg.handler_cfg.update(num_trees=2)
    runner = Runner.from_cfg(cfg)
    runner.train()
    counted = json.loads((tmp_path / 'subnet/report.json').read_text())
    target = runner.model.search.target
    assert .99 * target <= counted['macs']['counted'] <= target
    (file, ) = retrains_of(path)
    again = retrain(file, tmp_path / 'subnet/subnet.json', images,
                    tmp_path / 'retrain')
    assert sum(
        p.numel()
        for p in again.model.parameters()) == counted['params']['counted']
    exported = Config.fromfile(tmp_path / 'subnet/retrain.py')
    assert plain_dict(exported.model.cfg) == plain_dict(read(file).model.cfg)


@pytest.mark.parametrize('path', PLAIN, ids=lambda path: path.stem)
def test_plain_configs_train(path, images, tmp_path):
    runner = Runner.from_cfg(shrink(config(path), images, tmp_path))
    runner.train()
    assert runner.iter == 2


def test_rsb_a1_is_another_recipe(images, tmp_path):
    """What `retrain_base` writes is the rsb-a1 config of this folder."""
    path = ROOT / 'resnet/dms-resnet50-1g_8xb32-10e_in1k.py'
    base = 'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py'
    cfg = config(path)
    shape = input_shape_from_config(cfg)
    cfg = shrink(cfg, images, tmp_path)
    cfg.model.update(
        input_shape=shape, search=dict(epochs=1, width_only_epochs=1))
    export, = (
        hook for hook in cfg.custom_hooks
        if hook['type'] == 'mmrazor.ExportSubnetHook')
    export.retrain_base = base
    Runner.from_cfg(cfg).train()
    written = Config.fromfile(tmp_path / 'subnet/retrain.py')
    beside = config(
        ROOT / 'resnet/dms-resnet152-4g_8xb256-rsb-a1-600e_in1k_retrain.py')
    beside.model.cfg.backbone.depth = 50
    assert plain_dict(written.model.cfg) == plain_dict(beside.model.cfg)
    assert written.train_cfg.max_epochs == 600
    assert written.optim_wrapper.optimizer.type == 'Lamb'


def test_every_retrain_config_has_its_search():
    searches = {
        f'work_dirs/{path.stem}/subnet/subnet.json'
        for path in SEARCHES + EVOLUTIONS + LATENCY
    }
    for path in RETRAINS:
        assert student_of(config(path)).subnet in searches, path
    for path in SEARCHES + EVOLUTIONS + LATENCY:
        assert retrains_of(path), path
    assert set(BUDGETS) == {path.stem for path in SEARCHES}


@pytest.mark.parametrize(
    'folder',
    sorted({path.parent
            for path in ALL}),
    ids=lambda folder: folder.name)
def test_folder_is_described(folder):
    readme = (folder / 'README.md').read_text(encoding='utf-8')
    meta = yaml.safe_load((folder / 'metafile.yml').read_text())
    listed = {model['Config']: model for model in meta['Models']}
    collections = {item['Name'] for item in meta['Collections']}
    for path in folder.glob('*.py'):
        assert f']({path.name})' in readme, f'{path} is not in the README'
        model = listed.pop(path.relative_to(ROOT.parent).as_posix())
        assert model['Name'] == path.stem
        assert model['In Collection'] in collections
    assert not listed, f'{folder}/metafile.yml lists what is not there'
