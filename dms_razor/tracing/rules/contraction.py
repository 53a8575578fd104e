# Copyright (c) dms_razor contributors. All rights reserved.
"""Convolutions and linear layers: channels are summed up.

Here masks act (METHOD section 2), new channels begin, and MACs are counted:
1 multiply-add = 1 MAC; biases, norms and activations count nothing, as in the
paper and in fvcore.
"""
from typing import List, Optional

from torch import Tensor

from ...moved import moved_names
from ..facts import Partition
from ..labels import expand_vector
from .table import register_rule

__getattr__ = moved_names(__name__)


def channel_vector(recorder, x: Tensor, dim: int) -> Tensor:
    """Labels of ``x`` along ``dim``, shape ``[size]``; 0 for a constant.

    One weight reads all positions, so channels of one index are one channel
    whatever the position (a class token and the patches beside it).
    """
    rows = recorder.core_of(x).movedim(dim, -1)
    rows = rows.reshape(-1, rows.shape[-1]).expand(-1, x.shape[dim])
    vector = rows.max(0).values
    if len(rows) > 1:
        recorder.variables.tie(rows, vector,
                               f'{recorder.where} also reads constants there')
    return vector


def owned_weight(recorder, weight: Tensor) -> Optional[str]:
    """Name of ``weight`` if it belongs to the module that is running."""
    name = recorder.name_of(weight)
    if name is None or name.rpartition('.')[0] != recorder.path:
        return None
    return name


def _carry_bias(recorder, bias: Optional[Tensor], result: Tensor) -> None:
    """The bias holds the channels that a layer makes."""
    if recorder.name_of(bias) is not None:
        recorder.facts.axis(recorder.name_of(bias), 0, result)
    elif bias is not None:
        recorder.variables.tie(
            result, recorder.core_of(bias),
            f'{recorder.where} adds a bias that is '
            'computed')


def _beside(recorder, call, x: Tensor, dim: int,
            macs: int) -> Optional[List[Tensor]]:
    """Channels beside the dimension that is summed up pass (MLP-Mixer).

    The layer then mixes positions alone; it does so for every channel.

    Returns:
        list[Tensor] | None: Labels of the output; None in the usual case.
    """
    labels = recorder.core_of(x)
    if labels.numel() == 1 or labels.shape[dim] > 1:
        return None
    recorder.require(call.op == 'linear' or labels.numel() == labels.shape[0],
                     'convolves along its channels', call, macs)
    channels = labels.reshape(-1)
    recorder.count(call, macs / len(channels), channels)
    recorder.fix(call.tensors[1:], f'{recorder.where} mixes positions')
    return [labels.expand(call.outs[0].shape)]


@register_rule('linear', 'conv1d', 'conv2d', 'conv3d', 'conv_transpose1d',
               'conv_transpose2d', 'conv_transpose3d')
def layer(recorder, call) -> List[Tensor]:
    """Linear layer over the last dimension, or convolution of any kind.

    The weight of a transposed convolution is ``[in, out / groups, ...]``, of
    all others ``[out, in / groups, ...]``.
    """
    x, weight = call.argument(0, 'input'), call.argument(1, 'weight')
    bias, out = call.argument(2, 'bias'), call.outs[0]
    facts, path, flat = recorder.facts, recorder.path, call.op == 'linear'
    turned, dim = 'transpose' in call.op, -1 if flat else 1
    groups = 1 if flat else call.argument(6, 'groups', 1)
    depthwise = 1 < groups == x.shape[dim] and (not turned
                                                or weight.shape[1] == 1)
    macs = (x if turned else out).numel() * weight[0].numel()
    name = owned_weight(recorder, weight)
    if name == f'{path}.weight' and (bias is None or recorder.name_of(bias)
                                     == f'{path}.bias'):
        facts.affine.add(path)
    recorder.require(not turned or groups == 1 or depthwise,
                     'is a grouped transposed convolution', call, macs)
    recorder.require(
        name is not None, f'uses a weight in {call.op} that is computed or '
        'belongs to another module', call, macs)
    recorder.require(flat or x.dim() >= weight.dim(),
                     'reads a tensor without a batch dimension', call, macs)
    beside = None if turned else _beside(recorder, call, x, dim, macs)
    if beside is not None:
        return beside
    vector = channel_vector(recorder, x, dim)
    if depthwise:
        result = vector.repeat_interleave(weight.shape[0] // groups)
        facts.axis(name, 0, result)
        recorder.count(call, macs / len(result), result)
    else:
        made, read = (1, 0) if turned else (0, 1)
        result = facts.outputs(name, path, weight.shape[made], made)
        facts.axis(name, made, result)
        facts.axis(name, read, vector, groups, reads=True)
        recorder.count(call, macs / (len(vector) * len(result)), vector,
                       result)
    if groups > 1 and not depthwise:
        why = f'{recorder.where} is a grouped convolution'
        for labels in (vector, result):
            facts.partitions.append(
                Partition(labels.view(groups, -1), path, why))
    _carry_bias(recorder, bias, result)
    return [expand_vector(result, dim % out.dim(), out.shape)]


# Rows looked up in a table: embeddings.


@register_rule('embedding')
def embedding(recorder, call) -> List[Tensor]:
    """The features of a row are channels that the table makes."""
    weight, out = call.argument(1, 'weight'), call.outs[0]
    name = owned_weight(recorder, weight)
    recorder.require(
        name is not None, 'looks up rows in a table that is computed or '
        'belongs to another module')
    recorder.require(
        call.argument(3, 'max_norm') is None, 'rescales its rows (max_norm)')
    recorder.fix([call.argument(0, 'input')],
                 f'{recorder.where} takes them as indices')
    labels = recorder.facts.outputs(
        name, recorder.path, weight.shape[1], axis=1)
    recorder.facts.axis(name, 1, labels)
    return [expand_vector(labels, out.dim() - 1, out.shape)]
