# Copyright (c) dms_razor contributors. All rights reserved.
"""OpenMMLab's inferencers on the config and the weights of an export."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmpretrain import ImageClassificationInferencer

from dms_razor.openmmlab.submodel import subnet_of_folder
from .helpers import RESNET, RETINA, YOLO, export


def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_detector(tmp_path, repo):
    folder = tmp_path / 'subnet'
    export(YOLO, folder, repo)
    weights = torch.load(folder / 'subnet.pth', weights_only=True)
    # inferencers ask a checkpoint for the names of the classes
    path = tmp_path / 'weights.pth'
    torch.save(
        dict(
            state_dict=weights,
            meta=dict(dataset_meta=dict(CLASSES=('cell', )))), path)
    model, _ = subnet_of_folder(folder)
    found = []
    for file in (path, folder / 'subnet.pth'):
        inferencer = DetInferencer(
            str(folder / 'retrain.py'),
            str(file),
            device='cpu',
            scope='mmyolo')
        for name, tensor in model.state_dict().items():
            assert torch.equal(inferencer.model.state_dict()[name], tensor)
        out = inferencer(image(), no_save_vis=True)
        found.append(out['predictions'][0])
    assert len(found[0]['scores']) > 0
    assert found[0] == found[1]


@pytest.mark.parametrize('base', [YOLO, RETINA], ids=['yolo', 'retina'])
def test_init_detector(base, tmp_path, repo):
    """It reads config.model.backbone, which a subnet's config has not."""
    folder = tmp_path / 'subnet'
    export(base, folder, repo)
    found = init_detector(
        str(folder / 'retrain.py'), str(folder / 'subnet.pth'), device='cpu')
    model, _ = subnet_of_folder(folder)
    assert type(found) is type(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    out = inference_detector(found, image())
    assert len(out.pred_instances.scores) > 0
    # of the searched weights alone the names are not known
    assert 'person' in found.dataset_meta['classes']
    torch.save(
        dict(
            state_dict=model.state_dict(),
            meta=dict(dataset_meta=dict(CLASSES=('cell', )))),
        tmp_path / 'epoch_1.pth')
    found = init_detector(
        str(folder / 'retrain.py'),
        str(tmp_path / 'epoch_1.pth'),
        device='cpu')
    assert found.dataset_meta['classes'] == ('cell', )


def test_classifier(tmp_path, repo):
    folder = tmp_path / 'subnet'
    export(RESNET, folder, repo, size=32)
    inferencer = ImageClassificationInferencer(
        str(folder / 'retrain.py'), str(folder / 'subnet.pth'), device='cpu')
    out = inferencer(image())[0]
    assert 0 <= out['pred_label'] < 10
    model, _ = subnet_of_folder(folder)
    data = inferencer.preprocess([image()])
    batch = next(iter(data))
    batch = model.data_preprocessor(batch)
    with torch.no_grad():
        scores = model(batch['inputs']).softmax(1)
    assert torch.allclose(
        scores[0], torch.tensor(out['pred_scores']), atol=1e-5)
