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
from ..labels import align, compress, core, expand_vector, vector_along
from ..record import NotUnderstood
from .contraction import carry_bias, channel_vector, dense
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


def product(recorder, call, total: int, a: Tensor, b: Tensor,
            shape: torch.Size) -> Tensor:
    """Labels of ``a @ b``; both at core size, contracted over -1 and -2.

    MACs follow the channels that are summed up, or that pass.

    Args:
        recorder (Recorder): The recorder.
        call (OpCall): The operation.
        total (int): MACs of the whole batch.
        a, b (Tensor): Labels of the factors.
        shape (torch.Size): Of the product.
    """
    inner_a, inner_b = a.shape[-1] > 1, b.shape[-2] > 1
    if max(*a.shape[-2:], *b.shape[-2:]) == 1 and not any(
            _fact_of(recorder, x) for x in (a, b)):
        # Heads whose dims go together: each is one channel.
        inner_a = inner_b = min(a.numel(), b.numel()) > 1
    try:
        if inner_a != inner_b and int((b if inner_a else a).max()) > 0:
            result = _mixed_heads(recorder, shape,
                                  (a, -1 if inner_a else None),
                                  (b, None if inner_a else -2))
        else:
            recorder.require(
                inner_a == inner_b,
                f'multiplies channels with a tensor that has none ({call.op})')
            result = (_scores if inner_a else _weighted)(recorder, a, b, shape)
    except NotUnderstood:
        axes = [x.reshape(-1) for x in (a, b) if max(x.shape[-2:]) > 1][:1]
        recorder.count(call, total / prod(map(len, axes)), *axes)
        raise
    counted = a if inner_a and inner_b else core(compress(result))
    axes = [x.reshape(-1) for x in (counted, a, b) if x.numel() > 1][:1]
    recorder.count(call, total / prod(map(len, axes)), *axes)
    return result


def _scores(recorder, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
    """Queries times keys: the channels of a head are summed up."""
    recorder.require(
        max(a.shape[-2], b.shape[-1]) < 2,
        'multiplies channels with channels (cross-covariance)')
    head, own = _head_dim(recorder, a), _head_dim(recorder, b)
    if own is None is not head and a.shape[head] == shape[head]:
        # One head of keys for all heads of queries.
        size = list(b.shape)
        size[head], own = a.shape[head], head
        b = b.expand(size)
    recorder.require(
        head == own, 'pairs the heads of queries and keys '
        'in a way that is not understood')
    queries, keys = _rows(a, head, -1), _rows(b, head, -2)
    recorder.require(queries.shape == keys.shape and int(queries.min()) > 0,
                     'multiplies activations whose channels do not match')
    variables, times = recorder.variables, _repeats(keys)
    fact = Heads(recorder.path, variables.new(len(keys) // times),
                 queries.reshape(len(keys) // times, -1), keys[::times])
    if times == 1:
        variables.merge(queries, keys)
    else:
        reason = f'{recorder.where} has query heads that share their keys'
        variables.hold(queries, reason)
        variables.hold(keys, reason)
        fact.inner = variables.new(len(keys)).view(-1, times)
    recorder.facts.heads.append(fact)
    return expand_vector(fact.scores, -1 if head is None else head, shape)


def _repeats(rows: Tensor) -> int:
    """How often each row stands there, one after the other."""
    times = 1
    while times < len(rows) and torch.equal(rows[times], rows[0]):
        times += 1
    runs = len(rows) % times == 0 and torch.equal(
        rows[::times].repeat_interleave(times, 0), rows)
    return times if runs else 1


def _fact_of(recorder, scores: Tensor) -> Optional[Heads]:
    """The heads whose scores these labels are, if they are any."""
    classes = recorder.variables.classes()
    variables = classes[scores.reshape(-1).numpy()]
    same = [
        fact for fact in recorder.facts.heads[recorder.heads_before:]
        if np.array_equal(classes[fact.scores.numpy()], variables)
    ]
    # Several layers have the same heads where they share a bias of each head.
    return next((fact for fact in same if fact.values is None),
                same[0] if same else None)


def _weighted(recorder, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
    """Scores times values: tokens are summed up, channels of b (or a) pass."""
    if min(a.shape[-2], b.shape[-1]) > 1 and _head_dim(recorder, a):
        return _mixed_heads(recorder, shape, (a, -2), (b, -1))
    recorder.require(
        min(a.shape[-2], b.shape[-1]) < 2,
        'multiplies channels with channels (outer product)')
    carrier, weights = (a, b) if a.shape[-2] > 1 else (b, a)
    free = -2 if carrier is a else -1
    if int(weights.max()) > 0:
        carrier = _note_values(recorder, weights, carrier, free)
    return carrier.expand(shape)


def _mixed_heads(recorder, shape: torch.Size, *factors) -> Tensor:
    """Channels times channels inside each head (XCiT, factorised attention).

    All channels of a head go together from now on: a head is one variable.

    Args:
        recorder (Recorder): The recorder.
        shape (torch.Size): Shape of the product.
        factors (tuple): Labels of both factors at core size, and along which
            dimension their channels lie; None where only heads are told apart.
    """
    heads = {_head_dim(recorder, labels) for labels, _ in factors}
    head = heads.pop()
    recorder.require(not heads and head is not None,
                     'multiplies channels with channels (cross-covariance)')
    rows = [
        labels.movedim(head, 0).flatten(1) if dim is None else _rows(
            labels, head, dim) for labels, dim in factors
    ]
    recorder.require(
        min(int(own.min()) for own in rows) > 0,
        'multiplies channels with constants')
    first = rows[0][:, :1]
    for own in rows:
        recorder.variables.merge(first.expand_as(own), own)
    return expand_vector(first[:, 0], head, shape)


def _note_values(recorder, weights: Tensor, carrier: Tensor,
                 free: int) -> Tensor:
    """The values of known heads; other weights must hold no channels.

    Returns:
        Tensor: Labels of the result, as those of the values: the same, unless
        query heads share their values.
    """
    head, fact = _head_dim(recorder, weights), _fact_of(recorder, weights)
    new = head is None if fact is None else fact.values is None
    if fact is not None and fact.inner is not None and _head_dim(
            recorder, carrier) is None:
        size = list(carrier.shape)
        size[head] = weights.shape[head]
        carrier = carrier.expand(size)
    recorder.require(
        new and _head_dim(recorder, carrier) == head,
        'combines scores and values in a way that is not '
        'understood')
    if fact is None:
        return carrier
    rows = _rows(carrier, head, free)
    if fact.inner is None:
        fact.values = rows
        return carrier
    times = fact.inner.shape[1]
    recorder.require(
        torch.equal(rows[::times].repeat_interleave(times, 0), rows),
        'shares its keys otherwise than its values')
    fact.values = rows[::times]
    reason = f'{recorder.where} has query heads that share their values'
    recorder.variables.hold(rows, reason)
    made = recorder.variables.new(rows.numel()).view(rows.shape)
    recorder.variables.hold(made, reason)
    fact.made = made.reshape(len(fact.values), -1)
    size = [1] * carrier.dim()
    size[head], size[free] = rows.shape
    if head > free:
        made = made.T
    return made.reshape(size)


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


@register_rule('addmm')
def layer_with_bias(recorder, call) -> List[Tensor]:
    """``b + x @ w``: a linear layer whose weight is ``[in, out]``."""
    bias, x, weight = (call.argument(i, name)
                       for i, name in enumerate(('input', 'mat1', 'mat2')))
    macs = call.outs[0].numel() * x.shape[-1]
    held = weight_of(recorder, weight)
    recorder.require(
        held is not None and not recorder.is_constant(x)
        and call.kwargs.get('beta', 1) == call.kwargs.get('alpha', 1) == 1,
        'multiplies matrices in a way that is not understood (addmm)', call,
        macs)
    outs = _layer(recorder, call, x, held, macs)
    names = f'{recorder.path}.weight', f'{recorder.path}.bias'
    if (held.name, recorder.name_of(bias)) == names:
        recorder.facts.affine.add(recorder.path)
    carry_bias(recorder, bias, vector_along(outs[0], -1))
    return outs


def _rows_of_table(recorder, call, table: Tensor, macs: int) -> List[Tensor]:
    """``picks @ table``: rows that are picked by a tensor without channels.

    Those of one column are mixed, so they are one channel.
    """
    labels = core(compress(recorder.core_of(table)))
    first = labels.narrow(-2, 0, 1)
    recorder.variables.merge(*torch.broadcast_tensors(first, labels))
    recorder.count(call, macs / first.numel(), first.reshape(-1))
    out = call.outs[0]
    return [align(first, out.dim()).expand(out.shape)]


@register_rule('matmul', 'bmm', 'mm', 'rmatmul')
def matrix_product(recorder, call) -> List[Tensor]:
    """A product of two activations (or of one and a parameter)."""
    a, b = call.tensors[:2]
    if call.op == 'rmatmul':
        a, b = b, a
    out = call.outs[0]
    total = out.numel() * a.shape[-1]
    if b.dim() == 2 and recorder.is_constant(
            b) and not recorder.is_constant(a):
        held = weight_of(recorder, b)
        if held is not None:
            return _layer(recorder, call, a, held, total)
    if b.dim() > 2 and recorder.labels_of(a) is None and recorder.is_constant(
            b):
        return _rows_of_table(recorder, call, b, total)
    recorder.require(
        min(a.dim(), b.dim(), out.dim()) > 1
        and all(recorder.name_of(t) is None for t in (a, b)),
        'multiplies matrices in a way that is not understood '
        f'({call.op})', call, total)
    left = align(recorder.core_of(a), out.dim())
    right = align(recorder.core_of(b), out.dim())
    return [product(recorder, call, total, left, right, out.shape)]


@register_rule('scaled_dot_product_attention')
def attention(recorder, call) -> List[Tensor]:
    """Both products of attention at once."""
    q, k, v = (call.argument(i, name)
               for i, name in enumerate(('query', 'key', 'value')))
    mask = call.argument(3, 'attn_mask')
    out = call.outs[0]
    labels = [align(recorder.core_of(x), out.dim()) for x in (q, k, v)]
    if call.kwargs.get('enable_gqa') and q.shape[-3] > k.shape[-3]:
        for i, tensor in ((1, k), (2, v)):
            labels[i] = labels[i].expand(
                *labels[i].shape[:-3], tensor.shape[-3],
                *labels[i].shape[-2:]).repeat_interleave(
                    q.shape[-3] // tensor.shape[-3], -3)
    tokens = prod(q.shape[:-1]) * k.shape[-2]
    shape = torch.Size((*q.shape[:-1], k.shape[-2]))
    scores = product(recorder, call, tokens * q.shape[-1], labels[0],
                     labels[1].transpose(-1, -2), shape)
    if isinstance(mask, Tensor) and recorder.labels_of(mask) is not None:
        bias = align(recorder.core_of(mask), len(shape))
        recorder.variables.merge(*torch.broadcast_tensors(core(scores), bias))
    return [
        product(recorder, call, tokens * v.shape[-1], core(scores), labels[2],
                out.shape)
    ]
