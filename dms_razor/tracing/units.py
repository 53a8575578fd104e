# Copyright (c) dms_razor contributors. All rights reserved.
"""From merged channel variables to width units.

Channels that occur in the same vectors (outputs of layers, pieces of a split,
groups of a grouped convolution) are interchangeable: together they are one
width, one unit. Where groups or pieces must keep equal counts they are the
groups of one unit, ranked apart (METHOD section 1, groups).
"""
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterable, List, Optional, Set, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from .facts import Choice, Facts, Heads, Partition
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
        fixed (dict[int, str]): Class -> reason why it stays; that of layers
            that are not regular enough, too.
        attention (list[Heads]): Layers whose channels are heads, queries,
            keys and values, with units of their own.
        choices (dict[tuple[int, ...], Choice]): Classes of experts -> the
            router that chooses among them, with units of their own.
    """

    def __init__(self,
                 facts: Facts,
                 free: Callable[[str], bool] = lambda path: False) -> None:
        self.facts = facts
        self.classes = facts.variables.classes()
        self.partitions = [
            p for p in facts.partitions
            if not free(p.module) and not (p.reshaped and self._whole_rows(p))
        ]
        self.fixed = facts.variables.fixed(self.classes)
        self.read = {
            root
            for axis in facts.axes.values() if axis.reads
            for root in self.roots(axis.labels)
        }
        self.held = facts.variables.held(self.classes)
        self._take_attention()
        self._take_choices()
        for root, reason in self.held.items():
            if root not in self.taken:
                self._fix([root], reason)
        made = {r for p in facts.producers for r in self.roots(p.labels)}
        # They have no mask to learn from.
        self._fix(made - self.read - self.taken, 'no layer reads its channels')
        self._signatures()

    def roots(self, labels: Tensor) -> List[int]:
        """Classes named by a label tensor, in order; 0 where none."""
        return self.classes[labels.reshape(-1).numpy()].tolist()

    def _whole_rows(self, partition: Partition) -> bool:
        """Whether every part is one variable, and so kept or dropped whole.

        So are the heads of attention between channels: another shape, not
        another size of each part.
        """
        return all(
            len(set(self.roots(part))) == 1 for part in partition.labels)

    def _fix(self, roots: Iterable[int], reason: str) -> None:
        """These classes stay; of several reasons the first wins."""
        self.fixed = {**dict.fromkeys(roots, reason), **self.fixed}

    # Units of attention layers: heads, query/key dims and value dims.
    #
    # One ratio a layer for each (paper, appendix A.1.1). The dims of a head
    # are ranked inside each head and every head keeps the same number, so that
    # the layer stays regular (METHOD section 1, groups). What belongs to a
    # head goes with the head.

    def _take_attention(self) -> None:
        """Take the classes of attention layers out of the widths."""
        self.attention: List[Heads] = list(self.facts.heads)
        self.taken: Set[int] = set()
        stable = False
        while not stable:  # what stays in one layer, layers may share
            stable, facts = True, self.attention
            self.attention, self.taken = [], set()
            for fact in facts:
                found = (fact.heads, fact.queries, fact.keys, fact.values,
                         fact.inner, fact.results)
                roots = [
                    r for x in found if x is not None for r in self.roots(x)
                ]
                reason = self._why_not(fact, roots)
                if reason is None:
                    self.attention.append(fact)
                    self.taken.update(roots)
                else:
                    stable = False
                    self._fix(roots, reason)

    def _why_not(self, fact: Heads, roots: List[int]) -> Optional[str]:
        """Why attention stays as it is; None if it can be searched."""
        where = f'attention "{fact.module}"'
        if fact.values is None:
            return f'{where}: what its scores weight is not understood'
        for root in roots:
            if root in self.fixed:
                return self.fixed[root]
        everything = set(roots)
        if 0 in roots or self._overlap(fact):
            return f'{where}: its heads share channels'
        if self.read.intersection(self.roots(fact.heads)):
            return f'{where}: its heads are mixed with one another'
        if self.read.intersection(
                self.roots(fact.queries) + self.roots(fact.keys)):
            return f'{where}: its queries or keys are read elsewhere'
        if not self.read.issuperset(self.roots(fact.results)):
            return f'{where}: no layer reads its values'
        for producer in self.facts.producers:
            vector = set(self.roots(producer.labels))
            if 0 < len(vector & everything) < len(vector):
                return f'{where}: its queries, keys or values also occur ' \
                    'outside'
        return None

    def _take_choices(self) -> None:
        """Take the scores of routers out of the widths: they are experts.

        Layers that share their scores share their experts.
        """
        self.choices: Dict[Tuple[int, ...], Choice] = {}
        for choice in self.facts.choices:
            roots = tuple(self.roots(choice.labels))
            parts = [set(self.roots(p.labels)) for p in self.facts.producers]
            everything = set(roots)
            reason = next((self.fixed[r] for r in roots if r in self.fixed),
                          None)
            if reason is None and (len(everything) < len(roots) or everything &
                                   (self.read | self.taken) or any(
                                       0 < len(part & everything) < len(part)
                                       for part in parts)):
                reason = f'the scores of the router "{choice.module}" are ' \
                    'read elsewhere, too'
            if reason is not None:
                self._fix(roots, reason)
                continue
            known = self.choices.setdefault(roots, choice)
            known.least = max(known.least, choice.least)
        self.taken.update(r for roots in self.choices for r in roots)

    def _overlap(self, fact: Heads) -> bool:
        """Whether heads, or queries and values of one, share a class."""
        rows = [*fact.heads[:, None], *fact.values]
        if fact.inner is None:
            rows += [*fact.queries]
        else:
            rows += [*fact.keys, *fact.inner.reshape(-1, 1)]
            for labels in (fact.queries, fact.results):
                rows += [*labels.reshape(fact.inner.numel(), -1)]
        held = [set(self.roots(row)) for row in rows]
        return sum(map(len, held)) > len(set().union(*held))

    def dims(self, fact: Heads, labels: Tensor) -> Union[str, np.ndarray]:
        """Classes of the dims of heads ``[H, d]``, or why they are no choice.
        """
        found = self.classes[labels.numpy()]
        for root in found.reshape(-1).tolist():
            if root in self.held:
                return self.held[root]
        if len(np.unique(found)) < found.size:
            return f'dims of each head of "{fact.module}" go together'
        return found

    def _signatures(self) -> None:
        """Which named vectors each class occurs in."""
        producers = self.facts.producers
        vectors = [v.labels for v in (*producers, *self.facts.pieces)]
        vectors += [row for part in self.partitions for row in part.labels]
        occurs: Dict[int, List[int]] = defaultdict(list)
        for number, labels in enumerate(vectors):
            for root in dict.fromkeys(self.roots(labels)):
                if root > 0 and root not in self.fixed and \
                        root not in self.taken:
                    occurs[root].append(number)
        groups: Dict[Tuple[int, ...], List[int]] = defaultdict(list)
        for root, signature in occurs.items():
            if signature[0] < len(producers):
                groups[tuple(signature)].append(root)
        self.rows = list(groups.values())
        self.row_modules = [[
            producers[v].module for v in signature if v < len(producers)
        ] for signature in groups]
        self.row_of = {r: n for n, row in enumerate(self.rows) for r in row}

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

    def step_of(self, rows: Iterable[Iterable[int]]) -> int:
        """How many neighbours go together, where layers ask for it."""
        own = {root for row in rows for root in row}
        return max((step for labels, step in self.facts.steps
                    if not own.isdisjoint(self.roots(labels))),
                   default=1)

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
                if root in self.row_of:
                    count[self.row_of[root]][number, root] += 1
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


def projection_of(facts: Facts, labels: Tensor) -> List[str]:
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
        names = [n for n in found[path] if n.endswith(('weight', 'bias'))]
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

    def join_heads(self, fact: Heads) -> None:
        """Dims of heads go with their heads, whose elements are numbered.

        Where query heads share keys, their dims go with the query head and
        with the head of keys: that one takes the place of an own element.
        """
        heads = self.own[self.classes[fact.heads.numpy()]]
        if fact.inner is None:
            for labels in (fact.queries, fact.values):
                self.head[self.classes[labels.numpy()]] = heads[:, None]
            return
        inner = self.own[self.classes[fact.inner.numpy()]]
        for labels in (fact.keys, fact.values):
            self.own[self.classes[labels.numpy()]] = heads[:, None]
        for labels in (fact.inner, fact.queries, fact.results):
            dims = self.classes[labels.reshape(*inner.shape, -1).numpy()]
            self.own[dims] = heads[:, None, None]
            self.head[dims] = inner[..., None]

    def query_heads(self, fact: Heads) -> Tensor:
        """Elements of the query heads of one head of keys, ``[n]``.

        All heads keep as many; none where no keys are shared.
        """
        if fact.inner is None:
            return torch.zeros(0, dtype=torch.long)
        return torch.from_numpy(self.head[self.classes[fact.inner[0].numpy()]])

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
        place = tuple(
            slice(None) if dim in varying else 0
            for dim in range(labels.dim()))
        return varying[0], index[place].contiguous()
