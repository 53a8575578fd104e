# Copyright (c) dms_razor contributors. All rights reserved.
"""The search space of a network: everything later stages need to know.

A :class:`Space` says what can be pruned (units), where masks act (mask
sites), how tensors shrink (slice sites), which blocks can go and what the
network costs in closed form. It refers to modules and tensors by name, so it
stays valid when the model is moved, copied or wrapped.
"""
import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import (Any, Callable, Dict, Iterable, List, Optional, Sequence,
                    Tuple, Union)

import torch
from torch import Tensor

from .core.latency import latency_of, poor_fit, read_table
from .core.layout import Layout, Unit
from .core.resource import ResourceModel
from .core.steps import costly_widths
from .errors import SubnetError


@dataclass(frozen=True, eq=False)
class MaskSite:
    """An axis of a weight that masks multiply.

    Attributes:
        module (str): Path of the layer.
        tensor (str): Name of its parameter, e.g. 'weight'.
        axis (int): The axis that is contracted with the activation.
        index (Tensor): Element of each entry, -1 where the mask is always 1;
            int64 ``[size]``, or ``[groups * size]`` group-major. ``[size,
            2]`` where an entry has two masks: its own and its head's.
        groups (int): Groups of a grouped convolution, else 1.
        how (str): 'plain': the parameter is multiplied while its module runs;
            'early': also in hooks before that; 'statistics': what is
            computed from it is, see :mod:`dms_razor.masking.weights`.
        readers (tuple[str]): Other modules that read it while they run.
    """
    module: str
    tensor: str
    axis: int
    index: Tensor
    groups: int = 1
    how: str = 'plain'
    readers: Tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SliceSite:
    """An axis of a parameter or buffer that shrinks with its elements.

    Attributes:
        name (str): Full name of the tensor.
        axis (int): The axis.
        index (Tensor): Element of each entry, -1 if it always stays; int64
            ``[size]``, or ``[groups * size]`` group-major. ``[size, 2]``
            where an entry stays only if both its elements do.
        groups (int): Groups of a grouped convolution's input axis, else 1.
        fold (Tensor, optional): Entry that each entry is added to when its
            block goes, -1 for none, int64 ``[size]``; the block is the last
            column of ``index``. See :mod:`dms_razor.adapters.csp`.
    """
    name: str
    axis: int
    index: Tensor
    groups: int = 1
    fold: Optional[Tensor] = None


@dataclass(frozen=True, eq=False)
class NormSite:
    """A norm whose statistics are to be those of the kept channels.

    Attributes:
        module (str): Path of the module that runs it.
        op (str): 'layer_norm', 'rms_norm', 'group_norm', 'mean' of one that
            is written out, or 'softmax' of a router.
        index (Tensor): Element of each channel, like :class:`SliceSite`.
        groups (int): Groups of a group norm, else 1.
    """
    module: str
    op: str
    index: Tensor
    groups: int = 1


@dataclass(frozen=True)
class Tail:
    """Where a branch is scaled by its block's mask.

    Attributes:
        module (str): Path of the module at the end of the branch.
        fold (bool): The mask multiplies the module's weight and bias (exact,
            and costs no activation memory); else its output.
    """
    module: str
    fold: bool


@dataclass(frozen=True)
class StandIn:
    """What takes the place of a module that goes with its block.

    Attributes:
        path (str): Path of the module.
        zero (bool): It returns zeros of its input's shape; else the input.
        outputs (int): Length of the tuple that it returns, the others None; 0
            if it returns a tensor.
    """
    path: str
    zero: bool = False
    outputs: int = 0


@dataclass(frozen=True)
class Block:
    """A removable block: a whole module, or a branch of modules.

    Attributes:
        path (str): Path of the module that is the block, or that has the
            branch or most of it.
        element (int): Flat id of its element.
        tails (tuple[Tail]): Where its mask acts.
        branch (tuple[StandIn]): What takes the place of each module of a
            branch that is added in the forward of another module; none for a
            whole module, in whose place an identity is put.
    """
    path: str
    element: int
    tails: Tuple[Tail, ...]
    branch: Tuple[StandIn, ...] = ()

    @property
    def stand_ins(self) -> Tuple[StandIn, ...]:
        """What takes the place of all modules that go."""
        return self.branch or (StandIn(self.path), )


@dataclass(frozen=True)
class FullWidth:
    """A module that stays as it is, and why."""
    module: str
    reason: str


@dataclass(frozen=True)
class Proof:
    """What the self-check has shown: pruned and masked network are the same.

    Attributes:
        network (str): The network it was shown on.
        units (int): Units that were pruned and whose channels reach the
            outputs that were compared.
        subnets (int): Subnets that were compared.
        precision (str): What they computed in; if not 'float64', why.
        error (float): Largest difference, over the largest entry of a slice
            of the outputs.
        unproved (dict[str, str]): Units that stay since nothing could be
            shown of them -> why.
        inputs (tuple[int, ...]): Shape of the first input, if it is smaller
            than the example's, see :mod:`dms_razor.proof.smaller`.
    """
    network: str
    units: int
    subnets: int
    precision: str
    error: float
    unproved: Dict[str, str] = field(default_factory=dict)
    inputs: Tuple[int, ...] = ()

    def text(self) -> str:
        """The proof in a line."""
        left = f'; {len(self.unproved)} could not be proved and stay' \
            if self.unproved else ''
        inputs = ' with inputs of ' * bool(self.inputs) + ' × '.join(
            map(str, self.inputs))
        return (
            f'{self.units} units on {self.network}{inputs}, {self.subnets} '
            f'subnets in {self.precision}: pruned and masked network '
            f'differ by {self.error:.1e} at most{left}')


@dataclass(eq=False)
class Space:
    """What can be searched in a network.

    Attributes:
        units (list[Unit]): Width units in network order, then depth units.
        layout (Layout): Their flat order.
        mask_sites (list[MaskSite]): Where width masks act.
        slice_sites (dict[str, list[SliceSite]]): Tensor name -> its axes.
        blocks (list[Block]): Removable blocks.
        resource (ResourceModel): MACs and parameters in closed form.
        full_width (list[FullWidth]): What stays at full width and why.
        attributes (dict[str, dict[str, Tensor]]): Module path -> attribute
            -> index; the attribute becomes the number of kept entries.
        producers (dict[str, list[tuple[str, str]]]): Width unit -> path and
            type of the layers whose outputs it holds.
        norm_sites (list[NormSite]): Norms over prunable channels.
        replacements (dict[str, str]): Layers whose subnet is a slim class,
            see :mod:`dms_razor.adapters.registry`, and its name.
        input_shape (tuple[int]): Shape of the first example input.
        example_inputs (tuple): The example inputs.
        batch_size (int): Samples in them; ``resource`` is that of one.
        counted (dict[str, Count]): What the whole network costs by metric, as
            :func:`dms_razor.counting.count_each` counts it.
        training (str): What was seen of train mode, in words.
        proof (Proof, optional): What the self-check has shown, if it ran.
    """
    units: List[Unit]
    layout: Layout
    mask_sites: List[MaskSite]
    slice_sites: Dict[str, List[SliceSite]]
    blocks: List[Block]
    resource: ResourceModel
    full_width: List[FullWidth]
    attributes: Dict[str, Dict[str, Tensor]]
    producers: Dict[str, List[Tuple[str, str]]]
    norm_sites: List[NormSite] = field(default_factory=list)
    replacements: Dict[str, str] = field(default_factory=dict)
    input_shape: Tuple[int, ...] = ()
    example_inputs: Tuple = field(default=(), repr=False)
    batch_size: int = 1
    counted: Dict[str, Any] = field(default_factory=dict)
    training: str = ''
    proof: Optional[Proof] = None

    def limiting(self,
                 metrics: Iterable[str],
                 latency_table: Union[None, str, Path] = None) -> 'Space':
        """This space for a search that limits these metrics.

        Those on demand are in its reports then, and a table of latencies is
        one more metric.

        Raises:
            LatencyError: If the table is none of this network, there is none
                and one is needed, or it is not.
        """
        resource = self.resource
        if latency_table is not None or 'latency' in metrics:
            resource = latency_of(resource, latency_table, metrics)
            table = latency_table and read_table(latency_table)
            for advice in (costly_widths(table, self.layout),
                           poor_fit(resource, table)) if table else ():
                if advice:
                    warnings.warn(advice, stacklevel=3)
        hidden = set(metrics) - set(resource.metrics)
        if hidden:
            resource = resource.showing(hidden)
        return self if resource is self.resource else replace(
            self, resource=resource)

    def count(self, *kinds: str) -> Tuple[int, int]:
        """Number of units and of elements of the given kinds."""
        units = [u for u in self.units if not kinds or u.kind in kinds]
        return len(units), sum(u.elements for u in units)

    def rows(self, selection: Tensor) -> List[Tensor]:
        """What has an entry for each element, as ``[groups, size]`` a unit."""
        return [
            selection[self.layout.slice_of(u)].view(unit.groups, unit.size)
            for u, unit in enumerate(self.units)
        ]

    def counts(self, selection: Tensor) -> Tensor:
        """The k of each unit of a selection, float64 ``[U]``.

        Args:
            selection (Tensor): Bool ``[E]`` of equally wide groups.
        """
        return torch.stack([rows[0].sum()
                            for rows in self.rows(selection)]).double()

    def cost(self, selection: Tensor, metric: str) -> float:
        """What a subnet, bool ``[E]``, costs in closed form (paper, eq. 8).

        An int where it is whole, as the MACs and parameters of hard counts
        are.
        """
        cost = float(
            self.resource(self.counts(selection), selection.double(), metric))
        return round(cost) if math.isclose(cost, round(cost)) else cost

    def checked(self, selection: Tensor) -> Tensor:
        """Refuse a selection that is no network of this space.

        Args:
            selection (Tensor): Which elements a subnet has: bool of shape
                [E], units in order and, inside a unit, group by group.

        Returns:
            Tensor: ``selection`` on the CPU, detached.

        Raises:
            TypeError: ``selection`` is not a bool tensor.
            SubnetError: Wrong length, a unit below its lower bound, or
                groups of a unit that keep different numbers of elements.
        """
        dtype = getattr(selection, 'dtype', type(selection).__name__)
        if dtype != torch.bool:
            raise TypeError(f'a selection is a bool tensor, not {dtype}. Pass '
                            'bank.hard() or a tensor of True and False with '
                            'one entry per element of the space.')
        selection = selection.detach().cpu()
        if tuple(selection.shape) != (self.layout.E, ):
            raise SubnetError(
                f'the selection has shape {tuple(selection.shape)}, but the '
                f'space has {self.layout.E} elements. Use the selection of a '
                'search over this very space.')
        for unit, rows in zip(self.units, self.rows(selection)):
            counts = rows.sum(1).tolist()
            if len(set(counts)) > 1:
                raise SubnetError(
                    f'Unit {unit.name!r} keeps {counts} elements in its '
                    f'{unit.groups} groups. Its groups must stay equally '
                    'wide: keep the same number in each.')
            if counts[0] < unit.least:
                raise SubnetError(
                    f'Unit {unit.name!r} keeps {counts[0]} of {unit.size} '
                    f'elements a group, but at least {unit.least} must stay. '
                    "Keep more, or lower the unit's bound in the search "
                    'config.')
        return selection

    def draw(self, number: Callable[[Unit], int],
             generator: torch.Generator) -> Tensor:
        """A selection of random elements, ``number(unit)`` of each group."""
        rows = []
        for unit in self.units:
            kept = number(unit)
            order = torch.rand(unit.groups, unit.size, generator=generator)
            rows.append((order.argsort(1).argsort(1) < kept).flatten())
        return torch.cat(rows)

    def random_selection(
        self,
        generator: torch.Generator,
        shares: Sequence[float] = (.25, .5, .75)
    ) -> Tensor:
        """A random selection, the share that is kept drawn for each unit."""

        def number(unit: Unit) -> int:
            share = shares[torch.randint(len(shares), (), generator=generator)]
            return min(
                unit.allowed,
                key=lambda count: abs(count - round(share * unit.size)))

        return self.draw(number, generator)

    def random_keep(self, *args: Any, **kwargs: Any) -> Tensor:
        """The name that :meth:`random_selection` had in version 0.1.0."""
        warnings.warn(
            'Space.random_keep is called random_selection now',
            DeprecationWarning,
            stacklevel=2)
        return self.random_selection(*args, **kwargs)
