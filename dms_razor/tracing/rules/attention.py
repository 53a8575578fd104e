# Copyright (c) dms_razor contributors. All rights reserved.
"""Products of two activations: attention, and pooling by attention.

In ``scores = q @ k^T`` the head dimension is summed up: q and k lose the same
dims, and each head becomes a variable of its own. In ``scores @ v`` tokens
are summed up and the dims of v pass, inside their head. No attention class is
named here: what the channels of a head are follows from the labels alone.
"""
from math import prod
from typing import List, Optional

import torch
from torch import Tensor

from ..facts import Heads
from ..labels import align, core, expand_vector
from ..record import NotUnderstood
from .table import register_rule


def _head_dim(labels: Tensor) -> Optional[int]:
    """The batch dimension (negative) that labels vary in; None if none.

    Raises:
        NotUnderstood: They vary in several.
    """
    dims = [
        d - labels.dim() for d in range(labels.dim() - 2)
        if labels.shape[d] > 1
    ]
    if len(dims) > 1:
        raise NotUnderstood('channels lie in several batch dimensions')
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
    where = recorder.where
    inner_a, inner_b = a.shape[-1] > 1, b.shape[-2] > 1
    if inner_a != inner_b:
        raise NotUnderstood(f'{where} multiplies channels with a tensor that '
                            f'has none ({call.op})')
    if inner_a:
        return _scores(recorder, a, b, shape)
    return _weighted(recorder, a, b, shape)


def _scores(recorder, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
    """Queries times keys: the channels of a head are summed up."""
    if a.shape[-2] > 1 or b.shape[-1] > 1:
        raise NotUnderstood(f'{recorder.where} multiplies channels with '
                            'channels (cross-covariance)')
    head = _head_dim(a)
    if head != _head_dim(b):
        raise NotUnderstood(f'{recorder.where} pairs the heads of queries '
                            'and keys in a way that is not understood')
    queries, keys = _rows(a, head, -1), _rows(b, head, -2)
    if queries.shape != keys.shape or int(queries.min()) == 0:
        raise NotUnderstood(f'{recorder.where} multiplies activations whose '
                            'channels do not match')
    recorder.variables.merge(queries, keys)
    heads = recorder.variables.new(len(queries))
    recorder.facts.heads.append(Heads(recorder.path, heads, queries, keys))
    if head is None:  # a single one
        return heads.expand(shape)
    return expand_vector(heads, head, shape)


def _weighted(recorder, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
    """Scores times values: tokens are summed up, channels of b (or a) pass."""
    if a.shape[-2] > 1 and b.shape[-1] > 1:
        raise NotUnderstood(f'{recorder.where} multiplies channels with '
                            'channels (outer product)')
    carrier, weights = (a, b) if a.shape[-2] > 1 else (b, a)
    free = -2 if carrier is a else -1
    if int(weights.max()) > 0:
        _note_values(recorder, weights, carrier, free)
    return carrier.expand(shape)


def _note_values(recorder, weights: Tensor, carrier: Tensor,
                 free: int) -> None:
    """The values of known heads; other weights must hold no channels."""
    head = _head_dim(weights)
    classes = recorder.variables.classes()
    variables = classes[weights.reshape(-1).numpy()]
    for fact in recorder.facts.heads:
        if (len(fact.heads) == len(variables)
                and (classes[fact.heads.numpy()] == variables).all()):
            if _head_dim(carrier) == head and fact.values is None:
                fact.values = _rows(carrier, head, free)
                return
            break
    else:
        if head is None and _head_dim(carrier) is None:
            return  # weights that belong to no channel
    raise NotUnderstood(f'{recorder.where} combines scores and values in a '
                        'way that is not understood')


def _count_product(recorder, call, total: int, a: Tensor, b: Tensor) -> None:
    """MACs follow the channels that are summed up, or that pass."""
    entries = [x.reshape(-1) for x in (a, b) if max(x.shape[-2:]) > 1]
    entries += [x.reshape(-1) for x in (a, b) if x.numel() > 1]
    axes = entries[:1]
    recorder.count(call, total / prod(map(len, axes)), *axes)


@register_rule('matmul', 'bmm', 'mm', 'rmatmul')
def matrix_product(recorder, call) -> List[Tensor]:
    """A product of two activations (or of one and a parameter)."""
    a, b = call.tensors[:2]
    if call.op == 'rmatmul':
        a, b = b, a
    out = call.outs[0]
    total = out.numel() * a.shape[-1]
    if min(a.dim(), b.dim(), out.dim()) < 2 or any(
            recorder.name_of(t) is not None for t in (a, b)):
        recorder.count(call, total)
        raise NotUnderstood(f'{recorder.where} multiplies matrices in a way '
                            f'that is not understood ({call.op})')
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
