# Copyright (c) dms_razor contributors. All rights reserved.
"""Units of attention layers: heads, query/key dims and value dims.

One ratio a layer for each (paper, appendix A.1.1). The dims of a head are
ranked inside each head and every head keeps the same number, so that the
layer stays regular (METHOD section 1, groups). What belongs to a head goes
with the head.
"""
from dataclasses import dataclass
from typing import Dict, List, Optional, Set

import numpy as np
import torch

from .facts import Facts, Heads


@dataclass
class AttentionGroup:
    """The units of one attention layer, as classes of variables.

    Attributes:
        module (str): Path of the layer.
        heads (list[int]): One class a head; empty if heads stay.
        queries (list[list[int]]): Classes of query/key dims, ``[H][d]``.
        values (list[list[int]]): Classes of value dims, ``[H][d]``.
        fact (Heads): What was traced.
    """
    module: str
    heads: List[int]
    queries: List[List[int]]
    values: List[List[int]]
    fact: Heads


class AttentionFinder:
    """Takes the classes of attention layers out of the widths.

    Args:
        facts (Facts): What the trace found out.
        classes (np.ndarray): Class of every variable.
        fixed (dict[int, str]): Class -> reason why it stays; layers that are
            not regular enough are added.
    """

    def __init__(self, facts: Facts, classes: np.ndarray,
                 fixed: Dict[int, str]) -> None:
        self.facts, self.classes, self.fixed = facts, classes, fixed
        self.read = {
            root
            for axis in facts.axes.values() if axis.reads
            for root in classes[axis.labels.numpy()].tolist()
        }

    def find(self) -> List[AttentionGroup]:
        """All layers whose channels are heads, queries, keys and values."""
        self.seen: Dict[int, int] = {}
        groups = []
        for fact in self.facts.heads:
            reason = self._reason(fact)
            if reason is None:
                groups.append(
                    AttentionGroup(fact.module, self._rows(fact.heads),
                                   self._rows(fact.queries),
                                   self._rows(fact.values), fact))
                continue
            for labels in (fact.heads, fact.queries, fact.values):
                if labels is not None:
                    for root in self._flat(labels):
                        self.fixed.setdefault(root, reason)
        return groups

    def _flat(self, labels) -> List[int]:
        return self.classes[labels.reshape(-1).numpy()].tolist()

    def _rows(self, labels) -> list:
        return self.classes[labels.numpy()].tolist()

    def _reason(self, fact: Heads) -> Optional[str]:
        """Why the layer stays as it is; None if it can be searched."""
        where = f'attention "{fact.module}"'
        if fact.values is None:
            return f'{where}: what its scores weight is not understood'
        heads, queries, values = (
            self._flat(x) for x in (fact.heads, fact.queries, fact.values))
        for roots in (heads, queries, values):
            for root in roots:
                if root in self.fixed:
                    return self.fixed[root]
        everything = heads + queries + values
        if len(set(everything)) < len(everything) or 0 in everything:
            return f'{where}: its heads share channels'
        if self.read.intersection(heads):
            return f'{where}: its heads are mixed with one another'
        if self.read.intersection(queries):
            return f'{where}: its queries or keys are read elsewhere'
        if not self.read.issuperset(values):
            return f'{where}: no layer reads its values'
        if not self._own(set(everything)):
            return f'{where}: its queries, keys or values also occur outside'
        return None

    def _own(self, roots: Set[int]) -> bool:
        """Whether no vector holds these classes next to others."""
        for producer in self.facts.producers:
            inside = set(self._flat(producer.labels))
            if inside & roots and not inside <= roots:
                return False
        return True


def projection_of(facts: Facts, labels: torch.Tensor) -> List[str]:
    """Parameters whose rows make the queries: where their mask acts.

    A norm behind the projection, if there is one, else the projection.

    Args:
        facts (Facts): What the trace found out.
        labels (Tensor): Variables of the queries as first made, ``[H, d]``.

    Returns:
        list[str]: Full names of a weight and, if there is one, a bias.
    """
    wanted = set(labels.reshape(-1).tolist())
    found: Dict[str, List[str]] = {}
    for (name, axis), held in facts.axes.items():
        if axis == 0 and not held.reads and wanted <= set(
                held.labels.tolist()):
            path, _, tensor = name.rpartition('.')
            found.setdefault(path, []).append(tensor)
    norms = [path for path, names in found.items() if 'running_mean' in names]
    for path in norms + list(found):
        names = [n for n in ('weight', 'bias') if n in found[path]]
        if names:
            return [f'{path}.{name}' for name in names]
    return []
