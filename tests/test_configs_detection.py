# Copyright (c) dms_razor contributors. All rights reserved.
"""Every detector's config is searched, exported and retrained, with mosaic.

As in test_configs.py the whole path of `tools/train.py` runs, on small scenes
of digits: pipelines with mosaic and the switch to the one without, averaged
weights, mmyolo's own optimizer constructor, validation, export.
"""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import json
from pathlib import Path

import pytest
import torch
from detection_runs import run, scenes, shrink
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmrazor.registry import MODELS

from dms_razor.core.budget import parse_target
from dms_razor.openmmlab.example_input import input_shape_from_config
from dms_razor.openmmlab.from_config import preflight_of_config

ROOT = Path(__file__).parents[1] / 'configs'
YOLO, RETINA = ROOT / 'yolov8', ROOT / 'retinanet'
FILES = sorted([*YOLO.glob('*.py'), *RETINA.glob('*.py')])
RETRAINS = [path for path in FILES if path.stem.endswith('_retrain')]
# their tables do not ship; see test_configs_latency.py
LATENCY = [path for path in FILES if 'latency_table' in path.read_text()]
SEARCHES = [
    path for path in FILES if path.stem.startswith('dms-')
    and path not in RETRAINS and path not in LATENCY
]
PLAIN = [path for path in FILES if path not in RETRAINS + SEARCHES + LATENCY]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp('coco') / 'scenes')


@pytest.fixture(autouse=True)
def one_thread():
    """Small layers gain nothing from threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_download(cfg):
    """Without the pretrained backbone, which would be downloaded."""
    for model in (cfg.model.get('architecture'), cfg.model.get('cfg')):
        if model is not None:
            model.backbone.pop('init_cfg', None)
    return cfg


def averages(cfg):
    """Whether a config names the averaging of weights (mmyolo's do)."""
    return any(hook.type == 'EMAHook' for hook in cfg.get('custom_hooks', []))


def assert_averaged_and_switched(runner, averaged):
    """Weights were averaged at every step, and the mosaic ended."""
    ema = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    switch = [
        hook for hook in runner.hooks if hasattr(hook, 'switch_pipeline')
    ]
    assert len(ema) == len(switch) == int(averaged)
    if averaged:
        assert ema[0].ema_model.steps == runner.iter
        assert all(
            torch.isfinite(p).all() for p in ema[0].ema_model.parameters())
        assert switch[0]._has_switched
        transforms = runner.train_dataloader.dataset.pipeline.transforms
        names = [type(transform).__name__ for transform in transforms]
        assert not any('Mosaic' in name for name in names), names


def test_dms_yolov8_n_preflight():
    """Issue and paper: 18.5 G to 4.2 G MACs at 640 x 640, nothing fixed."""
    cfg = Config.fromfile(YOLO / 'dms-yolov8-n_syncbn_fast_8xb16-30e_coco.py')
    assert input_shape_from_config(cfg) == (3, 640, 640)
    report = preflight_of_config(cfg).check()
    assert report.supernet['macs'] == pytest.approx(18.50e9, rel=1e-3)
    assert report.supernet['params'] == pytest.approx(14.96e6, rel=1e-3)
    assert report.target == 4.2e9
    assert report.kinds['depth']['units'] == 4
    assert {item['module'].rpartition('.')[0]
            for item in report.full_width} == {
                f'bbox_head.head_module.{kind}_preds.{level}'
                for kind in ('cls', 'reg')
                for level in range(3)
            }


def test_retinanet_shape():
    cfg = Config.fromfile(RETINA / 'dms-retinanet-r50-50p_fpn_1x_coco.py')
    assert input_shape_from_config(cfg) == (3, 800, 1344)


@pytest.mark.parametrize('path', SEARCHES, ids=lambda path: path.stem)
def test_search_export_and_retrain(path, root, tmp_path):
    cfg = Config.fromfile(path)
    averaged = averages(cfg)
    cfg = without_download(shrink(cfg, root, tmp_path / 'search'))
    cfg.model.input_shape = (3, 160, 160)
    if not isinstance(cfg.model.target, str) or '%' not in cfg.model.target:
        cfg.model.target = '25%'
    if path.stem.startswith('dms-yolov8-n_'):
        # With statistics of its own the network finds boxes, of 80 classes;
        # the images have two, which COCO's metric cannot write down.
        for hook in cfg.custom_hooks:
            if hook['type'] == 'mmrazor.DMSHook':
                hook['bn_batches'] = 0
    runner = run(cfg)
    assert runner.iter == 4
    search = runner.model.search
    assert search.bank.depth_frozen and not search.unread_units()
    assert_averaged_and_switched(runner, averaged)

    out = tmp_path / 'search/subnet'
    counted = json.loads((out / 'report.json').read_text())
    target = parse_target(cfg.model.target, counted['macs']['supernet'],
                          'macs')
    assert .99 * target <= counted['macs']['counted'] <= target
    params = counted['params']['counted']
    del runner, search

    retrains = [
        file for file in RETRAINS if Config.fromfile(file).model.subnet ==
        f'work_dirs/{path.stem}/subnet/subnet.json'
    ]
    assert len(retrains) == 1
    for number, file in enumerate([*retrains, out / 'retrain.py']):
        cfg = shrink(
            Config.fromfile(file), root, tmp_path / f'retrain{number}')
        cfg.model.subnet = str(out / 'subnet.json')
        if cfg.model.get('checkpoint') is not None:
            cfg.model.checkpoint = str(out / 'subnet.pth')
        # what a search averages its retraining averages too
        assert averages(cfg) == averaged
        runner = run(without_download(cfg))
        assert_averaged_and_switched(runner, averaged)
        assert sum(p.numel() for p in runner.model.parameters()) == params
        assert runner.iter == 4
        if number == 0:
            assert runner.model.bbox_head is not None


@pytest.mark.parametrize('path', PLAIN, ids=lambda path: path.stem)
def test_plain_configs_train(path, root, tmp_path):
    runner = run(shrink(Config.fromfile(path), root, tmp_path))
    assert runner.iter == 4


def test_mmyolos_optimizer_sees_the_same_weights(root, tmp_path):
    """Its constructor looks for `.weight` and `.bias` of every module."""
    groups = []
    for number, name in enumerate(
        ('yolov8-d0.5-w0.5_syncbn_fast_8xb16-500e_coco.py',
         'dms-yolov8-n_syncbn_fast_8xb16-30e_coco.py')):
        cfg = shrink(
            Config.fromfile(YOLO / name), root, tmp_path / str(number))
        if number:
            cfg.model.update(input_shape=(3, 64, 64), target='25%')
        runner = Runner.from_cfg(cfg)
        wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        groups.append([[tuple(p.shape) for p in group['params']]
                       for group in wrapper.optimizer.param_groups])
        assert sum(map(len,
                       groups[-1])) == len(list(runner.model.parameters()))
    assert groups[0] == groups[1] and len(groups[0]) == 3


@pytest.mark.parametrize('detector', ['retinanet', 'yolov8'])
def test_searched_classifier_as_backbone(detector, root, tmp_path):
    """A searched mmpretrain backbone inside mmdet's and mmyolo's detectors."""
    from dms_razor.search import Search
    init_default_scope('mmpretrain')
    plain = dict(
        type='ResNet',
        depth=18,
        base_channels=16,
        stem_channels=16,
        out_indices=(3, ))
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            _scope_='mmpretrain',
            backbone=plain,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', in_channels=128, num_classes=10)))
    # mmyolo's necks take multiples of 8 alone
    search = Search(
        model,
        torch.randn(1, 3, 64, 64),
        target=.5,
        total_steps=1,
        units={'*conv*': dict(divisor=8)})
    subnet = tmp_path / 'subnet'
    search.bank.importance.copy_(torch.rand(search.space.layout.E))
    search.bank.refresh()
    search.export(subnet, picture=False)
    manifest = json.loads((subnet / 'subnet.json').read_text())
    widths = [
        manifest['modules'][f'backbone.layer{i}.1.conv2']['attributes']
        ['out_channels'] for i in range(1, 5)
    ]
    backbone = dict(
        type='DMSSubModel',
        _delete_=True,
        cfg=dict(plain, type='mmpretrain.ResNet', out_indices=(0, 1, 2, 3)),
        subnet=str(subnet / 'subnet.json'),
        checkpoint=str(subnet / 'subnet.pth'),
        part='backbone')
    if detector == 'retinanet':
        cfg = Config.fromfile(RETINA /
                              'dms-retinanet-r50-50p_fpn_1x_coco_retrain.py')
        cfg.model = cfg.model.cfg
        cfg.model.neck.in_channels = widths
    else:
        cfg = Config.fromfile(YOLO /
                              'yolov8-d0.33-w0.125_b8-60e_coco-format.py')
        cfg.model.backbone.clear()
        backbone['cfg']['out_indices'] = (1, 2, 3)
        cfg.model.neck.update(
            widen_factor=1., in_channels=widths[1:], out_channels=widths[1:])
        cfg.model.bbox_head.head_module.update(
            widen_factor=1., in_channels=widths[1:])
    backbone.pop('_delete_')
    cfg.model.backbone = backbone
    runner = run(shrink(cfg, root, tmp_path))
    assert runner.iter == 4
    assert type(runner.model.backbone).__name__ == 'ResNet'
    assert runner.model.backbone.conv1.out_channels == manifest['modules'][
        'backbone.conv1']['attributes']['out_channels']
