# Copyright (c) dms_razor contributors. All rights reserved.
"""Decoded boxes after non-maximum suppression, inside the exported file.

Dense heads of mmdet and mmyolo say how their outputs become boxes: priors,
box coder, strides, sigmoid scores, and scores of objectness or centreness.
What is here follows them and ends in ONNX's NonMaxSuppression, which ONNX
Runtime runs.

Which scores take part in the suppression is not the same in both: mmdet's
thresholds the score of the class and takes the best ``nms_pre`` of each
level, and multiplies by centreness then; mmyolo's multiplies first and takes
the best of all levels.
"""
from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from ..compat.mmcv_ext import nms
from .head_check import check_decoding, check_suppression
from .outputs import put_into_eval


class Decoded(NamedTuple):
    """What is handed to the suppression.

    Attributes:
        boxes (Tensor): (B, N, 4), x1, y1, x2, y2 in pixels.
        scores (Tensor): (B, N, classes).
        margin (Tensor): (B, N, classes): how far a score, or the size of its
            box, is above what the head asks for; those at or below 0 take no
            part.
    """
    boxes: Tensor
    scores: Tensor
    margin: Tensor


class DetectedBoxes(nn.Module):
    """A detector from images to boxes.

    The head's ``test_cfg`` is followed (``score_thr``, ``nms_pre``,
    ``min_bbox_size``, ``nms``, ``multi_label``) up to ``max_per_img``, which
    is a limit for each class here, and the cut at the border of the image.

    Args:
        model (nn.Module): A detector with a dense head (``bbox_head``).
        images (Tensor): An example input (B, C, H, W); its size is fixed.
        score_thr (float, optional): Scores up to it are dropped; with mmdet
            those of the classes, before they are multiplied by centreness.
            Defaults to the head's ``test_cfg``.
        iou_thr (float, optional): Of the suppression, by class. Defaults to
            the head's ``test_cfg``.
        most (int, optional): Boxes of one class in one image. Defaults to
            the head's ``test_cfg``.

    Attributes:
        names (list[str]): ``['detections']``.

    Raises:
        ValueError: If the model has no head of a kind that is known, if its
            own boxes are others than those decoded here, or if it asks for
            another suppression.
    """

    names = ['detections']

    def __init__(self,
                 model: nn.Module,
                 images: Tensor,
                 score_thr: Optional[float] = None,
                 iou_thr: Optional[float] = None,
                 most: Optional[int] = None) -> None:
        super().__init__()
        head = getattr(model, 'bbox_head', None)
        missing = [
            name for name in ('prior_generator', 'bbox_coder', 'test_cfg')
            if getattr(head, name, None) is None
        ]
        if missing:
            raise ValueError(
                f'{type(model).__name__} has no dense head with {missing}, so '
                'its boxes cannot be decoded here; export its raw outputs and '
                'decode them outside')
        if not getattr(head, 'use_sigmoid_cls', True):
            raise ValueError(
                f'{type(head).__name__} takes the softmax of its scores, '
                'which is not decoded here; export its raw outputs')
        check_suppression(head)
        cfg = head.test_cfg
        self.coder = head.bbox_coder
        self.classes = getattr(head, 'cls_out_channels', head.num_classes)
        # its coders are told the strides, mmdet's are not
        self.is_mmyolo = hasattr(head, 'head_module')
        self.model = model
        put_into_eval(self)
        self.score_thr = cfg.score_thr if score_thr is None else score_thr
        self.iou_thr = cfg.nms.iou_threshold if iou_thr is None else iou_thr
        self.most = cfg.max_per_img if most is None else most
        self.best = cfg.get('nms_pre', -1)
        self.least_size = cfg.get('min_bbox_size', -1)
        self.one_label = not cfg.get('multi_label', True)
        with torch.no_grad():
            outputs = model(images)
            priors = head.prior_generator.grid_priors(
                [scores.shape[2:] for scores in outputs[0]],
                dtype=images.dtype,
                device=images.device)
        self.register_buffer('priors', torch.cat(priors), persistent=False)
        self.register_buffer(
            'strides',
            torch.cat([
                level.new_full(
                    level.shape[:1],
                    stride[0] if isinstance(stride, (tuple, list)) else stride)
                for level, stride in zip(priors, head.prior_generator.strides)
            ]),
            persistent=False)
        check_decoding(head, outputs, self.decode)

    def forward(self, images: Tensor) -> Tuple[Tensor]:
        """Detect.

        Args:
            images (Tensor): (B, C, H, W), as the data preprocessor gives it.

        Returns:
            tuple[Tensor]: (N, 7): image in the batch, x1, y1, x2, y2 in
            pixels of the input, score, class; those of an image and class
            together, best first.
        """
        boxes, scores, margin = self.decode(self.model(images))
        # the operator knows one threshold alone; so what does not take part
        # gets the score 0 and that is the threshold
        taking_part = torch.where(margin > 0, scores, torch.zeros_like(scores))
        image, label, place = _Suppression.apply(boxes,
                                                 taking_part.transpose(1, 2),
                                                 self.most, self.iou_thr,
                                                 0.).unbind(1)
        return (torch.cat([
            image[:, None].to(boxes.dtype), boxes[image, place],
            scores[image, place, label][:, None], label[:, None].to(
                boxes.dtype)
        ], 1), )

    def decode(self, outputs: Any) -> Decoded:
        """Boxes and scores of a head's raw outputs."""
        scores, boxes, *factors = outputs
        levels = [
            _flatten([level], self.classes).sigmoid() for level in scores
        ]
        scores = torch.cat(levels, 1)
        boxes = _flatten(boxes, 4)
        if factors:
            scores = scores * _flatten(factors[0], 1).sigmoid()
        if self.is_mmyolo:
            boxes = self.coder.decode(self.priors[None], boxes, self.strides)
            if self.one_label:
                best = scores.max(2, keepdim=True)[0]
                margin = torch.where(scores < best, scores - best,
                                     self._above([best]))
            else:
                margin = self._above([scores])
        else:
            priors = self.priors.expand(boxes.shape[0], *self.priors.shape)
            boxes = self.coder.decode(
                priors.reshape(-1, priors.shape[-1]),
                boxes.reshape(-1, 4)).reshape(boxes.shape)
            margin = self._above(levels)
        if self.least_size >= 0:
            sizes = (boxes[..., 2:] - boxes[..., :2]).min(2, keepdim=True)[0]
            margin = torch.minimum(margin, sizes - self.least_size)
        return Decoded(boxes, scores, margin)

    def _above(self, groups: List[Tensor]) -> Tensor:
        """How far scores are above the threshold and the best of a group.

        Groups (B, n, classes or 1), of which ``nms_pre`` are taken each;
        returns them side by side, (B, N, classes or 1).
        """
        margins = []
        for scores in groups:
            margin = scores - self.score_thr
            # a plain number: what a tracer writes down for TopK
            size = int(scores.shape[1]) * int(scores.shape[2])
            if 0 <= self.best < size:
                next_best = scores.flatten(1).topk(self.best + 1, 1)[0][:, -1]
                margin = torch.minimum(margin,
                                       scores - next_best[:, None, None])
            margins.append(margin)
        return torch.cat(margins, 1)


class _Suppression(torch.autograd.Function):
    """ONNX's NonMaxSuppression, with the same result in torch."""

    @staticmethod
    def forward(ctx, boxes: Tensor, scores: Tensor, most: int, iou_thr: float,
                score_thr: float) -> Tensor:
        """Choose from boxes (B, N, 4) with scores (B, classes, N).

        Returns int64 (K, 3): image, class, box.
        """
        if torch.onnx.is_in_onnx_export():
            # symbolic() is what is written; any valid choice will do
            return torch.zeros((1, 3), dtype=torch.int64)
        chosen = [boxes.new_zeros((0, 3), dtype=torch.int64)]
        for image, by_class in enumerate(scores):
            for label, score in enumerate(by_class):
                places = (score > score_thr).nonzero().flatten()
                kept = places[nms(boxes[image, places], score[places],
                                  iou_thr)[:most]]
                where = kept.new_tensor([[image, label]]).expand(len(kept), 2)
                chosen.append(torch.cat([where, kept[:, None]], 1))
        return torch.cat(chosen)

    @staticmethod
    def symbolic(g, boxes, scores, most: int, iou_thr: float,
                 score_thr: float):
        """The operator of the ONNX file."""

        def constant(value, dtype):
            return g.op('Constant', value_t=torch.tensor([value], dtype=dtype))

        return g.op('NonMaxSuppression', boxes, scores,
                    constant(most, torch.int64),
                    constant(iou_thr, torch.float32),
                    constant(score_thr, torch.float32))


def _flatten(levels: List[Tensor], width: int) -> Tensor:
    """Levels (B, A·width, H, W) to (B, N, width)."""
    return torch.cat([
        level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width)
        for level in levels
    ], 1)
