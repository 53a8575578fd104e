# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from dms_razor.openmmlab.example_input import (example_image, image_shape,
                                               input_shape_from_config)


@pytest.mark.parametrize('given, shape', [
    (224, (3, 224, 224)),
    ((1, 32, 48), (1, 32, 48)),
    ([2, 3, 8, 8], (3, 8, 8)),
])
def test_ways_to_give_a_shape(given, shape):
    assert image_shape(given) == shape


@pytest.mark.parametrize('given', [(3, 8), (1, 1, 3, 8, 8), (3, 8, 0),
                                   (3, 8, 8.5)])
def test_no_image_shape(given):
    with pytest.raises(ValueError, match='image shape'):
        image_shape(given)


def test_image_follows_the_model():
    image = example_image(8, nn.Conv2d(3, 1, 1).double())
    assert image.shape == (1, 3, 8, 8) and image.dtype == torch.float64
    with pytest.raises(ValueError, match='input_shape'):
        example_image(None, nn.Conv2d(3, 1, 1))


@pytest.mark.parametrize('config, shape', [
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', (3, 224, 224)),
    ('mmpretrain::resnet/resnet50_8xb256-rsb-a3-100e_in1k.py', (3, 224, 224)),
    ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', (3, 32, 32)),
    ('mmpretrain::efficientnet/efficientnet-b2_8xb32_in1k.py', (3, 260, 260)),
    ('mmpretrain::lenet/lenet5_mnist.py', (1, 32, 32)),
    ('mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py', (3, 640, 640)),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', (3, 800, 1344)),
])
def test_standard_configs(config, shape):
    assert input_shape_from_config(get_config(config)) == shape


def test_wrapped_datasets_and_channels_of_a_search_config():
    pipeline = [dict(type='Resize', scale=(40, 24)), dict(type='PackInputs')]
    cfg = Config(
        dict(
            model=dict(architecture=dict(backbone=dict(in_channels=1))),
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    dataset=dict(type='Any', pipeline=pipeline)))))
    assert input_shape_from_config(cfg) == (1, 24, 40)


def test_a_config_that_does_not_say():
    cfg = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(pipeline=[dict(type='PackInputs')]))))
    with pytest.raises(ValueError, match='model.input_shape'):
        input_shape_from_config(cfg)
