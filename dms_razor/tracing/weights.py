# Copyright (c) dms_razor contributors. All rights reserved.
"""Weights that are computed from parameters before a layer reads them.

The rules have labelled every entry of such a parameter, and have merged those
that an operation mixes. From that follows what a pruned parameter would give:
if no entries of several outputs are mixed, outputs can go. If entries of
several inputs are mixed (a norm over a filter, its mean), the masks have to be
read before that: zeros say nothing in a norm or a sum, and where they do (a
mean, a variance) the statistics are taken of the kept entries, see
:mod:`dms_razor.masking.weights`.
"""
from math import prod
from typing import Dict, List, Optional, Set

import numpy as np

from .facts import ComputedWeight
from .labels import core
from .rules.table import has

#: Operations that mix entries, and in which zeros say nothing.
SUMS = frozenset('weight_norm norm linalg_vector_norm sum normalize'.split())
#: Operations that mix entries and whose masked form is known.
STATISTICS = frozenset('mean var std var_mean std_mean batch_norm'.split())
#: Products with vectors: they mix all entries, and zeros say nothing.
VECTORS = frozenset('mv dot vdot'.split())
#: Operations that mix nothing and make 0 of 0.
PLAIN = frozenset(
    't T mT H transpose permute view reshape flatten unflatten contiguous '
    'clone to float double half bfloat16 type_as mul div neg tanh relu abs '
    'sqrt square rsqrt reciprocal clamp clamp_min'.split())
#: Operations of a weight that is only turned round.
TURNS = frozenset('t T mT transpose permute'.split())
#: Products that may be a layer's.
PRODUCTS = frozenset('matmul mm einsum'.split())
#: Other operations that mix entries of a parameter.
OTHERS = frozenset(
    'amax amin max min prod median logsumexp softmax log_softmax layer_norm '
    'group_norm instance_norm sort topk cumsum argsort'.split())


def settle_weights(recorder) -> None:
    """Judge the computed weights of a recording that is complete.

    Args:
        recorder (Recorder): The recording; its facts are completed. Channels
            of a weight that cannot be cut are fixed.
    """
    facts = recorder.facts
    mine = [w for w in facts.computed if w.how is None]
    if not mine:
        return
    readers: Dict[str, Set[int]] = {}
    for node in recorder.nodes:
        for name in node.names:
            readers.setdefault(name, set()).add(node.index)
    variables = facts.variables
    classes = variables.classes()
    fixed = variables.fixed(classes)
    for weight in mine:
        judge = _Judge(recorder, weight, classes, fixed)
        reason = judge.used_elsewhere(readers, mine) or judge.settle()
        if reason is not None:
            weight.how = ''
            for labels in (weight.made, weight.read):
                variables.fix(labels, reason)
            facts.whole.setdefault(weight.name, reason)
    for weight in mine:
        for name in weight.names:
            if name not in facts.whole:
                facts.entry_labels.pop(name, None)


class _Judge:
    """Judges one computed weight."""

    def __init__(self, recorder, weight: ComputedWeight, classes: np.ndarray,
                 fixed: Dict[int, str]) -> None:
        self.recorder, self.weight, self.facts = recorder, weight, \
            recorder.facts
        self.nodes = [recorder.nodes[n] for n in weight.chain]
        self.classes, self.fixed = classes, fixed
        weight.names = sorted(set().union(*(n.names for n in self.nodes)))
        path = weight.module
        self.where = f'the weight of "{path}"' if path else 'the weight'

    def used_elsewhere(self, readers: Dict[str, Set[int]],
                       weights: List[ComputedWeight]) -> Optional[str]:
        """Why it may be something else as well; None if it is not."""
        known = {
            n
            for w in weights if w.name == self.weight.name
            for n in (*w.chain, w.node)
        }
        used = [n for name in self.weight.names for n in readers[name]]
        for node in self.nodes:
            used += [
                n.index for n in self.recorder.nodes[node.index:]
                if node.index in n.inputs
            ]
        if {n.op for n in self.nodes} <= TURNS:
            known |= {n for n in used if self._reads(n)}
        if not known.issuperset(n for n in used if not self._ends(n)):
            return f'{self.where} is computed from what is used elsewhere too'
        return None

    def _reads(self, node: int) -> bool:
        """Whether an operation reads the parameter itself as a weight."""
        record = self.recorder.nodes[node]
        return bool(record.inputs) and (has(record.op, 'layer')
                                        or record.op in PRODUCTS)

    def _ends(self, node: int) -> bool:
        """Whether nothing reads what a product leads to but a buffer.

        Such as the steps in which ``spectral_norm`` finds its vectors.
        """
        record = self.recorder.nodes[node]
        return record.constant and record.op in PLAIN | VECTORS and \
            node not in self.weight.chain and all(
                map(self._ends, self.recorder.readers[node]))

    def settle(self) -> Optional[str]:
        """Note how it is masked and cut; else say why it stays."""
        weight, facts = self.weight, self.facts
        labels = self.classes[weight.labels.numpy()]
        stays = [self.fixed[c] for c in np.unique(labels) if c in self.fixed]
        if stays:
            return stays[0]
        out, inner = (_owners(np.moveaxis(labels, axis, 0)) for axis in (0, 1))
        ops = {n.op for n in self.nodes}
        mixed = ops & (SUMS | STATISTICS | OTHERS)
        inside = all(self.recorder.calls[n.call].path ==
                     weight.module if n.call >= 0 else not weight.module
                     for n in self.nodes)
        own = inside and weight.name.rpartition('.')[0] == weight.module
        weight.rows = out is None or bool(ops & VECTORS)
        weight.how = 'early' if self._before() else 'statistics' \
            if own and ops - PLAIN - SUMS - VECTORS else 'plain'
        if mixed & OTHERS or not own and mixed & STATISTICS or (
                weight.rows and mixed & STATISTICS):
            return f'{self.where} mixes its entries ({", ".join(mixed)}) in ' \
                'a way that is not understood'
        for name in weight.names:
            reason = None if name == weight.name else self._beside(
                name, out, inner)
            if reason is not None:
                return reason
        for name in weight.names:
            facts.read_how[name] = weight
        self._cost()
        return None

    def _cost(self) -> None:
        """Products that compute the weight cost less where it is cut."""
        made, read = self.weight.made, self.weight.read
        for operation in self.recorder.operations:
            if operation.node in self.weight.chain and \
                    operation.op in VECTORS:
                axes = (made, read) if operation.op == 'mv' else (made, )
                operation.axes = axes
                operation.coefficient /= prod(map(len, axes))

    def _before(self) -> bool:
        """Whether it is computed before the layer is called (by a hook)."""
        call = self.recorder.calls[self.recorder.nodes[self.weight.node].call]
        return self.nodes[-1].index < call.first

    def _beside(self, name: str, out: Optional[Dict[int, int]],
                inner: Optional[Dict[int, int]]) -> Optional[str]:
        """Another parameter, with a number for each output or each input."""
        entries = self.facts.entry_labels.get(name)
        if entries is None or entries.numel() == 1:
            return None
        small = core(entries)
        held = self.classes[small.reshape(-1).numpy()].tolist()
        for owners, labels in ((out, self.weight.made), (inner,
                                                         self.weight.read)):
            times, rest = divmod(len(held), len(labels))
            if owners is not None and not rest and max(
                    small.shape) == len(held) and [
                        owners.get(c) for c in held
                    ] == [n for n in range(len(labels)) for _ in range(times)]:
                axis = list(small.shape).index(len(held))
                self.facts.axis(name, axis, labels.repeat_interleave(times))
                return None
        return f'{self.where} is computed with "{name}" in a way that is ' \
            'not understood'


def _owners(labels: np.ndarray) -> Optional[Dict[int, int]]:
    """Class -> the one row that has it; None if rows share classes."""
    rows = labels.reshape(len(labels), -1)
    numbers = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)
    pairs = np.unique(np.stack([rows.ravel(), numbers.ravel()]), axis=1)
    if len(np.unique(pairs[0])) < pairs.shape[1]:
        return None
    return dict(zip(pairs[0].tolist(), pairs[1].tolist()))
