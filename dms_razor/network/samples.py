# Copyright (c) dms_razor contributors. All rights reserved.
"""How many samples example inputs hold: costs are those of one of them.

The first dimension of a tensor may count samples, and as well time steps,
points, or the channels of one image. What tells them apart is what the network
does: entries of a batch never meet, while within a sample other positions do.
Where neither shows (a network of pointwise layers alone) nobody can tell, and
the caller is asked.
"""
from contextlib import ExitStack
from typing import Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..errors import check_number
from .inputs import map_tensors
from .running import tensors_of, untouched

#: Largest change, beside an output's largest entry, that is rounding.
_ROUNDING = 1e-5
#: Changes that are tried, each twice as large, before one has no effect.
_DRAWS = 5


def samples_of(model: nn.Module,
               inputs: Tuple,
               forward: Callable,
               stated: Optional[int] = None) -> int:
    """The number of samples in example inputs.

    Args:
        model (nn.Module): The network, which runs once more for each
            dimension if there is anything to find out.
        inputs (tuple): Example inputs.
        forward (callable): How the network is called on them.
        stated (int, optional): The number, if the caller knows it.

    Returns:
        int: At least 1; 1 if entries of the first dimension meet.

    Raises:
        ValueError: It cannot be told, or ``stated`` is no positive whole
            number.
    """
    if stated is not None:
        check_number('batch_size', stated, 1, whole=True)
        return stated
    tensors = [t for t in tensors_of(inputs) if t.dim() and t.numel()]
    floating = [t for t in tensors if t.is_floating_point()]
    first = next(iter(floating + tensors), None)
    size = 1 if first is None else first.shape[0]
    if size == 1:
        return 1
    probe = Trial(model, inputs, forward, size)
    if probe.meet(0):
        return 1
    # One dimension of a floating tensor may be its channels, which any layer
    # mixes; words have none yet.
    least = 2 if first.is_floating_point() else 1
    if probe.convolved or probe.carried(0) and sum(
            probe.meet(dim) for dim in range(1, first.dim())) >= least:
        return size
    raise ValueError(
        f'the example inputs begin with a dimension of {size} (shape '
        f'{tuple(first.shape)}), and it does not show whether these are '
        f'samples: say batch_size={size} if they are, batch_size=1 if they '
        'are time steps or points of one sample, or give a batch of one. '
        'Costs are those of one sample.')


class Trial:
    """Changes one entry of a dimension and looks how far that goes.

    Args:
        model (nn.Module): The network.
        inputs, forward: How it is called.
        size (int): Tensors whose first dimension has this size are changed.
    """

    def __init__(self, model: nn.Module, inputs: Tuple, forward: Callable,
                 size: int) -> None:
        self.model, self.inputs, self.size = model, inputs, size
        self.forward = forward
        #: A convolution takes an input as it is: images, one beside another.
        self.convolved = False
        with ExitStack() as hooks:
            for module in model.modules():
                if isinstance(module, _ConvNd):
                    hooks.enter_context(
                        module.register_forward_pre_hook(self._look))
            self.expected = self._run(inputs)
        self._found: Dict[int, Optional[List[Tensor]]] = {}

    def _look(self, module: _ConvNd, args: Tuple) -> None:
        shapes = [x.shape for x in tensors_of(self.inputs)]
        batched = args and args[0].dim() == len(module.kernel_size) + 2
        self.convolved |= bool(batched and args[0].shape in shapes
                               and len(args[0]) == self.size)

    def _run(self, inputs: Tuple) -> List[Tensor]:
        with untouched(self.model):
            out = self.forward(self.model, *inputs)
        return [t.detach() for t in tensors_of(out) if t.is_floating_point()]

    def _changes(self, dim: int) -> Optional[List[Tensor]]:
        """Where each output changes, bool; None where that cannot be told."""
        if dim not in self._found:
            for draw in range(_DRAWS):
                changes = self._found[dim] = self._drawn_changes(dim, draw)
                if changes is None or any(c.any() for c in changes):
                    break  # else it was too small to win a maximum, say
        return self._found[dim]

    def _drawn_changes(self, dim: int, draw: int) -> Optional[List[Tensor]]:
        try:
            found = self._run(
                map_tensors(lambda x: self._changed(x, dim, draw),
                            self.inputs))
        except Exception:  # these inputs mean something to the network
            return None
        if len(found) != len(self.expected) or any(
                a.shape != b.shape for a, b in zip(found, self.expected)):
            return None
        return [(a - b).abs() > _ROUNDING * b.abs().max()
                for a, b in zip(found, self.expected) if b.numel()]

    def _changed(self, tensor: Tensor, dim: int, draw: int) -> Tensor:
        """Other values, of the same kind, at the first place along ``dim``."""
        if not (tensor.dim() > dim and tensor.shape[0] == self.size
                and tensor.dtype != torch.bool):
            return tensor
        generator = torch.Generator().manual_seed(dim + 10 * draw)
        place = tensor.select(dim, 0)
        if tensor.is_floating_point():
            noise = torch.randn(place.shape, generator=generator).to(place)
            spread = tensor.float().std() if tensor.numel() > 1 else 0
            # Large enough to win a maximum over points.
            others = place + 4 * 2**draw * noise * (float(spread) or 1.)
        else:  # values that occur are valid
            order = torch.randperm(tensor.numel(), generator=generator)
            others = tensor.flatten()[order[:place.numel()].to(tensor.device)]
            others = others.view(place.shape)
            if torch.equal(others, place):
                others = torch.where(place > 0, place - 1, place + 1)
        tensor = tensor.clone()
        tensor.select(dim, 0).copy_(others)
        return tensor

    def carried(self, dim: int) -> bool:
        """Whether a change stays in one entry of each output, of a dimension
        as long, and there is one; of dimension 0, in the first."""
        changes = self._changes(dim)
        if not changes or not any(change.any() for change in changes):
            return False
        return all(
            self._stays(change, dim) for change in changes if change.any())

    def _stays(self, change: Tensor, dim: int) -> bool:
        length = next(t.shape[dim] for t in tensors_of(self.inputs)
                      if t.dim() > dim and t.shape[0] == self.size)
        places = range(change.dim()) if dim else range(min(1, change.dim()))
        for place in places:
            where = change.movedim(place, 0).reshape(change.shape[place],
                                                     -1).any(1)
            if change.shape[place] == length and int(
                    where.sum()) == 1 and (dim or bool(where[0])):
                return True
        return False

    def meet(self, dim: int) -> bool:
        """Whether a change along ``dim`` reaches other entries for certain.

        Of a single number that is no news, nor where some outputs change and
        others do not: they may be those of one image each.
        """
        changes = [c for c in self._changes(dim) or [] if c.dim()]
        reached = [bool(change.any()) for change in changes]
        if not any(reached) or self.carried(dim):
            return False
        return dim > 0 or all(reached)
