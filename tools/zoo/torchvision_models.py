# Copyright (c) dms_razor contributors. All rights reserved.
"""torchvision's networks: one small variant of each of its modules."""
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, nn

from dms_razor.compat.shims import torchvision_schemas

torchvision_schemas()

from torchvision.models import detection, get_model  # noqa: E402  isort: skip

from .case import Case, NotCovered, images  # noqa: E402  isort: skip

PACKAGES = ('torchvision', )

#: Name -> side of the image, and arguments of the constructor.
CLASSIFIERS: Dict[str, Tuple[int, Dict[str, Any]]] = dict(
    alexnet=(64, {}),
    convnext_tiny=(64, {}),
    densenet121=(64, {}),
    efficientnet_b0=(64, {}),
    efficientnet_v2_s=(64, {}),
    googlenet=(64, dict(init_weights=False)),
    inception_v3=(299, dict(init_weights=False)),
    maxvit_t=(224, {}),
    mnasnet0_5=(64, {}),
    mobilenet_v2=(64, {}),
    mobilenet_v3_small=(64, {}),
    regnet_y_400mf=(64, {}),
    resnet18=(64, {}),
    resnext50_32x4d=(64, {}),
    shufflenet_v2_x0_5=(64, {}),
    squeezenet1_1=(64, {}),
    swin_t=(64, {}),
    swin_v2_t=(64, {}),
    vgg11_bn=(64, {}),
    vit_b_16=(64, dict(image_size=64)),
)
SEGMENTERS: Dict[str, Tuple[int, Dict[str, Any]]] = dict(
    deeplabv3_mobilenet_v3_large=(64, dict(aux_loss=True)),
    fcn_resnet50=(64, dict(aux_loss=True)),
    lraspp_mobilenet_v3_large=(64, {}),
)
#: Name -> frames, side.
VIDEO: Dict[str, Tuple[int, int]] = dict(
    mc3_18=(4, 32),
    mvit_v1_b=(16, 224),
    r2plus1d_18=(4, 32),
    r3d_18=(4, 32),
    s3d=(16, 224),
    swin3d_t=(4, 64),
)
DETECTORS = ('ssdlite320_mobilenet_v3_large', 'retinanet_resnet50_fpn',
             'fcos_resnet50_fpn')
ROI_DETECTORS = ('fasterrcnn_mobilenet_v3_large_fpn', 'maskrcnn_resnet50_fpn',
                 'keypointrcnn_resnet50_fpn')
#: Of a detector's images.
SIDE = 128


def names() -> List[str]:
    """All of them, in the order of the table."""
    return [*CLASSIFIERS, *SEGMENTERS, *VIDEO, *DETECTORS, *ROI_DETECTORS]


def build(name: str) -> Case:
    """The network of one row.

    Raises:
        KeyError: The table has no such network.
        NotCovered: It cannot run here.
    """
    if name in DETECTORS or name in ROI_DETECTORS:
        return _detector(name)
    if name in VIDEO:
        frames, side = VIDEO[name]
        return Case(get_model(name, weights=None), images(side, frames))
    side, arguments = {**CLASSIFIERS, **SEGMENTERS}[name]
    if name in SEGMENTERS:
        arguments = dict(arguments, weights_backbone=None, num_classes=5)
    return Case(get_model(name, weights=None, **arguments), images(side))


def _detector(name: str) -> Case:
    """A detector: its raw outputs in eval mode, its losses in training.

    Boxes are suppressed by an operator of torchvision's C++ library, which
    does not load beside another torch, and prunes nothing.
    """
    if name in ROI_DETECTORS and not hasattr(torch.ops.torchvision,
                                             'roi_align'):
        raise NotCovered(
            "torchvision's C++ operators do not load beside this torch, and "
            'this detector runs roi_align')
    arguments: Dict[str, Any] = dict(
        weights=None, weights_backbone=None, num_classes=4)
    if not name.startswith('ssd'):
        arguments.update(min_size=SIDE, max_size=SIDE)
    model = getattr(detection, name)(**arguments)
    if name in ROI_DETECTORS:
        return Case(model, images(SIDE), whole_detector, _scenes, train_loss)
    side = 320 if name.startswith('ssd') else SIDE
    return Case(
        model,
        images(side),
        raw_outputs,
        lambda samples, seed: _scenes(samples, seed, side),
        train_loss,
        note='raw outputs of the head; losses in training')


def raw_outputs(model: nn.Module, batch: Tensor) -> Dict[str, Tensor]:
    """Scores and offsets of all anchors, before boxes are suppressed."""
    return model.head(list(model.backbone(batch).values()))


def whole_detector(model: nn.Module, batch: Tensor) -> Any:
    """What a two-stage detector returns."""
    return model(list(batch))


def train_loss(model: nn.Module, batch: Tensor, boxes: Tensor,
               labels: Tensor) -> Dict[str, Tensor]:
    """The losses of a detector, on one box or more an image."""
    targets = [dict(boxes=b, labels=k) for b, k in zip(boxes, labels)]
    return model(list(batch), targets)


def _scenes(samples: int, seed: int, side: int = SIDE) -> Tuple:
    """Images, boxes ``[B, 2, 4]`` and their classes ``[B, 2]``."""
    corners = torch.tensor([[.1, .1, .5, .6], [.3, .4, .9, .8]]) * side
    boxes = corners.expand(samples, 2, 4).clone()
    labels = torch.tensor([1, 2]).expand(samples, 2).clone()
    return images(side)(samples, seed), boxes, labels
