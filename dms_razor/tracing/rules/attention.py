# Copyright (c) dms_razor contributors. All rights reserved.
"""Products of two activations: attention, and pooling by attention.

In ``scores = q @ k^T`` the head dimension is summed up: q and k lose the same
dims, and each head becomes a variable of its own. In ``scores @ v`` tokens
are summed up and the dims of v pass, inside their head. No attention class is
named here: what the channels of a head are follows from the labels alone.
"""
from math import prod
from typing import List, Optional

import numpy as np
import torch
from torch import Tensor

from ..facts import Heads
from ..labels import align, core, expand_vector
from .contraction import channel_vector, dense
from .table import register_rule
from .weights import Weight, weight_of


def _head_dim(recorder, labels: Tensor) -> Optional[int]:
    """The one batch dimension (negative) that labels vary in, if any."""
    dims = [
        d - labels.dim() for d in range(labels.dim() - 2)
        if labels.shape[d] > 1
    ]
    recorder.require(
        len(dims) < 2, 'multiplies activations whose channels lie in several '
        'batch dimensions')
    return dims[0] if dims else None


def _rows(labels: Tensor, head: Optional[int], dim: int) -> Tensor:
    """Labels as ``[H, size of dim]``."""
    if head is None:
        return labels.reshape(1, -1)
    return labels.movedim((head, dim), (0, 1)).reshape(labels.shape[head],
                                                       labels.shape[dim])


def _product(recorder, call, a: Tensor, b: Tensor,
             shape: torch.Size) -> Tensor:
    """Labels of ``a @ b``; both at core size, contracted over -1 and -2."""
    inner_a, inner_b = a.shape[-1] > 1, b.shape[-2] > 1
    recorder.require(
        inner_a == inner_b,
        f'multiplies channels with a tensor that has none ({call.op})')
    return (_scores if inner_a else _weighted)(recorder, a, b, shape)


def _scores(recorder, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
    """Queries times keys: the channels of a head are summed up."""
    recorder.require(
        max(a.shape[-2], b.shape[-1]) < 2,
        'multiplies channels with channels (cross-covariance)')
    head = _head_dim(recorder, a)
    recorder.require(
        head == _head_dim(recorder, b), 'pairs the heads of queries and keys '
        'in a way that is not understood')
    queries, keys = _rows(a, head, -1), _rows(b, head, -2)
    recorder.require(queries.shape == keys.shape and int(queries.min()) > 0,
                     'multiplies activations whose channels do not match')
    recorder.variables.merge(queries, keys)
    heads = recorder.variables.new(len(queries))
    recorder.facts.heads.append(Heads(recorder.path, heads, queries, keys))
    return expand_vector(heads, -1 if head is None else head, shape)


def _weighted(recorder, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
    """Scores times values: tokens are summed up, channels of b (or a) pass."""
    recorder.require(
        min(a.shape[-2], b.shape[-1]) < 2,
        'multiplies channels with channels (outer product)')
    carrier, weights = (a, b) if a.shape[-2] > 1 else (b, a)
    free = -2 if carrier is a else -1
    if int(weights.max()) > 0:
        _note_values(recorder, weights, carrier, free)
    return carrier.expand(shape)


def _note_values(recorder, weights: Tensor, carrier: Tensor,
                 free: int) -> None:
    """The values of known heads; other weights must hold no channels."""
    head = _head_dim(recorder, weights)
    classes = recorder.variables.classes()
    variables = classes[weights.reshape(-1).numpy()]
    fact = next((fact for fact in recorder.facts.heads[recorder.heads_before:]
                 if np.array_equal(classes[fact.heads.numpy()], variables)),
                None)
    new = head is None if fact is None else fact.values is None
    recorder.require(
        new and _head_dim(recorder, carrier) == head,
        'combines scores and values in a way that is not '
        'understood')
    if fact is not None:
        fact.values = _rows(carrier, head, free)


def _count_product(recorder, call, total: int, a: Tensor, b: Tensor) -> None:
    """MACs follow the channels that are summed up, or that pass."""
    axes = [x.reshape(-1) for x in (a, b) if max(x.shape[-2:]) > 1
            ][:1] or [x.reshape(-1) for x in (a, b) if x.numel() > 1][:1]
    recorder.count(call, total / prod(map(len, axes)), *axes)


def _constant(recorder, tensor: Tensor) -> bool:
    """Whether a tensor is a parameter, or computed from parameters alone."""
    value = recorder.value(tensor)
    return recorder.name_of(tensor) is not None or (
        value is not None and recorder.nodes[value.node].constant)


def _layer(recorder, call, x: Tensor, held: Weight, macs: int) -> List[Tensor]:
    """``x @ w``: a linear layer whose weight is ``[in, out]``."""
    labels = recorder.core_of(x)
    recorder.require(
        x.dim() > 1 and (labels.numel() == 1 or labels.shape[-1] > 1),
        'multiplies with a parameter in a way that is not understood '
        f'({call.op})', call, macs)
    vector = channel_vector(recorder, x, -1)
    result = dense(recorder, call, held, call.outs[0].shape[-1], vector, 1)
    recorder.count(call, macs / (len(vector) * len(result)), vector, result)
    return [expand_vector(result, x.dim() - 1, call.outs[0].shape)]


@register_rule('matmul', 'bmm', 'mm', 'rmatmul')
def matrix_product(recorder, call) -> List[Tensor]:
    """A product of two activations (or of one and a parameter)."""
    a, b = call.tensors[:2]
    if call.op == 'rmatmul':
        a, b = b, a
    out = call.outs[0]
    total = out.numel() * a.shape[-1]
    if b.dim() == 2 and _constant(recorder, b) and not _constant(recorder, a):
        held = weight_of(recorder, b)
        if held is not None:
            return _layer(recorder, call, a, held, total)
    recorder.require(
        min(a.dim(), b.dim(), out.dim()) > 1
        and all(recorder.name_of(t) is None for t in (a, b)),
        'multiplies matrices in a way that is not understood '
        f'({call.op})', call, total)
    left = align(recorder.core_of(a), out.dim())
    right = align(recorder.core_of(b), out.dim())
    _count_product(recorder, call, total, left, right)
    return [_product(recorder, call, left, right, out.shape)]


@register_rule('scaled_dot_product_attention')
def attention(recorder, call) -> List[Tensor]:
    """Both products of attention at once."""
    q, k, v = (call.argument(i, name)
               for i, name in enumerate(('query', 'key', 'value')))
    mask = call.argument(3, 'attn_mask')
    out = call.outs[0]
    labels = [align(recorder.core_of(x), out.dim()) for x in (q, k, v)]
    tokens = prod(q.shape[:-1]) * k.shape[-2]
    _count_product(recorder, call, tokens * q.shape[-1], labels[0], labels[1])
    _count_product(recorder, call, tokens * v.shape[-1], labels[2], labels[2])
    shape = torch.Size((*q.shape[:-1], k.shape[-2]))
    scores = _product(recorder, call, labels[0], labels[1].transpose(-1, -2),
                      shape)
    if isinstance(mask, Tensor) and recorder.labels_of(mask) is not None:
        bias = align(recorder.core_of(mask), len(shape))
        recorder.variables.merge(*torch.broadcast_tensors(core(scores), bias))
    return [_product(recorder, call, core(scores), labels[2], out.shape)]
