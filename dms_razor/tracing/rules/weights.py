# Copyright (c) dms_razor contributors. All rights reserved.
"""Which parameter holds the numbers of a weight, and along which axes.

Most layers read a parameter of their own. Some read one of a layer inside
them (``F.linear(x, self.qkv.weight)``), turned round (``x @ self.w``), or one
that is computed first from parameters alone: weight norm, standardised
convolutions. What is computed is judged when the recording is complete, see
:mod:`dms_razor.tracing.weights`.
"""
from dataclasses import dataclass
from typing import List, Optional, Set, Tuple

import torch
from torch import Tensor

from .table import register_rule
from .unknown import not_known


@dataclass(frozen=True)
class Weight:
    """Where a weight comes from.

    Attributes:
        name (str): Full name of the parameter.
        turned (bool): Whether its first two axes are exchanged.
        chain (tuple[int]): Operations that compute it, in order.
        tied (str | None): Its name in the running module, where that shares
            it with the one in whose name it stands.
    """
    name: str
    turned: bool = False
    chain: Tuple[int, ...] = ()
    tied: Optional[str] = None

    def axis(self, axis: int) -> int:
        """The parameter's axis for one of the weight's first two."""
        return 1 - axis if self.turned else axis


def owns(recorder, name: Optional[str]) -> bool:
    """Whether the running module, or a module inside it, has a tensor."""
    path = recorder.path
    return name is not None and (not path or name.startswith(f'{path}.'))


def weight_of(recorder, weight: Tensor) -> Optional[Weight]:
    """Where a weight comes from; None if that is not understood."""
    name = recorder.name_of(weight)
    if name is not None:
        if owns(recorder, name):
            return Weight(name)
        tied = recorder.own_name_of(weight)
        return None if tied is None else Weight(name, tied=tied)
    value = recorder.value(weight)
    if value is None or weight.dim() < 2:
        return None
    chain = _chain(recorder, value.node)
    if chain is None:
        return None
    for name in set().union(*(recorder.nodes[n].names for n in chain)):
        if not owns(recorder, name):
            return None
    return _holder(recorder, value.labels, chain)


def _chain(recorder, end: int) -> Optional[List[int]]:
    """The operations behind one; None if they read an activation."""
    waiting, found = [end], set()
    while waiting:
        node = waiting.pop()
        if not recorder.nodes[node].constant:
            return None
        if node not in found:
            found.add(node)
            waiting += recorder.nodes[node].inputs
    return sorted(found)


def _holder(recorder, labels: Tensor, chain: List[int]) -> Optional[Weight]:
    """The parameter whose entries are where those of the weight are."""
    names: Set[str] = set().union(*(recorder.nodes[n].names for n in chain))
    for name in sorted(names):
        entries = recorder.facts.entry_labels.get(name)
        if entries is None or entries.dim() != labels.dim():
            continue
        for turned in (False, True):
            own = entries.transpose(0, 1) if turned else entries
            if own.shape == labels.shape and torch.equal(own, labels):
                return Weight(name, turned, tuple(chain))
    return None


@register_rule('weight_norm')
def weight_norm(recorder, call) -> List[Tensor]:
    """``g * v / |v|``: what one length is taken of goes into all of it."""
    direction, length = call.tensors[:2]
    v, g = recorder.labels_of(direction), recorder.labels_of(length)
    g = v.reshape(-1)[:1] if g is None else g  # one length of all entries
    recorder.variables.merge(*torch.broadcast_tensors(v, g))
    return [v]


@register_rule('mv', 'dot', 'vdot')
def matrix_and_vector(recorder, call) -> List[Tensor]:
    """Products of parameters with a vector, as in ``spectral_norm``.

    The entries of a vector are told by those of the first row that they meet,
    and rows by their first entry, so that nothing is merged in the matrix.
    """
    if not all(map(recorder.is_constant, call.tensors)):
        return not_known(recorder, call)
    first, second = map(recorder.labels_of, call.tensors)
    if recorder.first is None:  # steps of training cost nothing
        recorder.count(call, first.numel())
    rows = first.reshape(-1, len(second))
    recorder.variables.merge(rows[0], second)
    return [(rows[:, 0] if call.op == 'mv' else torch.zeros(
        (), dtype=torch.long))]
