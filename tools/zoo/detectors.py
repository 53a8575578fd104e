# Copyright (c) dms_razor contributors. All rights reserved.
"""The detectors of the coverage table: mmyolo's and mmdet's, the smallest.

Each goes the way of ``check.py`` as a whole: backbone, neck and head, all raw
outputs of the head compared. Images are 256 x 256.
"""
from typing import Dict, List, Tuple

import torch
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from dms_razor.network import tensors_of
from dms_razor.subnet.report import table
from .check import Row, randomise
from .table import COLUMNS, cells, page, stays, versions

#: Name -> config of the package that has it.
DETECTORS: Dict[str, str] = {
    'YOLOv5-n': 'mmyolo::yolov5/yolov5_n-v61_syncbn_fast_8xb16-300e_coco.py',
    'YOLOv8-n': 'mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py',
    'YOLOX-tiny': 'mmyolo::yolox/yolox_tiny_fast_8xb8-300e_coco.py',
    'YOLOX-nano': 'mmyolo::yolox/yolox_nano_fast_8xb8-300e_coco.py',
    'RTMDet-tiny': 'mmyolo::rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py',
    'PPYOLOE-s': 'mmyolo::ppyoloe/ppyoloe_s_fast_8xb32-300e_coco.py',
    'RetinaNet-R18': 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
    'FCOS-R18': 'mmdet::fcos/fcos_r18_fpn_gn-head-center-normbbox-'
    'centeronreg-giou_8xb8-amp-lsj-200e_coco.py',
    'ATSS-R18': 'mmdet::atss/atss_r18_fpn_8xb8-amp-lsj-200e_coco.py',
}

#: Detectors that mmcv-lite cannot run -> what it lacks.
NEEDS_FULL_MMCV: Dict[str, str] = {
    'Faster R-CNN, Mask R-CNN and other two-stage detectors': 'RoIAlign',
    'Detectors with deformable convolution (DCN variants, RepPoints, '
    'DyHead)': 'deformable convolution',
    'Deformable DETR, DINO': 'multi-scale deformable attention',
}

#: Level 7 of a pyramid then has 2 x 2 positions: torch normalises no group
#: of a single value, which a narrow GroupNorm at one position would be.
SIDE = 256


class RawHead(nn.Module):
    """A detector whose raw outputs are one tensor, each of them as large.

    Args:
        detector (nn.Module): The detector.
        images (Tensor): Images to learn the scale of its outputs from.
    """

    def __init__(self, detector: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.detector = detector
        self.eval()
        with torch.no_grad():
            self.scales = [
                float(1 / out.abs().max().clamp(min=1e-6))
                for out in tensors_of(detector(images))
            ]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, all entries of the outputs)."""
        outputs = tensors_of(self.detector(images))
        if not self.training:
            # with batch statistics, in training, they are of a size anyway
            outputs = [a * scale for a, scale in zip(outputs, self.scales)]
        return torch.cat([out.flatten(1) for out in outputs], 1)


def build_detector(name: str, seed: int = 0) -> Tuple[nn.Module, Tensor]:
    """One of :data:`DETECTORS` with random weights, and an image.

    Raises:
        ValueError: If it is none of them.
    """
    if name not in DETECTORS:
        raise ValueError(f'there is no detector {name!r} in the table; use '
                         f'one of {", ".join(DETECTORS)}')
    cfg = get_config(DETECTORS[name])
    init_default_scope(cfg.default_scope)
    for part in ('backbone', 'neck'):
        # nothing is downloaded: the weights become random anyway
        cfg.model.get(part, {}).pop('init_cfg', None)
    model = MODELS.build(cfg.model)
    images = torch.randn(
        1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return RawHead(randomise(model, seed), images), images


def markdown(rows: List[Row]) -> str:
    """The page of the documentation."""
    return page(
        'Coverage of detectors',
        '--detectors --markdown docs/en/coverage_detection.md',
        versions('mmdet', 'mmyolo'),
        f'{sum(row.equal for row in rows)} of these {len(rows)} detectors are '
        'searched as a whole (backbone, neck and head) and exported with '
        'equal outputs. The difference is that between the masked supernet '
        'and the exported subnet, over the largest value of each raw output '
        'of the head, in float64 where float32 differs by more than 1e-5; '
        'weights and ratios are random. A head that takes a softmax over '
        'distances (YOLOv8) amplifies rounding: of its logits, which reach '
        'hundreds with such weights, a rounding of 1e-6 is one of 1e-5 behind '
        'it. In float64 what remains is that the weights of a subnet are '
        'written in float32, where a removed block has its columns added to '
        'others; cut in float64 the two networks agree to 1e-12, which a test '
        'asserts. "In units" is the share of the parameters that a subnet '
        'can lack.',
        # without blocks there is no column; they are few
        table(('detector', *COLUMNS[:-2], COLUMNS[-1]),
              [(*cells(row)[:-2], cells(row)[-1]) for row in rows]),
        '## What stays, and why',
        # paths as in the detector, not in RawHead; it has many outputs
        '\n'.join(stays(rows, output=True)).replace('detector.', ''),
        '## What needs the full mmcv',
        'mmcv-lite has no compiled operators. With it these cannot run, and '
        'so cannot be traced; the error names the operator. They are not in '
        'the table above and were not tried with the full mmcv.',
        '\n'.join(f'- {name}: {operator}.'
                  for name, operator in NEEDS_FULL_MMCV.items()))
