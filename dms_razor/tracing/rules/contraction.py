# Copyright (c) dms_razor contributors. All rights reserved.
"""Convolutions and linear layers: channels are summed up.

Here masks act (METHOD section 2), new channels begin, and MACs are counted:
1 multiply-add = 1 MAC; biases, norms and activations count nothing, as in the
paper and in fvcore.
"""
from math import prod
from typing import List, Optional

import torch
from torch import Tensor

from ..facts import Partition
from ..labels import compress, core, expand_vector, vector_along
from ..record import NotUnderstood
from .table import register_rule


def channel_vector(recorder, x: Tensor, dim: int) -> Tensor:
    """Labels of ``x`` along ``dim``, shape ``[size]``; 0 for a constant.

    One weight reads all positions, so channels of one index are one channel
    whatever the position (a class token and the patches beside it).
    """
    labels = recorder.labels_of(x)
    if labels is None:
        return torch.zeros(x.shape[dim], dtype=torch.long)
    vector = vector_along(labels, dim)
    if vector is None:
        size = x.shape[dim]
        rows = core(compress(labels)).movedim(dim, -1)
        rows = rows.reshape(-1, rows.shape[-1]).unique(dim=0)
        rows = rows.expand(-1, size)
        vector = rows.max(0).values
        recorder.variables.tie(rows, vector.expand_as(rows),
                               f'{recorder.where} also reads constants there')
    return vector


def owned_weight(recorder, weight: Tensor) -> Optional[str]:
    """Name of ``weight`` if it belongs to the module that is running."""
    name = recorder.name_of(weight)
    if name is None or name.rpartition('.')[0] != recorder.path:
        return None
    return name


def _own_weight(recorder, weight: Tensor,
                bias: Optional[Tensor]) -> Optional[str]:
    """:func:`owned_weight`; notes layers that are linear in what they own."""
    name, path = owned_weight(recorder, weight), recorder.path
    if name == f'{path}.weight' and (bias is None or recorder.name_of(bias)
                                     == f'{path}.bias'):
        recorder.facts.affine.add(path)
    return name


def _refusal(recorder, call, name: Optional[str]) -> NotUnderstood:
    if name is None:
        return NotUnderstood(
            f'{recorder.where} uses a weight in {call.op} that is computed '
            'or belongs to another module')
    return NotUnderstood(f'{recorder.where} reads a tensor without a batch '
                         'dimension')


def _carry_bias(recorder, bias: Optional[Tensor], result: Tensor) -> None:
    """The bias holds the channels that a layer makes."""
    if bias is None:
        return
    name = recorder.name_of(bias)
    if name is not None:
        recorder.facts.axis(name, 0, result)
        return
    reason = f'{recorder.where} adds a bias that is computed'
    labels = recorder.labels_of(bias)
    if labels is None:
        recorder.variables.fix(result, reason)
    else:
        recorder.variables.tie(result, labels, reason)


def _beside(recorder, call, x: Tensor, dim: int,
            macs: int) -> Optional[List[Tensor]]:
    """Channels beside the dimension that is summed up pass (MLP-Mixer).

    The layer then mixes positions alone; it does so for every channel.

    Returns:
        list[Tensor] | None: Labels of the output; None in the usual case.
    """
    labels = recorder.labels_of(x)
    if labels is None:
        return None
    labels = core(compress(labels))
    if labels.numel() == 1 or labels.shape[dim] > 1:
        return None
    if call.op != 'linear' and labels.numel() > labels.shape[0]:
        recorder.count(call, macs)
        raise NotUnderstood(f'{recorder.where} convolves along its channels')
    channels = labels.reshape(-1)
    recorder.count(call, macs / len(channels), channels)
    recorder.fix(call.tensors[1:], f'{recorder.where} mixes positions')
    return [labels.expand(call.outs[0].shape)]


@register_rule('conv1d', 'conv2d', 'conv3d')
def convolution(recorder, call) -> List[Tensor]:
    """Convolution, grouped and depthwise included."""
    x, weight = call.argument(0, 'input'), call.argument(1, 'weight')
    bias, out = call.argument(2, 'bias'), call.outs[0]
    groups = call.argument(6, 'groups', 1)
    name = _own_weight(recorder, weight, bias)
    spatial = out.numel() // weight.shape[0] * prod(weight.shape[2:])
    if name is None or x.dim() < weight.dim():
        recorder.count(call, spatial * weight.shape[1] * weight.shape[0])
        raise _refusal(recorder, call, name)
    beside = _beside(recorder, call, x, 1, out.numel() * weight[0].numel())
    if beside is not None:
        return beside
    vector = channel_vector(recorder, x, 1)
    facts = recorder.facts
    if groups > 1 and groups == len(vector):  # depthwise
        result = vector.repeat_interleave(weight.shape[0] // groups)
        known = facts.axes.get((name, 0))
        if known is not None:
            recorder.variables.merge(known.labels, result)
        facts.axis(name, 0, result)
        recorder.count(call, spatial * weight.shape[1], result)
    else:
        result = facts.outputs(name, recorder.path, weight.shape[0])
        facts.axis(name, 0, result)
        facts.axis(name, 1, vector, groups, reads=True)
        recorder.count(call, spatial / groups, vector, result)
        if groups > 1:
            why = f'{recorder.where} is a grouped convolution'
            for labels in (vector, result):
                facts.partitions.append(
                    Partition(labels.view(groups, -1), recorder.path, why))
    _carry_bias(recorder, bias, result)
    return [expand_vector(result, 1, out.shape)]


@register_rule('conv_transpose1d', 'conv_transpose2d', 'conv_transpose3d')
def transposed(recorder, call) -> List[Tensor]:
    """Transposed convolution: weight is ``[in, out / groups, ...]``."""
    x, weight = call.argument(0, 'input'), call.argument(1, 'weight')
    bias, out = call.argument(2, 'bias'), call.outs[0]
    groups = call.argument(6, 'groups', 1)
    name = _own_weight(recorder, weight, bias)
    positions = x.numel() // weight.shape[0] * prod(weight.shape[2:])
    depthwise = groups == weight.shape[0] and weight.shape[1] == 1
    if name is None or x.dim() < weight.dim() or (groups > 1
                                                  and not depthwise):
        recorder.count(call, positions * weight.shape[0] * weight.shape[1])
        if groups > 1 and not depthwise:
            raise NotUnderstood(
                f'{recorder.where} is a grouped transposed convolution')
        raise _refusal(recorder, call, name)
    vector = channel_vector(recorder, x, 1)
    facts = recorder.facts
    if depthwise and groups > 1:
        result = vector
        facts.axis(name, 0, vector)
        recorder.count(call, positions, vector)
    else:
        result = facts.outputs(name, recorder.path, weight.shape[1], axis=1)
        facts.axis(name, 1, result)
        facts.axis(name, 0, vector, reads=True)
        recorder.count(call, positions, vector, result)
    _carry_bias(recorder, bias, result)
    return [expand_vector(result, 1, out.shape)]


@register_rule('linear')
def linear(recorder, call) -> List[Tensor]:
    """Linear layer over the last dimension."""
    x, weight = call.argument(0, 'input'), call.argument(1, 'weight')
    bias, out = call.argument(2, 'bias'), call.outs[0]
    name = _own_weight(recorder, weight, bias)
    positions = out.numel() // weight.shape[0]
    if name is None:
        recorder.count(call, positions * weight.numel())
        raise _refusal(recorder, call, name)
    beside = _beside(recorder, call, x, -1, out.numel() * weight.shape[1])
    if beside is not None:
        return beside
    vector = channel_vector(recorder, x, -1)
    facts = recorder.facts
    result = facts.outputs(name, recorder.path, weight.shape[0])
    facts.axis(name, 0, result)
    facts.axis(name, 1, vector, reads=True)
    recorder.count(call, positions, vector, result)
    _carry_bias(recorder, bias, result)
    return [expand_vector(result, out.dim() - 1, out.shape)]


# Rows looked up in a table: embeddings.


@register_rule('embedding')
def embedding(recorder, call) -> List[Tensor]:
    """The features of a row are channels that the table makes."""
    weight, out = call.argument(1, 'weight'), call.outs[0]
    name = owned_weight(recorder, weight)
    if name is None:
        raise NotUnderstood(f'{recorder.where} looks up rows in a table that '
                            'is computed or belongs to another module')
    if call.argument(3, 'max_norm') is not None:
        raise NotUnderstood(f'{recorder.where} rescales its rows (max_norm)')
    recorder.fix([call.argument(0, 'input')],
                 f'{recorder.where} takes them as indices')
    labels = recorder.facts.outputs(
        name, recorder.path, weight.shape[1], axis=1)
    recorder.facts.axis(name, 1, labels)
    return [expand_vector(labels, out.dim() - 1, out.shape)]
