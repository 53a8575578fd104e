# Copyright (c) dms_razor contributors. All rights reserved.
"""From merged channel variables to width units.

Channels that occur in the same vectors (outputs of layers, pieces of a split,
groups of a grouped convolution) are interchangeable: together they are one
width, one unit. Where groups or pieces must keep equal counts they are the
groups of one unit, ranked apart (METHOD section 1, groups).
"""
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import Callable, Dict, List, Optional, Set, Tuple

import numpy as np
import torch
from torch import Tensor

from .facts import Facts, Heads
from .labels import components, compress, core


@dataclass
class WidthGroup:
    """Channels of one future unit: ``rows[g][i]`` is a class of variables."""
    rows: List[List[int]]
    modules: List[str] = field(default_factory=list)


class UnitFinder:
    """Sorts classes of channel variables into width units.

    Args:
        facts (Facts): What the trace found out.
        free (Callable): Tells by path which modules take pieces of any size,
            so that their pieces need not be equal.

    Attributes:
        classes (np.ndarray): Class of every variable.
        fixed (dict[int, str]): Class -> reason why it stays.
        attention (list[AttentionGroup]): Layers with units of their own.
    """

    def __init__(self,
                 facts: Facts,
                 free: Callable[[str], bool] = lambda path: False) -> None:
        self.facts = facts
        self.partitions = [p for p in facts.partitions if not free(p.module)]
        self.classes = facts.variables.classes()
        self.fixed = facts.variables.fixed(self.classes)
        self.attention = AttentionFinder(facts, self.classes,
                                         self.fixed).find()
        self.taken = {
            root
            for group in self.attention
            for root in chain(group.heads, *group.queries, *group.values)
        }
        self._fix_unread()
        self._signatures()

    def roots(self, labels) -> List[int]:
        """Classes named by a label tensor, in order; 0 where none."""
        return self.classes[labels.reshape(-1).numpy()].tolist()

    def _fix_unread(self) -> None:
        """Channels that no layer reads have no mask to learn from."""
        read: Set[int] = set()
        for axis in self.facts.axes.values():
            if axis.reads:
                read.update(self.roots(axis.labels))
        for producer in self.facts.producers:
            for root in self.roots(producer.labels):
                if root not in read and root not in self.taken:
                    self.fixed.setdefault(root, 'no layer reads its channels')

    def _signatures(self) -> None:
        """Which named vectors each class occurs in."""
        vectors = [p.labels for p in self.facts.producers]
        vectors += [p.labels for p in self.facts.pieces]
        for partition in self.partitions:
            vectors += list(partition.labels)
        occurs: Dict[int, List[int]] = defaultdict(list)
        for number, labels in enumerate(vectors):
            for root in dict.fromkeys(self.roots(labels)):
                if root > 0 and root not in self.fixed and \
                        root not in self.taken:
                    occurs[root].append(number)
        producers = len(self.facts.producers)
        groups: Dict[Tuple[int, ...], List[int]] = defaultdict(list)
        for number in range(producers):
            for root in dict.fromkeys(self.roots(vectors[number])):
                if root in occurs and occurs[root][0] == number:
                    groups[tuple(occurs[root])].append(root)
        self.rows = list(groups.values())
        self.row_modules = [[
            self.facts.producers[v].module for v in signature if v < producers
        ] for signature in groups]
        self.row_of = {
            root: number
            for number, row in enumerate(self.rows)
            for root in row
        }

    def find(self) -> Optional[List[WidthGroup]]:
        """Width units in network order.

        Returns:
            list[WidthGroup] | None: None if some channels turned out to have
            to stay (they are fixed now): the finder is to be made anew.
        """
        ties: List[Tuple[int, int]] = []
        for partition in self.partitions:
            columns, bad = self._columns(partition)
            if bad:
                self.facts.variables.fix(
                    torch.tensor(bad), f'{partition.why}, and its parts '
                    'cannot be kept equal')
                return None
            ties += [(column[0], row) for column in columns for row in column]
        groups: Dict[int, WidthGroup] = defaultdict(lambda: WidthGroup([]))
        left, right = np.array(ties, int).reshape(-1, 2).T
        for row, root in enumerate(
                components(len(self.rows), left, right).tolist()):
            group = groups[root]
            group.rows.append(self.rows[row])
            group.modules += [
                m for m in self.row_modules[row] if m not in group.modules
            ]
        return list(groups.values())

    def _columns(self, partition) -> Tuple[List[List[int]], List[int]]:
        """Rows that make all parts of a partition keep equal counts.

        Returns:
            tuple: Rows, one of each part, that have to keep the same number;
            and classes that have to stay, since that cannot be had.
        """
        parts = [self.roots(part) for part in partition.labels]
        count: Dict[int, Counter] = defaultdict(Counter)
        for number, part in enumerate(parts):
            for root in part:
                row = self.row_of.get(root)
                if row is not None:
                    count[row][number, root] += 1
        if any(root in self.taken for part in parts for root in part):
            # Widths beside the dims of attention.
            return [], [root for row in count for root in self.rows[row]]
        alone: List[List[Tuple[int, int, int]]] = [[] for _ in parts]
        bad = []
        for row, times in count.items():
            roots = self.rows[row]
            share = [{times[number, root]
                      for root in roots} for number in range(len(parts))]
            held = [n for n, found in enumerate(share) if found != {0}]
            if any(len(found) > 1 for found in share):
                bad += roots  # some of its channels, not others
            elif len(held) == 1:
                alone[held[0]].append((share[held[0]].pop(), row))
            elif len(held) < len(parts) or len(set(map(max, share))) > 1:
                bad += roots  # more of it in one part than in another
        times = [[entry[0] for entry in part] for part in alone]
        if any(part != times[0] for part in times):
            bad += [
                r for part in alone for _, row in part for r in self.rows[row]
            ]
        if bad:
            return [], bad
        columns = [[row for _, row in column] for column in zip(*alone)]
        for column in columns:  # what some of them have more of stays
            least = min(len(self.rows[row]) for row in column)
            bad += [r for row in column for r in self.rows[row][least:]]
        return columns, bad


# Units of attention layers: heads, query/key dims and value dims.
#
# One ratio a layer for each (paper, appendix A.1.1). The dims of a head are
# ranked inside each head and every head keeps the same number, so that the
# layer stays regular (METHOD section 1, groups). What belongs to a head goes
# with the head.


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
        groups = []
        for fact in self.facts.heads:
            reason = self._reason(fact)
            if reason is None:
                rows = [
                    self.classes[labels.numpy()].tolist()
                    for labels in (fact.heads, fact.queries, fact.values)
                ]
                groups.append(AttentionGroup(fact.module, *rows, fact))
                continue
            for labels in (fact.heads, fact.queries, fact.values):
                if labels is not None:
                    for root in self._flat(labels):
                        self.fixed.setdefault(root, reason)
        return groups

    def _flat(self, labels) -> List[int]:
        return self.classes[labels.reshape(-1).numpy()].tolist()

    def _reason(self, fact: Heads) -> Optional[str]:
        """Why the layer stays as it is; None if it can be searched."""
        where = f'attention "{fact.module}"'
        if fact.values is None:
            return f'{where}: what its scores weight is not understood'
        heads, queries, values = (
            self._flat(x) for x in (fact.heads, fact.queries, fact.values))
        everything = heads + queries + values
        for root in everything:
            if root in self.fixed:
                return self.fixed[root]
        if len(set(everything)) < len(everything) or 0 in everything:
            return f'{where}: its heads share channels'
        if self.read.intersection(heads):
            return f'{where}: its heads are mixed with one another'
        if self.read.intersection(queries):
            return f'{where}: its queries or keys are read elsewhere'
        if not self.read.issuperset(values):
            return f'{where}: no layer reads its values'
        for producer in self.facts.producers:
            vector = set(self._flat(producer.labels))
            if vector & set(everything) and vector - set(everything):
                return f'{where}: its queries, keys or values also occur ' \
                    'outside'
        return None


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


# Which element every channel belongs to, once units are numbered.


class Elements:
    """Elements by class of channel variables.

    Args:
        classes (np.ndarray): Class of every variable.

    Attributes:
        own (np.ndarray): Element of each class, -1 for none.
        head (np.ndarray): Element of the attention head that a class lies
            in, -1 for none.
    """

    def __init__(self, classes: np.ndarray) -> None:
        self.classes = classes
        self.own = np.full(len(classes), -1)
        self.head = np.full(len(classes), -1)

    def own_index(self, labels: Tensor) -> Tensor:
        """Own element of each label, -1 for none; shape of ``labels``."""
        return torch.from_numpy(self.own[self.classes[labels.numpy()]])

    def index(self, labels: Tensor) -> Tensor:
        """Element of each label, -1 where nothing can be pruned.

        Returns:
            Tensor: int64, the shape of ``labels``; with a last dimension of 2
            (own element, element of the head) if some belong to heads.
        """
        own = self.own_index(labels)
        head = torch.from_numpy(self.head[self.classes[labels.numpy()]])
        return torch.stack([own, head], -1) if bool((head >= 0).any()) else own

    def entry_axis(self, labels: Tensor) -> Optional[Tuple[int, Tensor]]:
        """Axis of a parameter used elementwise, and its elements; or None.

        Raises:
            ValueError: Its channels lie along several axes.
        """
        index = self.index(labels)
        if not bool((index >= 0).any()):
            return None
        code = index if index.shape == labels.shape else \
            index[..., 0] * len(self.own) * 2 + index[..., 1]
        shape = core(compress(code)).shape
        varying = [dim for dim, size in enumerate(shape) if size > 1]
        if len(varying) != 1:
            raise ValueError
        axis = varying[0]
        for dim in range(labels.dim() - 1, -1, -1):
            if dim != axis:
                index = index.select(dim, 0)
        return axis, index.contiguous()
