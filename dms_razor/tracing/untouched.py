# Copyright (c) dms_razor contributors. All rights reserved.
"""Running a network in eval mode so that nothing of it shows afterwards."""
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run the body with ``model`` in eval mode and without gradients.

    Training flags are set and put back one by one (``train()`` of many
    networks does more than that), and so are buffers that a forward changes
    and the state of PyTorch's random number generators. The body draws the
    same random numbers each time.

    Args:
        model (nn.Module): Any network.
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = list(_buffers(model))
    devices = {p.device.index for p in model.parameters() if p.is_cuda}
    try:
        for module, _ in flags:
            module.training = False
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            torch.default_generator.manual_seed(0)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(0)
            yield
    finally:
        for module, flag in flags:
            module.training = flag
        for buffer in buffers:
            buffer.restore()


@dataclass
class _Buffer:
    """A buffer as it was."""
    module: nn.Module
    name: str
    tensor: Tensor
    version: int
    value: Tensor

    def restore(self) -> None:
        self.module._buffers[self.name] = self.tensor
        if self.tensor._version != self.version:
            with torch.no_grad():
                self.tensor.copy_(self.value)


def _buffers(model: nn.Module) -> Iterator[_Buffer]:
    for module in model.modules():
        for name, tensor in module._buffers.items():
            if tensor is not None and not tensor.is_inference():
                yield _Buffer(module, name, tensor, tensor._version,
                              tensor.clone())
