# Copyright (c) dms_razor contributors. All rights reserved.
"""Operations that treat every entry alone: channels pass, operands merge."""
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from ..facts import Shared
from ..labels import align, core
from .contraction import channel_vector
from .table import register_rule, those


@register_rule(*those('pointwise', 'binary'))
def elementwise(recorder, call) -> List[Tensor]:
    """Merge the labels of all operands where broadcasting pairs them up."""
    shape = call.outs[0].shape
    known = [(tensor, recorder.labels_of(tensor)) for tensor in call.tensors]
    operands = [(tensor, align(core(labels), len(shape)))
                for tensor, labels in known if labels is not None]
    # Activations first: a constant beside them has to fit in.
    operands.sort(key=lambda operand: recorder.is_constant(operand[0]))
    # Entries of a weight that is computed are to be known apart.
    apart = recorder.nodes[-1].constant
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
            if not recorder.is_constant(tensor):
                recorder.variables.fix(result, reason)
        elif recorder.is_constant(tensor) and not apart and _for_all(
                labels, result,
                recorder.value(tensor) is not None):
            recorder.facts.shared.append(
                Shared(
                    result, labels, f'{recorder.where} combines all heads '
                    f'with the same constant ({call.op})'))
        else:
            a, b = torch.broadcast_tensors(result, labels)
            recorder.variables.merge(a, b)
            if (result.numel() > labels.numel()) != apart:
                a, b = b, a  # the one that varies less
            result = torch.where(a > 0, a, b)
    for tensor, labels in known:
        # A constant as wide as the channels forbids that they go away.
        if labels is None and any(
                a > 1 < b
                for a, b in zip(tensor.shape[::-1], result.shape[::-1])):
            recorder.variables.fix(
                result, f'{recorder.where} combines them with a constant '
                f'tensor of fixed width in {call.op}')
    return [result.expand(out.shape) for out in call.outs]


def _lie_across(left: Tensor, right: Tensor) -> bool:
    """Whether labels vary in dimensions that have nothing in common."""
    return left.numel() > 1 < right.numel() and not any(
        a > 1 < b for a, b in zip(left.shape, right.shape))


def _for_all(constant: Tensor, labels: Tensor, computed: bool) -> bool:
    """Whether a vector of constants meets several vectors of channels.

    Or one, if it is computed: there may be others that it meets.
    """
    fits = all(a in (1, b) for a, b in zip(constant.shape, labels.shape))
    return fits and 1 < constant.numel() < labels.numel() + computed


def _meets_many(recorder, tensor: Tensor,
                operands: List[Tuple[Tensor, Tensor]]) -> bool:
    """Whether one channel is broadcast over several of another operand.

    A gate of one channel, a learnt scalar: it stays 1 wide whatever the width
    of the other, so it stays, and says nothing about the other.
    """
    own = recorder.own_shape(tensor)
    return any(size == 1 < many for _, labels in operands
               for size, many in zip((1, ) * (labels.dim() - len(own)) +
                                     own, labels.shape))


@register_rule('prelu')
def prelu(recorder, call) -> List[Tensor]:
    """PReLU: one slope for all channels, or one slope a channel."""
    x, weight = call.argument(0, 'input'), call.argument(1, 'weight')
    labels = recorder.labels_of(x)
    if weight.numel() > 1:
        vector = channel_vector(recorder, x, 1)
        recorder.facts.axis(recorder.name_of(weight), 0, vector)
    return [labels]
