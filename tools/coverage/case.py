# Copyright (c) dms_razor contributors. All rights reserved.
"""What the coverage of other packages needs to know of one network."""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional

import torch
from torch import Tensor, nn


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


def images(side: int, *more: int, channels: int = 3) -> Callable:
    """``batch`` of a network that takes images.

    Args:
        side (int): Height and width.
        *more (int): Sizes before them, e.g. frames of a video.
        channels (int): Defaults to 3.
    """

    def batch(samples: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(
            samples, channels, *more, side, side, generator=generator)

    return batch
