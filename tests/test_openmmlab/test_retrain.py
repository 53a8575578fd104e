# Copyright (c) dms_razor contributors. All rights reserved.
import os
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from dms_razor.openmmlab.retrain import (RetrainConfig, read_config,
                                         standard_base)
from dms_razor.subnet import SubnetError

STANDARD = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
A1 = 'mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py'
CIFAR = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'


def load(retrain: RetrainConfig, folder: Path) -> Config:
    folder.mkdir(exist_ok=True)
    for name, text in retrain.files().items():
        (folder / name).write_text(text, encoding='utf-8')
    return Config.fromfile(str(folder / 'retrain.py'))


def unscoped(value):
    """Without the ``_scope_`` that mmengine adds to inherited configs."""
    if isinstance(value, dict):
        return {k: unscoped(v) for k, v in value.items() if k != '_scope_'}
    return [unscoped(v) for v in value] if isinstance(value, list) else value


def test_inherits_everything_but_the_model(tmp_path):
    base = get_config(STANDARD)
    config = load(RetrainConfig(STANDARD, base.model), tmp_path)
    model = config.pop('model')
    base.pop('model')
    imports = config.pop('custom_imports')
    assert unscoped(config.to_dict()) == unscoped(base.to_dict())
    assert imports['imports'] == ['dms_razor.openmmlab']
    assert set(model) == {'type', 'subnet', 'checkpoint', 'cfg'}
    assert model.type == 'DMSSubModel' and model.checkpoint is None
    assert model.cfg.backbone == dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(3, ),
        style='pytorch')


def test_the_folder_can_be_moved(tmp_path):
    retrain = RetrainConfig(STANDARD, dict(type='X'), from_search=True)
    assert str(tmp_path) not in retrain.text()
    for name in ('here', 'there'):
        model = load(retrain, tmp_path / name).model
        assert model.subnet == f'{tmp_path}/{name}/subnet.json'
        assert model.checkpoint == f'{tmp_path}/{name}/subnet.pth'


def test_another_recipe(tmp_path):
    architecture = get_config(STANDARD).model
    architecture.backbone.depth = 152
    architecture.backbone.init_cfg = dict(type='Pretrained', checkpoint='x')
    retrain = RetrainConfig(A1, architecture, recipe=True)
    model = load(retrain, tmp_path).model
    assert model.cfg.backbone.depth == 152
    assert model.cfg.backbone.drop_path_rate == .05
    assert 'init_cfg' not in model.cfg.backbone
    assert [a.type
            for a in model.cfg.train_cfg.augments] == ['Mixup', 'CutMix']
    assert load(retrain, tmp_path).train_cfg.max_epochs == 600


def test_what_does_not_fit_is_said(tmp_path):
    architecture = get_config(STANDARD).model
    architecture.backbone = dict(type='MobileNetV2')
    text = RetrainConfig(A1, architecture, recipe=True).text()
    comments = ' '.join(
        line.strip('# ') for line in text.splitlines() if line.startswith('#'))
    assert ('Not taken over from there: backbone.drop_path_rate=0.05: '
            'MobileNetV2 has no such argument.') in comments
    assert max(map(len, text.splitlines())) < 80


def test_local_base_imports_and_start(tmp_path, monkeypatch):
    (tmp_path / 'base.py').write_text(
        f"_base_ = '{CIFAR}'\nload_from = 'x.pth'\n"
        "custom_imports = dict(imports=['json'])\n")
    monkeypatch.chdir(tmp_path)
    retrain = RetrainConfig(
        'base.py',
        dict(type='X'),
        overrides=dict(train_dataloader=dict(batch_size=7)))
    config = load(retrain, tmp_path / 'out')
    assert config.load_from is None
    assert config.custom_imports.imports == ['json', 'dms_razor.openmmlab']
    assert config.train_dataloader.batch_size == 7
    assert config.train_dataloader.dataset.type == 'CIFAR10'


def test_a_base_that_cannot_be_used(tmp_path):
    for name in ('mmpretrain::resnet/none.py', 'nopackage::a.py',
                 str(tmp_path / 'none.py')):
        with pytest.raises(SubnetError, match='cannot be read .*Name an exis'):
            RetrainConfig(name, dict(type='X')).text()
    (tmp_path / 'data.py').write_text('a = 1\n')
    with pytest.raises(SubnetError, match="data.py' has no model.*Name a"):
        RetrainConfig(
            str(tmp_path / 'data.py'), dict(type='X'), recipe=True).text()
    with pytest.raises(
            SubnetError,
            match='model.cfg.type is a type, which '
            'cannot be written'):
        RetrainConfig(STANDARD, dict(type=dict)).text()


def test_standard_base(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'search.py').write_text(
        f"_base_ = ['{STANDARD}']\n"
        "model = dict(_delete_=True, type='DMS', architecture=dict(a=1))\n")
    assert standard_base(tmp_path / 'search.py') == STANDARD
    (tmp_path / 'sub' / 'again.py'
     ).write_text("_base_ = '../search.py'\nrandomness = dict(seed=1)\n")
    assert standard_base(tmp_path / 'sub' / 'again.py') == STANDARD
    (tmp_path / 'local.py').write_text(f"_base_ = '{CIFAR}'\n")
    (tmp_path / 'sub' / 'third.py'
     ).write_text("_base_ = ['../local.py']\nmodel = dict(architecture=1)\n")
    assert standard_base(tmp_path / 'sub' / 'third.py') == os.path.normpath(
        tmp_path / 'local.py')
    (tmp_path / 'parts.py').write_text(
        "_base_ = ['mmpretrain::_base_/default_runtime.py']\n"
        "model = dict(type='DMS', architecture=dict(a=1))\n")
    with pytest.raises(
            SubnetError,
            match="parts.py' inherits no whole config "
            'of a standard network. Name one'):
        standard_base(tmp_path / 'parts.py')


@pytest.mark.parametrize('local', [False, True])
def test_collate_functions_of_other_packages(tmp_path, local):
    """mmengine would hand ``_scope_`` to mmyolo's collate function."""
    base = 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'
    if local:
        (tmp_path / 'mine.py').write_text(f"_base_ = '{base}'\n")
        base = str(tmp_path / 'mine.py')
        assert '_scope_' in read_config(base)['train_dataloader']['collate_fn']
    retrain = RetrainConfig(
        base,
        dict(type='YOLODetector'),
        overrides=dict(train_dataloader=dict(batch_size=3)))
    loader = load(retrain, tmp_path / 'out').train_dataloader
    assert loader.collate_fn == dict(type='yolov5_collate')
    assert loader.batch_size == 3 and 'dataset' in loader


def by_path(base: Path, folder: Path) -> Config:
    """What a retrain.py gives that inherits its base by an absolute path."""
    files = RetrainConfig(str(base), dict(type='X')).files()
    folder.mkdir()
    text = files['retrain.py']
    assert "_base_ = './base.py'" in text and str(base.parent) not in text
    (folder / 'retrain.py').write_text(
        text.replace('./base.py', base.as_posix()), encoding='utf-8')
    return Config.fromfile(str(folder / 'retrain.py'))


@pytest.mark.parametrize('inherited', [
    CIFAR, 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py',
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
])
def test_a_local_base_is_flattened_exactly(tmp_path, inherited):
    """Old files inherit by an absolute path, and load; new ones the same."""
    (tmp_path / 'more').mkdir()
    (tmp_path / 'more' / 'parent.py').write_text(
        f"_base_ = '{inherited}'\n"
        "default_hooks = dict(zeta=dict(type='A'), alpha=dict(type='B'))\n"
        "odd = {'a b': 1, 'class': (2, ), 3: [float('-inf'), 1e-300], "
        "\"it's\": 'quote \"\\n'}\n")
    base = tmp_path / 'base.py'
    base.write_text(
        "_base_ = ['more/parent.py']\n"
        "place = '{{ fileDirname }}/x'\nname = '{{ fileBasename }}'\n"
        "again = [_base_.default_scope]\n"
        "home = '{{ $SOME_VARIABLE:unset }}'\n"
        'default_hooks = dict(alpha=dict(_delete_=True, type="C"))\n')
    old = by_path(base, tmp_path / 'old')
    new = load(RetrainConfig(str(base), dict(type='X')), tmp_path / 'new')
    for config in (old, new):
        config.model.pop('subnet')
    assert old.to_dict() == new.to_dict()
    assert list(new.default_hooks)[-2:] == ['zeta', 'alpha']
    assert new.place == f'{tmp_path}/x' and new.name == 'base.py'
    assert new.home == 'unset'


def test_modules_of_no_package_are_named(tmp_path, monkeypatch):
    (tmp_path / 'lonely_module.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'base.py').write_text(
        f"_base_ = '{CIFAR}'\ncustom_imports = dict(imports=['lonely_module',"
        "'json', 'mmpretrain.models', 'dms_razor.openmmlab'])\n")
    text = RetrainConfig(str(tmp_path / 'base.py'), dict(type='X')).text()
    notes = [line for line in text.splitlines() if 'no installed' in line]
    assert notes == [
        '# lonely_module is of no installed package: put the '
        'folder that holds it on'
    ]


def test_what_a_local_base_cannot_hold(tmp_path):
    (tmp_path /
     'base.py').write_text(f"_base_ = '{CIFAR}'\nodd = [dict(kind=set())]\n")
    with pytest.raises(SubnetError, match=r'odd\[0\].kind is a set, which'):
        RetrainConfig(str(tmp_path / 'base.py'), dict(type='X')).files()
