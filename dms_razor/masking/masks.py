# Copyright (c) dms_razor contributors. All rights reserved.
"""The masks of all elements, cut up once for all layers that read them.

A layer reads the masks of its own channels. Cut out of the flat vector by
each layer for itself, its gradient would be written into a vector of zeros as
long as all masks together, and that added to the others: three operations a
layer, which a GPU is told of for as long as of a convolution. Cut once, all
gradients are put together once.
"""
from functools import reduce
from itertools import accumulate
from typing import Callable, Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..core.layout import Layout
from ..network.compiling import compiling


class Cuts:
    """Where the flat masks of a layout are cut.

    Args:
        layout (Layout): The units. Each is one piece, and each block of a
            depth unit.
    """

    def __init__(self, layout: Layout) -> None:
        self.sizes: Tuple[int, ...] = tuple(
            size for unit in layout.units for size in (
                [1] *
                unit.elements if unit.kind == 'depth' else [unit.elements]))
        starts = accumulate(self.sizes, initial=0)
        #: First element of a piece -> its number.
        self.places: Dict[int, int] = {
            start: number
            for number, start in enumerate(starts) if number < len(self.sizes)
        }

    def piece_with(self, first: int, last: int) -> Tuple[int, int]:
        """Start and size of the piece that holds both, else of everything."""
        for start, number in self.places.items():
            if start <= first and last < start + self.sizes[number]:
                return start, self.sizes[number]
        return 0, sum(self.sizes)


class Masks:
    """Flat masks as layers read them.

    Args:
        flat (Tensor): ``[E]``.
        cuts (Cuts, optional): Where to cut.

    Attributes:
        grad (bool): Whether pieces are part of a graph of autograd.
    """

    def __init__(self, flat: Tensor, cuts: Optional[Cuts] = None) -> None:
        self.flat, self.cuts = flat, cuts
        self.grad = torch.is_grad_enabled()
        self._pieces: Sequence[Tensor] = ()

    def run(self, start: int, size: int) -> Tensor:
        """The masks of a run of elements, ``[size]``."""
        place = None if self.cuts is None else self.cuts.places.get(start)
        if place is None or self.cuts.sizes[place] != size:
            return self.flat[start:start + size]
        if not self._pieces:
            self._pieces = self.flat.split(self.cuts.sizes)
        return self._pieces[place]

    def product(self, elements: Sequence[int]) -> Tensor:
        """The product of the masks of some elements, ``[1]``."""
        return reduce(torch.mul, [self.run(e, 1) for e in elements])

    def at(self, tensor: Tensor) -> 'Masks':
        """These masks where a tensor is.

        They are there already, but for a copy of the network on another
        device than the network itself.
        """
        if self.flat.device == tensor.device:
            return self
        return Masks(self.flat.to(tensor.device), self.cuts)


class MaskSource:
    """Gives layers the masks of now, cut once for each vector of masks.

    Args:
        flat (Callable): Returns the flat masks ``[E]``, or None for "no
            masks".
        cuts (Cuts): Where to cut.
    """

    def __init__(self, flat: Callable[[], Optional[Tensor]],
                 cuts: Cuts) -> None:
        self.flat, self.cuts = flat, cuts
        self._last: Optional[Masks] = None

    def __call__(self) -> Optional[Masks]:
        flat = self.flat()
        if flat is None:
            return None
        if compiling() or torch.is_inference_mode_enabled():
            # What is made there is of no use outside.
            return Masks(flat, None)
        last = self._last
        if (last is None or last.flat is not flat
                or last.grad != torch.is_grad_enabled()):
            self._last = last = Masks(flat, self.cuts)
        return last
