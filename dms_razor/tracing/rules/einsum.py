# Copyright (c) dms_razor contributors. All rights reserved.
"""``torch.einsum`` of two factors: a product that is written in letters.

With a parameter of two axes it is a linear layer, wherever its letters stand;
with a table that all heads read (relative positions) the dims of a head stay
together; of two activations it is a matrix product. Whatever else letters can
say is counted, and its channels stay.
"""
from math import prod
from string import ascii_letters
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from ..labels import compress, core, expand_vector
from .attention import product
from .contraction import channel_vector, dense
from .table import register_rule
from .unknown import counted, not_known
from .weights import weight_of


@register_rule('einsum')
def einsum(recorder, call) -> List[Tensor]:
    """A linear layer, a table for all heads, or a product of activations."""
    factors = call.tensors
    letters = _letters(call.args[0], factors)
    if letters is None:
        return not_known(recorder, call)
    constant = [recorder.is_constant(t) for t in factors]
    terms, out = letters
    if constant[0] and not constant[1]:
        factors, terms = factors[::-1], terms[::-1]
    if not any(constant):
        labels = _product(recorder, call, factors, terms, out)
    elif all(constant):
        labels = None
    else:
        labels = _layer(recorder, call, *factors, *terms, out)
        if labels is None:
            labels = _table(recorder, call, *factors, *terms, out)
    return not_known(recorder, call) if labels is None else [labels]


def _letters(equation,
             factors: List[Tensor]) -> Optional[Tuple[List[str], str]]:
    """The letters of both factors and of the result, each once in a term.

    None if there are other than two factors, one that is summed up or widened
    by itself, or a diagonal.
    """
    if not isinstance(equation, str) or len(factors) != 2:
        return None
    left, arrow, out = equation.replace(' ', '').partition('->')
    unused = [c for c in ascii_letters if c not in equation]
    terms, most = [], 0
    for term, factor in zip(left.split(','), factors):
        beside = factor.dim() - len(term.replace('...', ''))
        most = max(most, beside)
        terms.append(term.replace('...', ''.join(unused[:beside][::-1])))
    if not arrow:
        out = '...' * ('...' in left) + ''.join(
            sorted(
                c for c in set(left)
                if left.count(c) == 1 and c in ascii_letters))
    out = out.replace('...', ''.join(unused[:most][::-1]))
    sizes = [dict(zip(term, t.shape)) for term, t in zip(terms, factors)]
    alone = set(terms[0]) ^ set(terms[1])
    fits = all(len(own) == len(term) for own, term in zip(sizes, terms)) and \
        all(sizes[1].get(c, n) == n for c, n in sizes[0].items()) and \
        alone <= set(out)
    return (terms, out) if fits else None


def _layer(recorder, call, x: Tensor, weight: Tensor, read: str, held_as: str,
           out: str) -> Optional[Tensor]:
    """Labels of a linear layer; None if it is none."""
    inner = [c for c in read if c in held_as and c not in out]
    new = [c for c in held_as if c not in read]
    if weight.dim() != 2 or len(inner) != 1 or len(new) != 1:
        return None
    dim = read.index(inner[0])
    labels = core(compress(recorder.core_of(x)))
    held = weight_of(recorder, weight)
    if held is None or labels.numel() not in (1, labels.shape[dim]):
        return None
    vector = channel_vector(recorder, x, dim)
    made = held_as.index(new[0])
    result = dense(recorder, call, held, weight.shape[made], vector, made)
    # Of a sum of one product PyTorch makes a mul, which nobody counts.
    recorder.facts.twice.append(vector)
    recorder.count(call,
                   counted(call) / (len(vector) * len(result)), vector, result)
    return expand_vector(result, out.index(new[0]), call.outs[0].shape)


def _table(recorder, call, x: Tensor, table: Tensor, read: str, held_as: str,
           out: str) -> Optional[Tensor]:
    """Labels where all heads read one table of constants, ``q · table``.

    Heads may go, their dims may not. The result has a variable a head, which
    is that of the scores once it is added to them.
    """
    labels = core(compress(recorder.core_of(x)))
    varying = [c for c, n in zip(read, labels.shape) if n > 1]
    inner = [c for c in varying if c not in out]
    heads = [c for c in varying if c in out and c not in held_as]
    if len(varying) != 2 or len(inner) != 1 or len(heads) != 1:
        return None
    where = recorder.where
    recorder.fix([table], f'{where} multiplies all heads with them (einsum)')
    recorder.variables.hold(
        labels, f'{where} multiplies all heads with the same constant '
        '(einsum)')
    recorder.count(call, counted(call) / labels.numel(), labels.reshape(-1))
    made = recorder.variables.new(labels.shape[read.index(heads[0])])
    return expand_vector(made, out.index(heads[0]), call.outs[0].shape)


def _product(recorder, call, factors: List[Tensor], terms: List[str],
             out: str) -> Optional[Tensor]:
    """Labels of a matrix product; None if it is none.

    Letters along which no channels vary have size 1 in labels, and so they
    have here.
    """
    batch = [c for c in out if c in terms[0] and c in terms[1]]
    inner = [c for c in terms[0] if c not in out]
    rows, columns = ([c for c in out if c not in other]
                     for other in (terms[1], terms[0]))
    found = [core(compress(recorder.core_of(t))) for t in factors]
    a = _matrices(found[0], terms[0], batch, rows, inner)
    b = _matrices(found[1], terms[1], batch, inner, columns)
    if not inner or a is None or b is None:
        return None
    shape = torch.Size([max(sizes) for sizes in zip(a.shape, b.shape)][:-2] +
                       [a.shape[-2], b.shape[-1]])
    result = product(recorder, call, counted(call), a, b, shape)
    sizes = dict(zip(terms[0], found[0].shape))
    for letter, size in zip(terms[1], found[1].shape):
        sizes[letter] = max(size, sizes.get(letter, 1))
    order = [*batch, *rows, *columns]
    result = core(result.expand(shape).reshape([sizes[c] for c in order]))
    return result.permute([order.index(c)
                           for c in out]).expand(call.outs[0].shape)


def _matrices(labels: Tensor, term: str, batch: List[str], rows: List[str],
              columns: List[str]) -> Optional[Tensor]:
    """Labels as ``[*batch, rows, columns]``; None if several letters of the
    rows, or of the columns, tell channels apart."""
    labels = labels.permute([term.index(c) for c in (*batch, *rows, *columns)])
    sizes = [
        labels.shape[start:stop]
        for start, stop in ((len(batch), len(batch) + len(rows)),
                            (len(batch) + len(rows), None))
    ]
    if any(sum(n > 1 for n in own) > 1 for own in sizes):
        return None
    return labels.reshape(*labels.shape[:len(batch)], *map(prod, sizes))
