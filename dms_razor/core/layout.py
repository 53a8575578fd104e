# Copyright (c) dms_razor contributors. All rights reserved.
"""What can be pruned, and where it lies in the flat vectors of a search.

A *unit* is a set of elements that share one pruning ratio (paper, section
3.1): the channels that a group of dependent layers produces, or the blocks of
one stage. A :class:`Layout` puts all units of a network behind each other, so
that ranks, masks and importances of the whole network are single vectors and
every step of the search is a handful of tensor operations, whatever the
number of units.

Two index spaces occur everywhere:

* ``[U]``, one entry a unit: ratios and kept counts;
* ``[E]``, one entry an element: importances, ranks and masks. Units follow
  one another; inside a unit groups follow one another; inside a group
  elements keep their order in the network.
"""
import copy
import zlib
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Dict, Iterable, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from ..errors import check_number

KINDS = ('width', 'depth', 'heads', 'qk', 'v', 'experts')

# Paper, below equation 3: the sigmoid is four times as steep where elements
# are few and large.
_GAIN = dict(width=1, depth=4, heads=4, qk=1, v=1, experts=4)

# So many sorts of rows of one size each are quicker than one of everything.
_MOST_SIZES = 32


@dataclass(frozen=True)
class Unit:
    """Elements that share one pruning ratio.

    Args:
        name (str): Path of the first producing layer (width) or of the stage
            (depth). Unique in a network.
        kind (str): 'width', 'depth', 'heads', 'qk', 'v' or 'experts'.
        size (int): Number of elements in one group, the paper's N.
        groups (int): Groups are ranked apart and keep the same count.
            Defaults to 1.
        step (int): Neighbouring channels that make one element.
            Defaults to 1.
        least (int, optional): Fewest elements kept in a group. Defaults to 0
            for depth and to 1 for everything else, which cannot go lower.
        most (int, optional): Most elements kept in a group. Defaults to
            ``size``.
        choices (tuple[int], optional): The counts that a group may keep, if
            not every one from ``least`` to ``most``; the bounds follow.
        members (tuple[str]): Paths of the producing layers (width) or of the
            blocks, of which element i is ``members[i]`` (depth).

    Raises:
        ValueError: If the numbers do not describe a unit.
    """
    name: str
    kind: str
    size: int
    groups: int = 1
    step: int = 1
    least: Optional[int] = None
    most: Optional[int] = None
    members: Tuple[str, ...] = ()
    choices: Optional[Tuple[int, ...]] = None

    def __post_init__(self) -> None:
        for field in ('size', 'groups', 'step'):
            check_number(f'unit "{self.name}": {field}', getattr(self, field),
                         1)
        lowest = 0 if self.kind == 'depth' else 1
        bounds = lowest, self.size
        if self.choices is not None:
            object.__setattr__(self, 'choices',
                               tuple(sorted(set(self.choices))))
            bounds = (*self.choices[:1], *self.choices[-1:])
        for field, bound in zip(('least', 'most'), bounds):
            if getattr(self, field) is None:
                object.__setattr__(self, field, bound)
        object.__setattr__(self, 'members', tuple(self.members))
        problem = self._problem(lowest, bounds)
        if problem is not None:
            raise ValueError(f'unit "{self.name}": {problem}')

    def _problem(self, lowest: int, bounds: Tuple[int, ...]) -> Optional[str]:
        """What stands against these numbers."""
        if self.kind not in KINDS:
            return (f'kind "{self.kind}" is not known, use one of '
                    f'{", ".join(KINDS)}')
        if not bounds:
            return 'choices is empty, name the counts that it may keep'
        given = f'least={self.least} and most={self.most}'
        if self.choices and bounds != (self.least, self.most):
            return f'{given} contradict choices={self.choices}, give one'
        if not lowest <= self.least <= self.most <= self.size:
            given = f'{given} do not fit {lowest} <= least <= most <='
            if self.choices:
                given = f'choices={self.choices} are not all in {lowest} ...'
            return (f'{given} {self.size}, its number of elements; change '
                    'what is given for this unit')
        if self.most < 1:
            return ('most is 0, which removes it before the search; remove it '
                    'from the model')
        if self.kind == 'depth' and (self.groups, self.step) != (1, 1):
            return 'blocks have no groups and no step, both must be 1'
        if self.kind == 'depth' and len(self.members) not in (0, self.size):
            return (f'{self.size} elements have {len(self.members)} members, '
                    'name each block once')
        return None

    @property
    def allowed(self) -> Tuple[int, ...]:
        """Every count that a group may keep, ascending."""
        return self.choices or tuple(range(self.least, self.most + 1))

    @property
    def elements(self) -> int:
        """Elements of all groups."""
        return self.size * self.groups

    @property
    def channels(self) -> int:
        """Channels (or features, heads, blocks) of all elements."""
        return self.elements * self.step

    @property
    def temperature(self) -> int:
        """λ of equation 3: N, and 4N for depth, heads and experts."""
        return _GAIN[self.kind] * self.size

    @property
    def prunable(self) -> bool:
        """Whether the unit has anything to lose."""
        return self.kind == 'depth' or self.size > 1


class Layout:
    """The flat order of all units of a network.

    A *row* is one group of one unit: the elements that are ranked against
    each other.

    Args:
        units (Iterable[Unit]): Units in flat order.

    Attributes:
        units (tuple[Unit]): The units.
        U (int): Number of units, and of ratios.
        E (int): Number of elements.
        R (int): Number of rows.
        size, groups, least, most (Tensor): Of each unit, int64 ``[U]``.
        removable (Tensor): Elements a ratio of 1 removes from a group, the
            size or, for a unit with nothing to lose, 0; float64 ``[U]``.
        gain (Tensor): λ/N of each unit, float64 ``[U]``.
        is_depth (Tensor): Depth units, bool ``[U]``.
        has_choices (bool): Whether some unit has choices of its own.
        half_start, count_of_half (Tensor): The count nearest to h/2 elements
            of unit u is ``count_of_half[half_start[u] + h]``; int64 ``[U]``
            and ``[Σ(2N + 1)]``.
        depth_elements (Tensor): Elements of depth units, bool ``[E]``.
        unit_of_element, row_of_element (Tensor): int64 ``[E]``.
        elements_of_unit (Tensor): int64 ``[U]``.
        starts (ndarray): First element of each unit, int64 ``[U]``.
        place_in_row (Tensor): 0-based place of an element in its row, int64
            ``[E]``.
        row_start, size_of_row (Tensor): First element and number of elements
            of each row, int64 ``[R]``.
        rows_by_size (tuple[Tensor]): Elements of the rows of each size, int64
            ``[rows, size]``; none where rows have more than 32 sizes.

    Raises:
        ValueError: If there is no unit or two units have the same name.
    """

    def __init__(self, units: Iterable[Unit]) -> None:
        self.units = tuple(units)
        if not self.units:
            raise ValueError('a layout needs at least one unit: nothing in '
                             'this network can be pruned')
        units = self.units
        self._index = {unit.name: i for i, unit in enumerate(units)}
        for i, unit in enumerate(units):
            if self._index[unit.name] != i:
                raise ValueError(f'two units are named "{unit.name}": give '
                                 'every unit a name of its own')
        self.size, self.groups, self.least, self.most = torch.tensor([
            (u.size, u.groups, u.least, u.most) for u in units
        ]).T.contiguous()
        self.removable, self.gain = torch.tensor(
            [(u.size * u.prunable, u.temperature / u.size) for u in units],
            dtype=torch.float64).T.contiguous()
        self.is_depth = torch.tensor([u.kind == 'depth' for u in units])

        self.has_choices = any(u.choices is not None for u in units)
        halves = 2 * self.size + 1
        self.half_start = halves.cumsum(0) - halves
        self.count_of_half = torch.cat([_nearest_counts(u) for u in units])

        unit_of_row = torch.arange(len(units)).repeat_interleave(self.groups)
        self.size_of_row = self.size[unit_of_row]
        ends = self.size_of_row.cumsum(0)
        self.row_start = ends - self.size_of_row
        self.U, self.R, self.E = len(units), len(ends), int(ends[-1])
        self.row_of_element = torch.arange(self.R).repeat_interleave(
            self.size_of_row)
        self.unit_of_element = unit_of_row[self.row_of_element]
        self.place_in_row = (
            torch.arange(self.E) - self.row_start[self.row_of_element])
        self.depth_elements = self.is_depth[self.unit_of_element]
        sizes = self.size_of_row.unique().tolist()
        self.rows_by_size = tuple(
            self.row_start[self.size_of_row == size, None] + torch.arange(size)
            for size in sizes) if len(sizes) <= _MOST_SIZES else ()
        self._starts = list(accumulate((u.elements for u in units), initial=0))
        self.starts = np.array(self._starts[:-1], dtype=np.int64)
        self.elements_of_unit = torch.tensor([u.elements for u in units])

    @property
    def device(self) -> torch.device:
        """Where the index tensors lie."""
        return self.size.device

    @property
    def channels(self) -> int:
        """Channels of all units, blocks included."""
        return sum(unit.channels for unit in self.units)

    def to(self, device) -> 'Layout':
        """This layout with its tensors on ``device``; itself if they are."""
        device = torch.device(device)
        if device == self.device:
            return self
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        moved.rows_by_size = tuple(x.to(device) for x in self.rows_by_size)
        return moved

    def slice_of(self, unit: int) -> slice:
        """Where the elements of unit number ``unit`` lie in ``[E]``."""
        return slice(self._starts[unit], self._starts[unit + 1])

    def index(self, name: str) -> int:
        """Number of the unit ``name``; KeyError, naming it, if unknown."""
        if name not in self._index:
            raise KeyError(f'no unit is named "{name}"; the units are: '
                           f'{", ".join(self._index)}')
        return self._index[name]

    def check_counts(self, kept: Tensor) -> Tensor:
        """``kept`` as int64 ``[U]`` on the layout's device.

        Raises:
            ValueError: If it is not a whole number within the bounds for
                every unit.
        """
        kept = torch.as_tensor(kept, device=self.device)
        if kept.shape != self.size.shape:
            raise ValueError(f'kept counts have shape {tuple(kept.shape)}, '
                             f'there are {self.U} units')
        for unit, k in zip(self.units, kept.tolist()):
            if k not in unit.allowed:
                allowed = (f'only a whole number from {unit.least} to '
                           f'{unit.most}')
                if unit.choices is not None:
                    allowed = f'its choices are {unit.choices}'
                raise ValueError(f'unit "{unit.name}" cannot keep {k} of '
                                 f'{unit.size} elements, {allowed}')
        return kept.long()

    def structure(self, kept: Tensor, ratios: Tensor) -> List[Dict[str, Any]]:
        """Each unit's name, kind, ratio, and channels (or blocks) kept.

        Args:
            kept (Tensor): Kept elements a group, int64 ``[U]``.
            ratios (Tensor): Pruning ratios, ``[U]``.
        """
        return [
            dict(
                name=unit.name,
                kind=unit.kind,
                ratio=ratio,
                kept=k * unit.groups * unit.step,
                total=unit.channels) for unit, k, ratio in zip(
                    self.units, kept.tolist(), ratios.tolist())
        ]

    def fingerprint(self) -> Tensor:
        """int64 ``[U, 5]`` that tells layouts apart in a saved state.

        Columns: checksum of the name, kind, size, groups, step. The bounds
        are not part of it, they may change when a search is resumed.
        """
        return torch.tensor([[
            zlib.crc32(u.name.encode()),
            KINDS.index(u.kind), u.size, u.groups, u.step
        ] for u in self.units],
                            dtype=torch.int64)

    def __eq__(self, other) -> bool:
        return isinstance(other, Layout) and self.units == other.units

    def __hash__(self) -> int:
        return hash(self.units)

    def __repr__(self) -> str:
        return f'Layout({self.U} units, {self.E} elements)'


def _nearest_counts(unit: Unit) -> Tensor:
    """Allowed count nearest to h/2 for h = 0 … 2N; halfway goes up."""
    allowed = torch.tensor(unit.allowed)
    # From the middle between two choices on the upper one is taken; middles
    # are whole halves, so h decides for everything in [h/2, (h + 1)/2).
    middles = allowed[:-1] + allowed[1:]
    halves = torch.arange(2 * unit.size + 1)
    return allowed[torch.bucketize(halves, middles, right=True)]
