# Copyright (c) dms_razor contributors. All rights reserved.
"""Running a network as training runs it, so that nothing of it shows after.

Training writes more than evaluation does: running statistics, counters,
weights (an averaged teacher), lists of auxiliary losses that a module keeps.
"""
import random
import sys
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

import numpy as np
import torch
from torch import Tensor, nn

from ..network import map_tensors, untouched
from ..network.attributes import Attributes

#: Flags of all modules by path; None where ``model.train()`` sets them.
Flags = Optional[Dict[str, bool]]


class _Parameters:
    """What the parameters of a network are, to see changes and undo them."""

    def __init__(self, model: nn.Module) -> None:
        self.held = [(p, p.detach().clone(), p.requires_grad)
                     for p in model.parameters()]

    def changed(self) -> bool:
        """Whether one is not what it was."""
        return any(_differ(p, value) for p, value, _ in self.held)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was there, in place."""
        for parameter, value, learns in self.held:
            if _differ(parameter, value):
                parameter.copy_(value)
            parameter.requires_grad_(learns)


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether numbers are others; on the meta device there are none."""
    return not one.is_meta and not torch.equal(one, other)


def training_flags(model: nn.Module) -> Flags:
    """How training runs a network: as it stands, if it stands in train mode.

    Else ``model.train()`` decides, of which many networks have their own
    (frozen stages, norms that do not train).
    """
    if not model.training:
        return None
    return {path: module.training for path, module in model.named_modules()}


@contextmanager
def as_trained(model: nn.Module, flags: Flags = None) -> Iterator[None]:
    """Run the body with ``model`` in train mode and without gradients.

    As :func:`~dms_razor.network.untouched`; parameters, all attributes of
    modules and the generators of Python and NumPy are put back as well.

    Args:
        model (nn.Module): The network, or a copy or subnet of it.
        flags (dict[str, bool], optional): See :func:`training_flags`.
    """
    kept, states = _Parameters(model), (random.getstate(),
                                        np.random.get_state())
    try:
        with untouched(model):
            random.seed(0)
            np.random.seed(0)
            if flags is None:
                model.train()
            else:
                for path, module in model.named_modules():
                    module.training = flags.get(path, True)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        kept.restore()


def train_changes_attributes(model: nn.Module) -> bool:
    """Whether ``model.train()`` does more than set flags, e.g. a switch."""
    plain = all(
        type(module).train is nn.Module.train for module in model.modules())
    if plain or model.training:
        return False
    kept = [_Parameters(model), *map(Attributes, model.modules())]
    try:
        model.train()
        return any(part.changed() for part in kept)
    finally:
        for part in kept:
            part.restore()


@contextmanager
def mode_reads(model: nn.Module) -> Iterator[Dict[str, str]]:
    """Note which modules are asked for ``training`` by code outside PyTorch.

    A network in which nobody asks runs the same operations in both modes:
    PyTorch's own layers take other statistics or drop entries, which moves no
    channel.

    Yields:
        dict[str, str]: Path of a module -> name of the code's module; filled
        while the body runs.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    asked = {
        paths[id(module)]: kind.__module__
        for module in model.modules()
        for kind in type(module).__mro__ if 'training' in vars(kind)
    }  # a flag of its own kind: not seen below

    def read(module: nn.Module) -> bool:
        code = sys._getframe(1).f_globals.get('__name__', '')
        if id(module) in paths and code.partition('.')[0] != 'torch':
            asked.setdefault(paths[id(module)], code)
        if 'training' in vars(module):
            return vars(module)['training']
        return module.__getattr__('training')  # a scripted module's

    def write(module: nn.Module, flag: bool) -> None:
        vars(module)['training'] = flag

    # An attribute of the base class that comes before those of instances.
    nn.Module.training = property(read, write)
    try:
        yield asked
    finally:
        del nn.Module.training


def two_samples(inputs: Any, samples: int) -> Any:
    """Example inputs of at least two samples; batch norms need as many.

    Args:
        inputs (Any): Example inputs, in any nesting.
        samples (int): How many they hold; one is repeated.
    """
    if samples > 1:
        return inputs
    return map_tensors(
        lambda x: torch.cat([x, x])
        if x.dim() and len(x) == samples else x, inputs)


def varied(inputs: Any) -> Any:
    """The same inputs with the entries of all but the first sample mixed.

    Batch norms of equal samples would hide what is behind them. Ranges,
    shares of ones and zeros and valid indices stay.
    """
    generator = torch.Generator().manual_seed(0)

    def mixed(x: Tensor) -> Tensor:
        if x.dim() < 2 or len(x) < 2:
            return x
        rows = x[1:].flatten()
        order = torch.randperm(len(rows), generator=generator)
        return torch.cat([x[:1], rows[order.to(x.device)].view_as(x[1:])])

    return map_tensors(mixed, inputs)
