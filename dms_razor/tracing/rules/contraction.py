# Copyright (c) dms_razor contributors. All rights reserved.
"""Convolutions and linear layers: channels are summed up.

Here masks act (METHOD section 2), new channels begin, and MACs are counted:
1 multiply-add = 1 MAC; biases, norms and activations count nothing, as in the
paper and in fvcore.
"""
from typing import List, Optional

from torch import Tensor

from ...moved import moved_names
from ..facts import ComputedWeight, Partition
from ..labels import expand_vector
from .table import register_rule
from .weights import Weight, weight_of

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


def carry_bias(recorder, bias: Optional[Tensor], result: Tensor) -> None:
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


def dense(recorder,
          call,
          held: Weight,
          size: int,
          vector: Tensor,
          made: int,
          groups: int = 1) -> Tensor:
    """Labels of what a weight makes of a vector of channels.

    Args:
        recorder (Recorder): The recorder.
        call (OpCall): The operation.
        held (Weight): Where the weight comes from.
        size (int): How many channels it makes.
        vector (Tensor): Labels of those that it reads.
        made (int): The weight's axis of those that it makes; it reads along
            the other one of its first two.
        groups (int): Groups of a convolution.
    """
    facts, path = recorder.facts, recorder.path
    owner = held.name.rpartition('.')[0]
    result = facts.outputs(held.name, path if held.chain else owner, size,
                           held.axis(made))
    facts.axis(held.name, held.axis(made), result)
    facts.axis(held.name, held.axis(1 - made), vector, groups, reads=True)
    facts.read_as[held.name].add(held.tied or held.name)
    if owner != path and held.tied is None:
        facts.borrowed[held.name].add(path)
    if held.chain:
        entries = facts.entry_labels[held.name]
        if held.axis(made):
            entries = entries.transpose(0, 1)
        facts.computed.append(
            ComputedWeight(held.name, path,
                           len(recorder.nodes) - 1, held.chain, entries,
                           (held.axis(made), held.axis(1 - made)), result,
                           vector))
    return result


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
    held = weight_of(recorder, weight)
    if held == Weight(f'{path}.weight') and (
            bias is None or recorder.name_of(bias) == f'{path}.bias'):
        facts.affine.add(path)
    recorder.require(not turned or groups == 1 or depthwise,
                     'is a grouped transposed convolution', call, macs)
    recorder.require(
        held is not None and not (held.turned and groups > 1),
        f'uses a weight in {call.op} that is computed or belongs to another '
        'module, in a way that is not understood', call, macs)
    recorder.require(flat or x.dim() >= weight.dim(),
                     'reads a tensor without a batch dimension', call, macs)
    beside = None if turned else _beside(recorder, call, x, dim, macs)
    if beside is not None:
        return beside
    vector = channel_vector(recorder, x, dim)
    made = 1 if turned else 0
    if depthwise:
        recorder.require(not held.chain, 'computes the weight of a depthwise '
                         'convolution', call, macs)
        result = vector.repeat_interleave(weight.shape[0] // groups)
        facts.axis(held.name, 0, result)
        recorder.count(call, macs / len(result), result)
    else:
        result = dense(recorder, call, held, weight.shape[made], vector, made,
                       groups)
        recorder.count(call, macs / (len(vector) * len(result)), vector,
                       result)
    if groups > 1 and not depthwise:
        why = f'{recorder.where} is a grouped convolution'
        for labels in (vector, result):
            facts.partitions.append(
                Partition(labels.view(groups, -1), path, why))
    carry_bias(recorder, bias, result)
    return [expand_vector(result, dim % out.dim(), out.shape)]


# Rows looked up in a table: embeddings.


@register_rule('embedding')
def embedding(recorder, call) -> List[Tensor]:
    """The features of a row are channels that the table makes."""
    weight, out = call.argument(1, 'weight'), call.outs[0]
    name = recorder.name_of(weight) if recorder.own_name_of(weight) else None
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
