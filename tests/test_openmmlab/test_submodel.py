# Copyright (c) dms_razor contributors. All rights reserved.
import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, load_checkpoint
from mmpretrain.models import ImageClassifier, ResNet

from dms_razor.openmmlab.retrain import RetrainConfig
from dms_razor.openmmlab.submodel import DMSSubModel
from dms_razor.subnet import SubnetError, export_subnet
from dms_razor.subnet.export import FILES
from dms_razor.trace import trace

CFG = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=50,
        stem_channels=8,
        base_channels=8,
        expansion=2,
        out_indices=(0, 1, 2, 3)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss')),
    train_cfg=dict(augments=dict(type='Mixup', alpha=.8)))
DATA = dict(num_classes=10, mean=[0.] * 3, std=[255.] * 3, to_rgb=False)

BASE = """
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)
data_preprocessor = dict(
    _delete_=True, num_classes=10, mean=[77.8], std=[95.9])
model = dict(
    backbone=dict(in_channels=1, stem_channels=8, base_channels=8),
    head=dict(in_channels=64),
    train_cfg=dict(augments=dict(type='Mixup', alpha=.8)))
train_dataloader = dict(
    batch_size=601, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='DigitsDataset', split='train',
        pipeline=[dict(type='PackInputs')]))
val_dataloader = test_dataloader = dict(
    batch_size=300, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='DigitsDataset', split='test',
        pipeline=[dict(type='PackInputs')]))
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(copy.deepcopy(CFG))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape) + .5)
    space = trace(model, torch.zeros(1, 3, 64, 64))
    keep = space.random_selection(torch.Generator().manual_seed(5))
    path = tmp_path_factory.mktemp('export') / 'subnet'
    return export_subnet(path, model, space, keep, picture=False)


def config(exported, **kwargs):
    return dict(
        type='DMSSubModel',
        cfg=copy.deepcopy(CFG),
        subnet=str(exported.path / 'subnet.json'),
        **kwargs)


def weights(exported):
    return str(exported.path / 'subnet.pth')


def test_registered_under_every_scope(exported):
    for scope in ('mmpretrain', 'mmrazor', 'mmdet', 'mmengine'):
        with DefaultScope.overwrite_default_scope(scope):
            assert MODELS.get('DMSSubModel') is DMSSubModel
    assert MODELS.get('mmrazor.DMSSubModel') is DMSSubModel
    wrapped = config(exported)
    wrapped['cfg']['_scope_'] = 'mmpretrain'
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert isinstance(MODELS.build(wrapped), ImageClassifier)


def test_is_the_exported_network(exported):
    model = MODELS.build(config(exported, checkpoint=weights(exported)))
    assert type(model) is ImageClassifier
    assert type(model.backbone) is ResNet
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(model.eval()(x), exported.model.eval()(x))
    again = MODELS.build(config(exported))
    load_checkpoint(again, weights(exported), strict=True)
    assert torch.equal(again.eval()(x), model(x))


def test_data_preprocessor_and_batch_augments(exported):
    # a runner puts the config's data_preprocessor beside the model's keys
    model = MODELS.build(config(exported, data_preprocessor=dict(DATA)))
    preprocessor = model.data_preprocessor
    assert preprocessor.num_classes == 10
    assert preprocessor.std.flatten().tolist() == [255.] * 3
    assert [type(a).__name__
            for a in preprocessor.batch_augments.augments] == ['Mixup']
    own = config(exported, data_preprocessor=dict(DATA))
    own['cfg']['data_preprocessor'] = dict(DATA, num_classes=7)
    assert MODELS.build(own).data_preprocessor.num_classes == 7


def test_the_config_is_not_changed(exported):
    cfg = config(exported, data_preprocessor=dict(DATA))
    before = copy.deepcopy(cfg)
    MODELS.build(cfg)
    assert cfg == before


def test_from_scratch_init_weights_knows_the_width(exported):
    model = MODELS.build(config(exported))
    model.init_weights()
    # mmpretrain's ResNet: Kaiming normal by fan out, last norms zero
    conv = model.backbone.layer4[0].conv2.weight
    expected = (2 / (conv.shape[0] * 9))**.5
    assert conv.shape[0] < 64
    assert abs(float(conv.detach().std()) / expected - 1) < .1
    assert not model.backbone.layer4[0].norm3.weight.any()


def test_init_weights_keeps_searched_weights(exported):
    model = MODELS.build(config(exported, checkpoint=weights(exported)))
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert expected['backbone.layer1.0.bn3.weight'].any()


def test_no_pretrained_weights_of_the_supernet(exported):
    cfg = config(exported)
    missing = dict(type='Pretrained', checkpoint='/nowhere/supernet.pth')
    cfg['cfg']['backbone']['init_cfg'] = missing
    cfg['cfg']['pretrained'] = '/nowhere/supernet.pth'
    model = MODELS.build(cfg)
    model.init_weights()
    assert model.backbone.conv1.weight.std() > .01


def test_backbone_alone_in_a_detector(exported):
    import mmdet.models  # noqa: F401
    channels = [
        exported.manifest.modules[f'backbone.layer{i}.0.conv3']['attributes']
        ['out_channels'] for i in range(1, 5)
    ]
    backbone = config(exported, checkpoint=weights(exported), part='backbone')
    backbone['cfg'] = dict(CFG['backbone'], type='mmpretrain.ResNet')
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(
            dict(
                type='RetinaNet',
                backbone=backbone,
                neck=dict(
                    type='FPN',
                    in_channels=channels,
                    out_channels=16,
                    num_outs=5),
                bbox_head=dict(
                    type='RetinaHead',
                    num_classes=3,
                    in_channels=16,
                    feat_channels=16,
                    stacked_convs=1,
                    anchor_generator=dict(
                        type='AnchorGenerator',
                        octave_base_scale=4,
                        scales_per_octave=3,
                        ratios=[0.5, 1.0, 2.0],
                        strides=[8, 16, 32, 64, 128]),
                    bbox_coder=dict(type='DeltaXYWHBBoxCoder'))))
        detector.init_weights()
    assert type(detector.backbone) is ResNet
    x = torch.rand(1, 3, 64, 64)
    expected = exported.model.eval().backbone(x)
    detector.eval()
    for a, b in zip(detector.backbone(x), expected):
        assert torch.equal(a, b)
    detector(x)


def test_what_does_not_belong_together(exported, tmp_path):
    other = config(exported)
    other['cfg']['backbone']['base_channels'] = 16
    other['cfg']['head']['in_channels'] = 256
    with pytest.raises(
            SubnetError,
            match='ImageClassifier is not the network '
            'that this subnet was cut from .*Build it from'):
        MODELS.build(other)
    strided = config(exported)
    strided['cfg']['backbone']['strides'] = (1, 2, 2, 1)
    with pytest.raises(SubnetError, match='takes [0-9,]+ MACs, its manifest'):
        MODELS.build(strided)
    supernet = MODELS.build(copy.deepcopy(CFG))
    torch.save(supernet.state_dict(), tmp_path / 'supernet.pth')
    with pytest.raises(
            SubnetError,
            match="supernet.pth' is not of this "
            'ImageClassifier: backbone.conv1.weight has shape'):
        MODELS.build(
            config(exported, checkpoint=str(tmp_path / 'supernet.pth')))
    text = (exported.path / 'subnet.json').read_text()
    for name, content, message in (
        ('cut', text[:-99], 'truncated'),
        ('edited', text.replace('"kept": ', '"kept": 1'), 'edited'),
        ('new', text.replace('"version": 1', '"version": 9'), 'version 9'),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(SubnetError, match=f"{name}' .*{message}"):
            DMSSubModel(CFG, str(tmp_path / name))
    with pytest.raises(TypeError, match="dict with a 'type'"):
        DMSSubModel('resnet50', 'subnet.json')
    with pytest.raises(SubnetError, match='no manifest'):
        DMSSubModel(CFG, str(tmp_path / 'nothing.json'))


def write_export(tmp_path):
    """An export whose retrain base is a file of a project with a parent."""
    project = tmp_path / 'project'
    project.mkdir()
    (project / 'parent.py').write_text(BASE)
    (project / 'base.py').write_text("_base_ = './parent.py'\n")
    base = Config.fromfile(str(project / 'base.py'))
    model = MODELS.build(copy.deepcopy(base.model))
    space = trace(model, torch.zeros(1, 1, 8, 8))
    keep = space.random_selection(torch.Generator().manual_seed(2))
    return export_subnet(
        tmp_path / 'subnet',
        model,
        space,
        keep,
        retrain=RetrainConfig(str(project / 'base.py'), base.model))


def test_retrain_config_in_a_runner(tmp_path):
    export = write_export(tmp_path)
    cfg = Config.fromfile(str(export.path / 'retrain.py'))
    cfg.work_dir = str(tmp_path / 'work')
    cfg.experiment_name = 'submodel'
    runner = Runner.from_cfg(cfg)
    shapes = {k: v.shape for k, v in export.model.state_dict().items()}
    assert {k: v.shape for k, v in runner.model.state_dict().items()} == shapes
    augments = runner.model.data_preprocessor.batch_augments
    assert type(augments.augments[0]).__name__ == 'Mixup'
    before = runner.model.head.fc.weight.detach().clone()
    runner.train()
    assert not torch.equal(before, runner.model.head.fc.weight)
    trained = DMSSubModel(
        cfg.model.cfg,
        cfg.model.subnet,
        checkpoint=str(tmp_path / 'work' / 'epoch_1.pth'))
    assert torch.equal(trained.head.fc.weight, runner.model.head.fc.weight)


def test_mim_train(tmp_path):
    export = write_export(tmp_path)
    done = subprocess.run([
        sys.executable, '-m', 'mim', 'train', 'mmpretrain',
        str(export.path / 'retrain.py'), '--gpus', '0', '--work-dir',
        str(tmp_path / 'work')
    ],
                          capture_output=True,
                          text=True,
                          cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / 'work' / 'epoch_1.pth').exists()
    log, = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    last = json.loads(log.read_text().splitlines()[-1])
    assert last['accuracy/top1'] > 0


def test_a_moved_folder_trains_without_its_project(tmp_path, run_python):
    export = write_export(tmp_path)
    names = sorted(file.name for file in export.path.iterdir())
    assert 'base.py' in names and set(names) <= set(FILES)
    moved = tmp_path / 'elsewhere' / 'renamed'
    moved.parent.mkdir()
    export.path.rename(moved)
    shutil.rmtree(tmp_path / 'project')
    done = run_python(
        """
import sys, torch
from mmengine.config import Config
from mmengine.runner import Runner
cfg = Config.fromfile(sys.argv[1] + '/retrain.py')
cfg.work_dir = sys.argv[1] + '/../work'
runner = Runner.from_cfg(cfg)
before = runner.model.head.fc.weight.detach().clone()
runner.train()
assert not torch.equal(before, runner.model.head.fc.weight)
shapes = {k: v.shape for k, v in runner.model.state_dict().items()}
torch.save(shapes, 'shapes.pth')
""", moved)
    assert done.returncode == 0, done.stderr[-3000:]
    assert torch.load(tmp_path / 'shapes.pth') == {
        name: value.shape
        for name, value in export.model.state_dict().items()
    }
    # whatever the base had is written out, and none of its places
    for name in ('retrain.py', 'base.py'):
        assert str(tmp_path) not in (moved / name).read_text()
