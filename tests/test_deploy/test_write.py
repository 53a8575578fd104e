# Copyright (c) dms_razor contributors. All rights reserved.
"""Subnets as files: as small as they are, the same outputs, any batch."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import json
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from dms_razor.deploy import (FORMATS, DeployError, DetectedBoxes, RawOutputs,
                              difference, load, onnx_latency, write_compared,
                              write_network)
from dms_razor.deploy.suppression import detection_difference
from dms_razor.openmmlab.submodel import subnet_of_folder
from dms_razor.subnet import SubnetError
from .helpers import CONVNEXT, DEIT, RESNET, RETINA, SWIN, YOLO, export

CASES = dict(
    yolo=YOLO,
    retina=RETINA,
    resnet=RESNET,
    deit=DEIT,
    swin=SWIN,
    convnext=CONVNEXT)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Case -> folder of an export, made when it is first asked for."""
    from pathlib import Path
    root = Path(__file__).resolve().parents[2]
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / 'subnet'
            export(CASES[name], made[name], root)
        return made[name]

    return get


@pytest.mark.parametrize('format', list(FORMATS))
@pytest.mark.parametrize('case', list(CASES))
def test_file_is_small_and_computes_the_same(case, format, folders, tmp_path):
    model, images = subnet_of_folder(folders(case))
    network = RawOutputs(model, images)
    path = write_network(network, images, tmp_path / f'a{FORMATS[format]}',
                         format)
    params = sum(p.numel() for p in model.parameters())
    assert path.stat().st_size <= 1.05 * 4 * params + 1e6
    run = load(path)
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            expected = model(images)
        if isinstance(expected, torch.Tensor):
            expected = [expected]
        else:
            expected = [tensor for part in expected for tensor in part]
        found = run(images)
        assert len(found) == len(expected) == len(network.names)
        for a, b in zip(expected, found):
            assert a.shape == b.shape and a.abs().max() > 0
            assert (a - b).abs().max() < 1e-4 * max(1, a.abs().max())
        assert difference(network, path, images) < 1e-4


def test_file_without_removed_blocks(tmp_path, repo):
    """C2f stages whose blocks have gone, in the file of every format."""
    folder = tmp_path / 'subnet'
    export(YOLO, folder, repo, blocks=.4)
    removed = json.loads((folder / 'report.json').read_text())['removed']
    assert len(removed) >= 2 and all('.blocks.' in name for name in removed)
    model, images = subnet_of_folder(folder)
    network = RawOutputs(model, images)
    for format, suffix in FORMATS.items():
        path = tmp_path / f'a{suffix}'
        assert write_compared(network, images, path, format)[1] < 1e-4
        params = sum(p.numel() for p in model.parameters())
        assert path.stat().st_size <= 1.05 * 4 * params + 1e6


@pytest.mark.parametrize('case', ['yolo', 'retina'])
def test_boxes_are_those_of_the_detector(case, folders, tmp_path):
    """Against the head's own `predict`, which shares no code with it."""
    model, images = subnet_of_folder(folders(case))
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        scores = DetectedBoxes(model, images).decode(model(images))[1]
    ranked = scores.flatten().sort(descending=True)[0]
    number = min(300, len(ranked) // 2)
    thr = float(ranked[number:number + 2].mean())
    # the file does not know the images and cuts no box at their border
    model.bbox_head.bbox_coder.clip_border = False
    model.bbox_head.test_cfg.update(
        score_thr=thr, max_per_img=2000, nms_pre=30000)
    network = DetectedBoxes(model, images)
    path = write_network(network, images, tmp_path / 'a.onnx', 'onnx')
    found = load(path)(images)[0]
    assert difference(network, path, images) < 1e-4
    samples = []
    for _ in images:
        sample = DetDataSample()
        sample.set_metainfo(
            dict(
                img_shape=(64, 64),
                ori_shape=(64, 64),
                pad_param=np.zeros(4),
                scale_factor=(1., 1.)))
        samples.append(sample)
    with torch.no_grad():
        predicted = model.predict(images, samples)
    total = 0
    for number, sample in enumerate(predicted):
        mine = found[found[:, 0] == number]
        theirs = sample.pred_instances
        assert abs(len(theirs) - len(mine)) <= .05 * len(theirs)
        total += len(theirs)
        rows = mine[:, 1:7].clone()
        if case == 'yolo':  # mmyolo does, at the end
            rows[:, :4].clamp_(0, 64)
        other = torch.cat([
            theirs.bboxes, theirs.scores[:, None], theirs.labels[:,
                                                                 None].float()
        ], 1)
        if len(other):
            nearest = torch.cdist(other, rows, p=float('inf')).min(1)[0]
            # equal but for ties that rounding decides
            assert (nearest < 1e-3).float().mean() > .95
    assert 20 < total <= 300


def test_wrong_detections_are_noticed(folders):
    model, images = subnet_of_folder(folders('yolo'))
    network = DetectedBoxes(model, images, score_thr=.3, most=2000)
    with torch.no_grad():
        right = network(images)[0]
    assert len(right) > 5
    assert detection_difference(network, right, images) < 1e-6
    assert detection_difference(network, right[1:], images) == float('inf')
    moved = right.clone()
    moved[0, 1] += 9
    assert detection_difference(network, moved, images) > 1e-2
    twice = torch.cat([right[:1], right])
    assert detection_difference(network, twice, images) == float('inf')


def test_latency_table(folders, tmp_path):
    model, images = subnet_of_folder(folders('resnet'))
    path = write_network(
        RawOutputs(model, images), images, tmp_path / 'a.onnx', 'onnx')
    table = onnx_latency(
        dict(a=path, b=path), images[:1], (1, 2), rounds=3, warmup=1)
    assert set(table) == {'a', 'b'} and set(table['a']) == {1, 2}
    assert all(ms > 0 for row in table.values() for ms in row.values())


def test_no_boxes_of_a_classifier(folders):
    model, images = subnet_of_folder(folders('resnet'))
    with pytest.raises(ValueError, match='raw outputs'):
        DetectedBoxes(model, images)


def test_what_cannot_be_written(folders, tmp_path):
    model, images = subnet_of_folder(folders('resnet'))
    network = RawOutputs(model, images)
    with pytest.raises(DeployError, match='onnx'):
        write_network(network, images, tmp_path / 'a', 'caffe')
    with pytest.raises(DeployError, match='boxes|format'):
        write_network(network, images[:, :1], tmp_path / 'a.onnx', 'onnx')
    assert not list(tmp_path.iterdir())


def test_file_that_differs_is_not_kept(folders, tmp_path):
    model, images = subnet_of_folder(folders('resnet'))
    network = RawOutputs(model, images)
    path = tmp_path / 'a.pt'
    assert write_compared(network, images, path, 'torchscript')[1] < 1e-4
    before = path.read_bytes()
    for bound in (0., float('nan')):
        with pytest.raises(DeployError, match='differ.*not kept.*another'):
            write_compared(network, images, path, 'torchscript', bound)
    assert list(tmp_path.iterdir()) == [path], 'an older file stays'
    assert path.read_bytes() == before
    with pytest.raises(DeployError, match='cannot be written'):
        write_compared(network, images, path / 'b.pt', 'torchscript')


def test_file_that_returns_no_number_is_noticed(folders, tmp_path):
    model, images = subnet_of_folder(folders('resnet'))
    network = RawOutputs(model, images)
    path = write_network(network, images, tmp_path / 'a.pt', 'torchscript')
    with torch.no_grad():
        model.head.fc.bias[0] = float('nan')
    assert difference(network, path, images) == float('inf')


class _RuntimeFail(Exception):
    """As ONNX Runtime's exceptions, of no kind but Exception."""


@pytest.mark.parametrize('where', ['InferenceSession', 'run', 'numbers'])
def test_tool_leaves_no_file_of_a_failure(where, folders, tmp_path, repo,
                                          monkeypatch):
    import onnxruntime
    real = onnxruntime.InferenceSession

    class Session:

        def __init__(self, path, *args, **kwargs):
            if where == 'InferenceSession':
                raise _RuntimeFail(f'Load model from {path} failed')
            self.real = real(path, *args, **kwargs)

        def run(self, *args):
            if where == 'run':
                raise _RuntimeFail('the input shape {2,3,64,64}')
            return [array + .1 for array in self.real.run(*args)]

    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    folder = shutil.copytree(folders('resnet'), tmp_path / 'subnet')
    files = sorted(folder.iterdir())
    tool = runpy.run_path(str(repo / 'tools/export.py'))
    monkeypatch.setattr(sys, 'argv', ['export.py', str(folder)])
    with pytest.raises(SystemExit) as ended:
        tool['main']()
    message = str(ended.value)
    assert message.startswith('DeployError: subnet.onnx ')
    assert 'another format' in message and 'not kept' in message
    assert '.tmp-' not in message
    assert sorted(folder.iterdir()) == files


def test_tool_names_a_size_that_does_not_fit(folders, repo, monkeypatch):
    tool = runpy.run_path(str(repo / 'tools/export.py'))
    monkeypatch.setattr(
        sys, 'argv',
        ['export.py', str(folders('yolo')), '--size', '40', '40'])
    with pytest.raises(SystemExit, match='DeployError.*another --size'):
        tool['main']()


@pytest.mark.parametrize('arguments, told', [
    (['--size', '0', '64'], '--size 0 64: give numbers of pixels'),
    (['--boxes', '--score-thr', '2'], '--score-thr 2.0: .* from 0 to 1'),
    (['--boxes', '--iou-thr', 'nan'], '--iou-thr nan: .* from 0 to 1'),
    (['--out', 'FOLDER'], 'DeployError.*FOLDER is no file name.*ends with '
     '.onnx'),
    (['--out', 'FOLDER/a.pt'], 'DeployError.*a.pt is no file.*ends with '
     '.onnx'),
    (['--format', 'pt2', '--out', 'FOLDER/a.onnx'], 'ends with .pt2'),
    (['--config', RESNET], 'is not there'),
    (['--config', YOLO], 'is a YOLODetector and no DMSSubModel; name a'),
    (['--config', 'configs/yolov8/dms-yolov8-50p_b8-60e_coco-format.py'
      ], 'is a mmrazor.DMS and no DMSSubModel; name a'),
])
def test_tool_with_wrong_options(arguments, told, folders, tmp_path, repo,
                                 monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'FOLDER').mkdir()
    arguments = [
        str(repo / text) if text.startswith('configs/') else text
        for text in arguments
    ]
    tool = runpy.run_path(str(repo / 'tools/export.py'))
    monkeypatch.setattr(
        sys, 'argv',
        ['export.py', str(folders('yolo')), *arguments])
    with pytest.raises(SystemExit) as ended:
        tool['main']()
    assert re.search(told, str(ended.value) + capsys.readouterr().err)
    assert not list((tmp_path / 'FOLDER').iterdir())
    assert not list(folders('yolo').glob('*.onnx'))


def test_threads_are_those_of_onnx_runtime(tmp_path):
    with pytest.raises(DeployError, match='x.pt is run by PyTorch, whose'):
        load(tmp_path / 'x.pt', threads=2)


def test_a_file_is_no_folder(folders):
    with pytest.raises(SubnetError, match='is a file; name the folder'):
        subnet_of_folder(folders('yolo') / 'subnet.pth')


def test_boxes_are_compared_where_noise_shows_none(folders, tmp_path,
                                                   monkeypatch):
    """With a high threshold there would be nothing to compare."""
    from dms_razor.deploy import check
    model, images = subnet_of_folder(folders('yolo'))
    network = DetectedBoxes(model, images, score_thr=.9999)
    with torch.no_grad():
        assert not len(network(images)[0])
    path = write_compared(network, images, tmp_path / 'a.onnx', 'onnx')[0]
    assert network.score_thr == .9999
    assert not len(load(path)(images)[0]), 'the file has the threshold'

    def load_wrong(*args):
        run = load(*args)

        def moved(images):
            found = run(images)[0]
            return [found + 9. * (torch.arange(7) == 1)]

        return moved

    monkeypatch.setattr(check, 'load', load_wrong)
    with pytest.raises(DeployError, match='a.onnx would differ'):
        write_compared(network, images, tmp_path / 'a.onnx', 'onnx')
    assert network.score_thr == .9999


def test_folder_without_config(folders, tmp_path):
    folder = folders('resnet')
    with pytest.raises(SubnetError, match='class of the network'):
        subnet_of_folder(folder, config=str(tmp_path / 'no.py'))
    other = folders('yolo') / 'retrain.py'
    with pytest.raises(SubnetError):
        subnet_of_folder(folder, config=str(other))


@pytest.mark.parametrize('arguments, told', [
    ([], 'largest difference'),
    (['--format', 'torchscript'], 'largest difference'),
    (['--boxes', '--score-thr', '0.3', '--size', '96', '64'], 'detections'),
])
def test_tool(arguments, told, folders, tmp_path, repo):
    out = tmp_path / 'file.onnx'
    if 'torchscript' in arguments:
        out = tmp_path / 'file.pt'
    done = subprocess.run([
        sys.executable, repo / 'tools/export.py',
        folders('yolo'), '--out', out, *arguments
    ],
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout and out.is_file()


def test_tool_refuses(folders, tmp_path, repo):
    done = subprocess.run([sys.executable, repo / 'tools/export.py', tmp_path],
                          capture_output=True,
                          text=True)
    assert done.returncode != 0 and 'Traceback' not in done.stderr
