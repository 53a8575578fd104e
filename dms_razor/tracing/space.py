# Copyright (c) dms_razor contributors. All rights reserved.
"""The search space of a network: everything later stages need to know.

A :class:`Space` says what can be pruned (units), where masks act (mask
sites), how tensors shrink (slice sites), which blocks can go and what the
network costs in closed form. It refers to modules and tensors by name, so it
stays valid when the model is moved, copied or wrapped.
"""
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..core.layout import Layout, Unit
from ..core.resource import ResourceModel
from .residual import Tail


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
    """
    module: str
    tensor: str
    axis: int
    index: Tensor
    groups: int = 1


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
            column of ``index``. See :mod:`dms_razor.subnet.csp`.
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
        op (str): 'layer_norm', 'rms_norm' or 'group_norm'.
        index (Tensor): Element of each channel, like :class:`SliceSite`.
        groups (int): Groups of a group norm, else 1.
    """
    module: str
    op: str
    index: Tensor
    groups: int = 1


@dataclass(frozen=True)
class Block:
    """A removable block: an identity takes its place when it goes.

    Attributes:
        path (str): Path of the module.
        element (int): Flat id of its element.
        tails (tuple[Tail]): Where its mask acts.
    """
    path: str
    element: int
    tails: Tuple[Tail, ...]


@dataclass(frozen=True)
class FullWidth:
    """A module that stays as it is, and why."""
    module: str
    reason: str


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
            see :mod:`dms_razor.subnet.slim`, and its name.
        input_shape (tuple[int]): Shape of the first example input.
        example_inputs (tuple): The example inputs.
        batch_size (int): Samples in them; ``resource`` is that of one.
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

    def count(self, *kinds: str) -> Tuple[int, int]:
        """Number of units and of elements of the given kinds."""
        units = [u for u in self.units if not kinds or u.kind in kinds]
        return len(units), sum(u.elements for u in units)

    def random_keep(
        self,
        generator: torch.Generator,
        shares: Sequence[float] = (.25, .5, .75)
    ) -> Tensor:
        """A random subnet, bool ``[E]``, for checks of equality.

        Args:
            generator (torch.Generator): Source of the choice.
            shares (Sequence[float]): Share of elements to keep, drawn for
                each unit.
        """
        keep = torch.zeros(self.layout.E, dtype=torch.bool)
        for number, unit in enumerate(self.units):
            choice = int(torch.randint(len(shares), (), generator=generator))
            wanted = round(shares[choice] * unit.size)
            kept = min(unit.allowed, key=lambda count: abs(count - wanted))
            start = self.layout.slice_of(number).start
            for group in range(unit.groups):
                order = torch.randperm(unit.size, generator=generator)
                keep[start + group * unit.size + order[:kept]] = True
        return keep
