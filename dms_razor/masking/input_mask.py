# Copyright (c) dms_razor contributors. All rights reserved.
"""The mask along one axis of a weight."""
import functools
from dataclasses import InitVar, dataclass, field
from typing import Optional

import torch
from torch import Tensor

from .masks import Cuts, Masks


@dataclass(eq=False)
class InputMask:
    """The mask along the contracted axis of a weight.

    Attributes:
        axis (int): The axis.
        index (Tensor): Elements, -1 for an entry that is always there,
            ``[size]``; or ``[size, 2]`` where two masks meet.
        groups (int): Groups of a grouped convolution, ``index`` group-major.
        cuts (Cuts, optional): Where the flat masks are cut.
        start (int): First element if the index is one whole run of elements,
            so that the mask is a piece of the flat vector, else -1.
        partly (bool): Whether some entries are always there.
    """
    axis: int
    index: Tensor
    groups: int = 1
    cuts: InitVar[Optional[Cuts]] = None
    start: int = field(init=False, default=-1)
    partly: bool = field(init=False, default=False)

    def __post_init__(self, cuts: Optional[Cuts]) -> None:
        self.index = self.index.cpu()
        self.partly = bool((self.index < 0).any())
        first = int(self.index.flatten()[0])
        run = torch.arange(first, first + len(self.index))
        if first >= 0 and torch.equal(self.index, run):
            self.start = first
            return
        there = self.index[self.index >= 0]
        self._piece = (0, -1) if cuts is None or not len(there) else \
            cuts.piece_with(int(there.min()), int(there.max()))
        # In front of the masks of the piece stands a 1, if it is needed.
        self._place = (self.index - self._piece[0] + self.partly).clamp(min=0)

    def vector(self, masks: Masks) -> Tensor:
        """The mask of each entry, ``[size]``."""
        if self.start >= 0:
            return masks.run(self.start, len(self.index))
        start, size = self._piece
        piece = masks.flat if size < 0 else masks.run(start, size)
        if self.partly:
            piece = torch.cat([piece.new_ones(1), piece])
        if self._place.device != piece.device:
            self._place = self._place.to(piece.device)
        # Its backward adds up; that of piece[place] sorts first.
        found = piece.index_select(0, self._place.flatten())
        found = found.view(self._place.shape)
        return found if found.dim() == 1 else \
            functools.reduce(torch.mul, found.unbind(-1))

    def __call__(self,
                 weight: Tensor,
                 masks: Masks,
                 scale: Optional[Tensor] = None) -> Tensor:
        """``weight`` times the mask along the axis, and times ``scale``."""
        mask = self.vector(masks)
        mask = (mask if scale is None else mask * scale).to(weight.dtype)
        if self.groups > 1:  # [O, I/g, ...] as [g, O/g, I/g, ...]
            grouped = weight.unflatten(0, (self.groups, -1))
            mask = mask.view(self.groups, 1, -1,
                             *(1 for _ in range(weight.dim() - 2)))
            return (grouped * mask).flatten(0, 1)
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        return weight * mask.view(shape)
