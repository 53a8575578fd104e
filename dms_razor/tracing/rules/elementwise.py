# Copyright (c) dms_razor contributors. All rights reserved.
"""Operations that treat every entry alone: channels pass, operands merge."""
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from ..labels import align, core
from .contraction import channel_vector
from .table import register_rule, those


@register_rule(*those('pointwise', 'binary'))
def elementwise(recorder, call) -> List[Tensor]:
    """Merge the labels of all operands where broadcasting pairs them up."""
    shape = call.outs[0].shape
    operands, constants = [], []
    for tensor in call.tensors:
        labels = recorder.labels_of(tensor)
        if labels is None:
            constants.append(tensor)
        else:
            operands.append((tensor, align(core(labels), len(shape))))
    # Activations first: a parameter beside them has to fit in.
    operands.sort(key=lambda operand: recorder.value(operand[0]) is None)
    result: Optional[Tensor] = None
    for tensor, labels in operands:
        if labels.numel() == 1 and _meets_many(recorder, tensor, operands):
            recorder.variables.fix(
                labels, f'{recorder.where} applies it to many channels at '
                f'once ({call.op})')
        elif result is None:
            result = labels
        elif _lie_across(result, labels):
            reason = f'{recorder.where} applies them across other channels ' \
                f'({call.op})'
            recorder.variables.fix(labels, reason)
            if recorder.value(tensor) is not None:
                recorder.variables.fix(result, reason)
        else:
            a, b = torch.broadcast_tensors(result, labels)
            recorder.variables.merge(a, b)
            if result.numel() > labels.numel():
                a, b = b, a  # the one that varies less
            result = torch.where(a > 0, a, b)
    for tensor in constants:
        _check_constant(recorder, call, tensor, result)
    return [result.expand(out.shape) for out in call.outs]


def _lie_across(left: Tensor, right: Tensor) -> bool:
    """Whether labels vary in dimensions that have nothing in common."""
    both = list(zip(left.shape, right.shape))
    return left.numel() > 1 < right.numel() and not any(a > 1 and b > 1
                                                        for a, b in both)


def _meets_many(recorder, tensor: Tensor,
                operands: List[Tuple[Tensor, Tensor]]) -> bool:
    """Whether one channel is broadcast over several of another operand.

    A gate of one channel, a learnt scalar: it stays 1 wide whatever the width
    of the other, so it stays, and says nothing about the other.
    """
    own = recorder.own_shape(tensor)
    for _, labels in operands:
        single = (1, ) * (labels.dim() - len(own)) + own
        if any(size == 1 and many > 1
               for size, many in zip(single, labels.shape)):
            return True
    return False


def _check_constant(recorder, call, tensor: Tensor, labels: Tensor) -> None:
    """A constant as wide as the channels forbids that channels go away."""
    for dim in range(1, tensor.dim() + 1):
        if dim <= labels.dim() and tensor.shape[-dim] > 1 \
                and labels.shape[-dim] > 1:
            recorder.variables.fix(
                labels, f'{recorder.where} combines them with a constant '
                f'tensor of fixed width in {call.op}')


@register_rule('prelu')
def prelu(recorder, call) -> List[Tensor]:
    """PReLU: one slope for all channels, or one slope a channel."""
    x, weight = call.argument(0, 'input'), call.argument(1, 'weight')
    labels = recorder.labels_of(x)
    if weight.numel() > 1:
        vector = channel_vector(recorder, x, 1)
        recorder.facts.axis(recorder.name_of(weight), 0, vector)
    return [labels]
