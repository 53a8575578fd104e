# Copyright (c) dms_razor contributors. All rights reserved.
"""Pooling, resizing, means and softmax: positions mix, channels must not."""
from typing import List, Sequence

import torch
from torch import Tensor

from ..labels import compress, core, expand_vector, varies_along, vector_along
from .elementwise import elementwise
from .experts import largest, probabilities
from .norm import channel_mean
from .table import register_rule

SPATIAL = [
    f'{kind}_pool{n}d' for n in (1, 2, 3)
    for kind in ('max', 'avg', 'lp', 'adaptive_max', 'adaptive_avg')
]
SPATIAL += [f'max_pool{n}d_with_indices' for n in (1, 2, 3)
            ] + 'interpolate upsample grid_sample max_unpool2d'.split()


@register_rule(*SPATIAL)
def spatial(recorder, call) -> List[Tensor]:
    """Pooling and resizing of ``[B, C, ...]``: the channels stay.

    Entries of a parameter (a table of positions) are channels of their own
    until here: those of one channel are mixed, so they are one from now on.
    """
    labels = recorder.labels_of(call.tensors[0])
    if call.op.startswith('max_unpool'):
        recorder.variables.merge(*(vector_along(recorder.labels_of(t), 1)
                                   for t in call.tensors))
    else:
        recorder.fix(call.tensors[1:],
                     f'{recorder.where} takes them as places')
    if labels is not None and varies_along(labels, [1]):
        labels = _mixed(recorder, call, labels,
                        [d for d in range(labels.dim()) if d != 1])
    vector = None if labels is None else vector_along(labels, 1)
    recorder.require(
        vector is not None, 'pools or resizes a tensor whose channels vary '
        'over positions')
    return [expand_vector(vector, 1, out.shape) for out in call.outs]


def _reduced_dims(call, dims: int) -> Sequence[int]:
    position = 2 if call.op in ('norm', 'linalg_vector_norm') else 1
    dim = call.argument(position, 'dim')
    if dim is None or isinstance(dim, bool) or dim in ((), []):
        return list(range(dims))
    return [d % dims for d in ([dim] if isinstance(dim, int) else dim)]


def _mixed(recorder, call, labels: Tensor, dims: Sequence[int]) -> Tensor:
    """Labels with size 1 along ``dims``, whose entries are mixed.

    Parts of channels may be mixed with one another (the branches of selective
    kernels): channels of one place in all parts then go together.
    """
    labels = core(compress(labels))
    first = labels[tuple(
        slice(1 if dim in dims else None) for dim in range(labels.dim()))]
    recorder.require(first.numel() == labels.numel() or first.numel() > 1,
                     f'mixes channels: it takes their {call.op}')
    recorder.variables.merge(*torch.broadcast_tensors(first, labels))
    return first


@register_rule('mean', 'sum', 'amax', 'amin', 'max', 'min', 'var', 'std',
               'var_mean', 'std_mean', 'norm', 'linalg_vector_norm',
               'logsumexp', 'prod', 'median')
def reduce(recorder, call) -> List[Tensor]:
    """Reduction over dimensions: fine as long as they hold no channels."""
    if call.op in ('max', 'min') and len(call.tensors) == 2:
        return elementwise(recorder, call)
    labels = recorder.labels_of(call.tensors[0])
    dims = _reduced_dims(call, labels.dim())
    if _over_channels(recorder, call, labels, dims):
        channel_mean(recorder, vector_along(labels, dims[0]))
        labels = torch.zeros((1, ) * labels.dim(), dtype=torch.long)
    else:
        labels = _mixed(recorder, call, labels, dims)
    if call.outs[0].dim() < labels.dim():
        labels = labels.reshape(
            [n for dim, n in enumerate(labels.shape) if dim not in dims])
    return [labels.expand(out.shape) for out in call.outs]


def _over_channels(recorder, call, labels: Tensor,
                   dims: Sequence[int]) -> bool:
    """Whether it is the mean of an activation's channels, and of them alone.
    """
    if call.op != 'mean' or len(dims) != 1 or recorder.nodes[-1].constant:
        return False
    vector = vector_along(labels, dims[0])
    return vector is not None and len(vector) > 1 and varies_along(
        labels, dims) and int(vector.min()) > 0


@register_rule('softmax', 'log_softmax', 'gumbel_softmax', 'softmin',
               'normalize', 'cumsum', 'sort', 'topk', 'argsort')
def along_one_dimension(recorder, call) -> List[Tensor]:
    """Softmax and the like mix along one dimension: it holds no channels.

    But for scores of a router, see :mod:`dms_razor.tracing.rules.experts`.
    """
    labels = recorder.labels_of(call.tensors[0])
    default = 1 if call.op == 'normalize' else -1
    position = 2 if call.op in ('normalize', 'topk') else 1
    dim = call.argument(position, 'dim')
    dim = (default if dim is None else dim) % labels.dim()
    found = probabilities(recorder, call, labels, dim) \
        if call.op == 'softmax' else \
        largest(recorder, call, dim) if call.op == 'topk' else None
    if found is not None:
        return found
    labels = _mixed(recorder, call, labels, [dim])
    return [labels.expand(out.shape) for out in call.outs]


@register_rule('item', 'argmax', 'argmin', 'any', 'all', 'nonzero', 'numel')
def no_feature(recorder, call) -> List[Tensor]:
    """Indices and flags; they may not depend on prunable channels."""
    labels = recorder.labels_of(call.tensors[0])
    recorder.require(
        core(compress(labels)).numel() == 1,
        f'computes {call.op} over its channels')
    return [
        torch.zeros((), dtype=torch.long).expand(out.shape)
        for out in call.outs
    ]
