# Copyright (c) dms_razor contributors. All rights reserved.
"""Normalisation: batch and instance norm keep channels apart, others mix.

Layer, RMS and group norm take statistics over channels. Under masks the
statistics are those of the kept channels (:mod:`dms_razor.masking.norms`).
"""
from typing import List

import torch
from torch import Tensor

from ..facts import NormAxis, Partition
from ..labels import expand_vector, varies_along
from .contraction import channel_vector, owned_weight
from .table import register_rule


@register_rule('batch_norm', 'instance_norm', 'sync_batch_norm')
def batch_norm(recorder, call) -> List[Tensor]:
    """Statistics and affine parameters belong to one channel each."""
    x = call.argument(0, 'input')
    vector = channel_vector(recorder, x, 1)
    names, found = ('running_mean', 'running_var', 'weight', 'bias'), set()
    for position, name in enumerate(names, start=1):
        tensor = call.argument(position, name)
        if isinstance(tensor, Tensor):
            full_name = recorder.name_of(tensor)
            if full_name is None and recorder.nodes[-1].constant:
                recorder.variables.tie(
                    vector, recorder.labels_of(tensor),
                    f'{recorder.where} normalises with a computed {name}')
                continue
            recorder.require(full_name is not None,
                             f'normalises with a computed {name}')
            recorder.facts.axis(full_name, 0, vector)
            found.add(full_name)
    if found.issuperset(f'{recorder.path}.{name}' for name in names[2:]):
        recorder.facts.affine.add(recorder.path)
    return [recorder.labels_of(x)]


def _mixes(recorder, call, vector: Tensor, groups: int, affine) -> None:
    """Note a norm that mixes the channels of ``vector``."""
    names = [owned_weight(recorder, t) for t in affine if t is not None]
    recorder.require(
        None not in names,
        'normalises with a weight that is computed or of another module')
    known = recorder.facts.norms.setdefault(
        recorder.path, NormAxis(recorder.path, call.op, vector, groups))
    recorder.require(known.op == call.op, 'runs several norms')
    recorder.require(
        len(known.labels) == len(vector),
        'normalises vectors of several widths')
    recorder.variables.merge(known.labels, vector)
    for name in names:
        recorder.facts.axis(name, 0, vector)


@register_rule('layer_norm', 'rms_norm')
def layer_norm(recorder, call) -> List[Tensor]:
    """Statistics over the last dimensions."""
    x = call.argument(0, 'input')
    labels, shape = recorder.labels_of(x), call.argument(1, 'normalized_shape')
    dims = list(range(labels.dim() - len(shape), labels.dim()))
    if not varies_along(labels, dims):
        return [labels]
    recorder.require(
        len(dims) == 1,
        f'normalises over channels and positions at once ({call.op})')
    vector = channel_vector(recorder, x, -1)
    affine = [call.argument(2, 'weight')]
    if call.op == 'layer_norm':
        affine.append(call.argument(3, 'bias'))
    _mixes(recorder, call, vector, 1, affine)
    return [labels]


@register_rule('group_norm')
def group_norm(recorder, call) -> List[Tensor]:
    """Statistics over groups of channels, which stay equally wide."""
    x, groups = call.argument(0, 'input'), call.argument(1, 'num_groups')
    vector = channel_vector(recorder, x, 1)
    if groups > 1:
        recorder.facts.partitions.append(
            Partition(
                vector.view(groups, -1).clone(), recorder.path,
                f'{recorder.where} is a group norm'))
    _mixes(recorder, call, vector, groups,
           [call.argument(2, 'weight'),
            call.argument(3, 'bias')])
    return [expand_vector(vector, 1, torch.Size(x.shape))]


# Norms that are written out: means over channels.

#: Name of the operation in a record, once it is understood.
CHANNEL_MEAN = 'channel_mean'


def channel_mean(recorder, vector: Tensor) -> None:
    """Note that the running module takes the mean of channels.

    Under masks it is that of the kept ones, Σmx/Σm, as in every norm.

    Args:
        recorder (Recorder): The recorder.
        vector (Tensor): Labels of the channels, ``[C]``.
    """
    path = recorder.path
    recorder.require(bool(path), 'mixes channels: it takes their mean')
    known = recorder.facts.norms.setdefault(path,
                                            NormAxis(path, 'mean', vector))
    recorder.require(
        known.op == 'mean' and len(known.labels) == len(vector),
        'takes means over channels of several widths, or beside a norm')
    recorder.variables.merge(known.labels, vector)
    recorder.nodes[-1].op = CHANNEL_MEAN


def settle_means(recorder) -> None:
    """Keep channels of means whose module takes other means as well.

    While it runs all means over so many entries are weighted with masks.
    """
    paths = {
        recorder.calls[node.call].path
        for node in recorder.nodes if node.op == 'mean' and node.call >= 0
    }
    for norm in recorder.facts.norms.values():
        start = f'{norm.module}.'
        if norm.op == 'mean' and any(f'{path}.'.startswith(start)
                                     for path in paths):
            recorder.variables.fix(
                norm.labels, f'"{norm.module}" takes means over channels and '
                'over others')
