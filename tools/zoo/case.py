# Copyright (c) dms_razor contributors. All rights reserved.
"""What the coverage of other packages needs to know of one network."""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional

import torch
from torch import nn


class NotCovered(Exception):
    """A network that cannot run here, whatever we do; the message says why."""


@dataclass
class Case:
    """A network and what it is called with.

    Attributes:
        model (nn.Module): The network, with the weights of its constructor.
        batch (Callable): ``batch(samples, seed)`` draws inputs.
        forward (Callable, optional): How it is called, in eval mode.
        train_batch (Callable, optional): As ``batch``, in training.
        train_forward (Callable, optional): As ``forward``, in training.
        note (str): What is special about it, for the table.
    """
    model: nn.Module
    batch: Callable[[int, int], Any]
    forward: Optional[Callable] = None
    train_batch: Optional[Callable[[int, int], Any]] = None
    train_forward: Optional[Callable] = None
    note: str = ''
    options: Dict[str, Any] = field(default_factory=dict)

    def tracing(self) -> Dict[str, Any]:
        """Arguments of :func:`dms_razor.trace.trace` beside the network."""
        found: Dict[str, Any] = dict(
            example_inputs=self.batch(1, 0), forward=self.forward)
        if self.train_batch is not None:
            found['train_inputs'] = self.train_batch(2, 0)
        if self.train_forward is not None:
            found['train_forward'] = self.train_forward
        return {**found, **self.options}


def drawn(*shape: int, name: str = '') -> Callable:
    """``batch`` of numbers of a normal distribution.

    Args:
        *shape (int): Of one sample.
        name (str): Argument that takes them; by default the first one.
    """

    def batch(samples: int, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.randn(samples, *shape, generator=generator)
        return {name: numbers} if name else numbers

    return batch


def images(side: int, *more: int) -> Callable:
    """``batch`` of a network that takes square images, or videos of
    ``more`` frames."""
    return drawn(3, *more, side, side)
