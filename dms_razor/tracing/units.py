# Copyright (c) dms_razor contributors. All rights reserved.
"""From merged channel variables to width units.

Channels that occur in the same vectors (outputs of layers, pieces of a split,
groups of a grouped convolution) are interchangeable: together they are one
width, one unit. Where groups or pieces must keep equal counts they are the
groups of one unit, ranked apart (METHOD section 1, groups).
"""
from dataclasses import dataclass, field
from itertools import chain
from typing import Callable, Dict, List, Optional, Set, Tuple

import torch

from .attention_units import AttentionFinder
from .facts import Facts


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
        occurs: Dict[int, List[int]] = {}
        for number, labels in enumerate(vectors):
            for root in dict.fromkeys(self.roots(labels)):
                if root > 0 and root not in self.fixed and \
                        root not in self.taken:
                    occurs.setdefault(root, []).append(number)
        producers = len(self.facts.producers)
        groups: Dict[Tuple[int, ...], List[int]] = {}
        for number in range(producers):
            for root in dict.fromkeys(self.roots(vectors[number])):
                if root in occurs and occurs[root][0] == number:
                    groups.setdefault(tuple(occurs[root]), []).append(root)
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
        tied = list(range(len(self.rows)))

        def find(i: int) -> int:
            while tied[i] != i:
                i = tied[i]
            return i

        for partition in self.partitions:
            columns, bad = self._columns(partition)
            if bad:
                self.facts.variables.fix(
                    torch.tensor(bad), f'{partition.why}, and its parts '
                    'cannot be kept equal')
                return None
            for column in columns:
                for row in column[1:]:
                    tied[find(row)] = find(column[0])
        members: Dict[int, List[int]] = {}
        for row in range(len(self.rows)):
            members.setdefault(find(row), []).append(row)
        result = []
        for rows in members.values():
            modules = dict.fromkeys(m for row in rows
                                    for m in self.row_modules[row])
            result.append(
                WidthGroup([self.rows[row] for row in rows], list(modules)))
        return result

    def _columns(self, partition) -> Tuple[List[List[int]], List[int]]:
        """Rows that make all parts of a partition keep equal counts.

        Returns:
            tuple: Rows, one of each part, that have to keep the same number;
            and classes that have to stay, since that cannot be had.
        """
        parts = [self.roots(part) for part in partition.labels]
        count: Dict[int, Dict[Tuple[int, int], int]] = {}
        for number, part in enumerate(parts):
            for root in part:
                row = self.row_of.get(root)
                if row is not None:
                    times = count.setdefault(row, {})
                    times[number, root] = times.get((number, root), 0) + 1
        if any(root in self.taken for part in parts for root in part):
            # Widths beside the dims of attention.
            return [], [root for row in count for root in self.rows[row]]
        alone: List[List[Tuple[int, int, int]]] = [[] for _ in parts]
        bad = []
        for row, times in count.items():
            roots = self.rows[row]
            share = [{times.get((number, root), 0)
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
