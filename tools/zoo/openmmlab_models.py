# Copyright (c) dms_razor contributors. All rights reserved.
"""One network each of MMSegmentation and MMPose: evaluation and training are
two ways through them, and an auxiliary head runs in training alone.

mmpretrain, mmdet and mmyolo have tables of their own.
"""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

from typing import Any, Callable, Dict, List, Tuple

import mmpose.models  # noqa: F401  (they register themselves)
import mmseg.models  # noqa: F401
import torch
from mmengine.structures import InstanceData, PixelData
from mmpose.registry import MODELS as POSE
from mmpose.structures import PoseDataSample
from mmseg.registry import MODELS as SEGMENTATION
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from .case import Case, images

PACKAGES = ('mmsegmentation', 'mmpose')
SIDE = 64
CLASSES = 5

_RESNET = dict(
    type='ResNetV1c',
    depth=18,
    strides=(1, 2, 1, 1),
    dilations=(1, 1, 2, 4),
    norm_cfg=dict(type='BN'))
_SEGMENTER = dict(
    type='EncoderDecoder',
    backbone=_RESNET,
    decode_head=dict(
        type='PSPHead',
        in_channels=512,
        in_index=3,
        channels=64,
        num_classes=CLASSES,
        norm_cfg=dict(type='BN')),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=256,
        in_index=2,
        channels=32,
        num_convs=1,
        num_classes=CLASSES,
        norm_cfg=dict(type='BN')))
_POSE = dict(
    type='TopdownPoseEstimator',
    backbone=dict(type='ResNet', depth=18),
    head=dict(
        type='HeatmapHead',
        in_channels=512,
        out_channels=CLASSES,
        deconv_out_channels=(64, 64),
        deconv_kernel_sizes=(4, 4),
        loss=dict(type='KeypointMSELoss', use_target_weight=True)))


def map_of_classes(samples: int, seed: int) -> Tuple[Tensor, Tensor]:
    """Images, and the class of every pixel ``[B, 1, H, W]``."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(
        CLASSES, (samples, 1, SIDE, SIDE), generator=generator)
    return images(SIDE)(samples, seed), labels


def segmentation_loss(model: nn.Module, batch: Tensor, labels: Tensor) -> Any:
    """The losses of both heads."""
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels
    ]
    return model(batch, samples, mode='loss')


def heatmaps(samples: int, seed: int) -> Tuple[Tensor, Tensor]:
    """Images, and a heatmap for each keypoint ``[B, K, H / 8, W / 8]``."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(
        samples, CLASSES, SIDE // 8, SIDE // 8, generator=generator)
    return images(SIDE)(samples, seed), maps


def pose_loss(model: nn.Module, batch: Tensor, maps: Tensor) -> Any:
    """The loss of a pose network and its accuracy."""
    samples = []
    for heatmap in maps:
        sample = PoseDataSample()
        sample.gt_fields = PixelData(heatmaps=heatmap)
        sample.gt_instance_labels = InstanceData(
            keypoint_weights=heatmap.new_ones(1, CLASSES))
        samples.append(sample)
    return model(batch, samples, mode='loss')


def tensors(model: nn.Module, batch: Tensor) -> Any:
    """What the head returns."""
    return model(batch, None, mode='tensor')


#: Row -> registry, network, inputs of training, its forward, note.
MODELS: Dict[str, Tuple[Any, Dict[str, Any], Callable, Callable, str]] = {
    'mmseg PSPNet':
    (SEGMENTATION, _SEGMENTER, map_of_classes, segmentation_loss,
     'ResNet-18, an auxiliary head; losses in training'),
    'mmpose heatmaps': (POSE, _POSE, heatmaps, pose_loss,
                        'ResNet-18, top-down; loss in training'),
}


def names() -> List[str]:
    """All of them, in the order of the table."""
    return list(MODELS)


def build(name: str) -> Case:
    """The network of one row.

    Raises:
        KeyError: The table has no such network.
    """
    registry, config, batch, loss, note = MODELS[name]
    return Case(
        registry.build(dict(config)), images(SIDE), tensors, batch, loss, note)
