# Copyright (c) dms_razor contributors. All rights reserved.
"""Whether what runs now is recorded, operation by operation.

What a kernel does to the memory of tensors, nobody else sees: where operations
of PyTorch are written down, counted or transformed, they have to be used.
"""
import torch


def transformed() -> bool:
    """Whether torch.func transforms what runs: its tensors have no memory."""
    active = getattr(torch._C, '_are_functorch_transforms_active', None)
    return active is not None and active()


def recorded() -> bool:
    """Whether torch.compile, torch.jit, torch.func or a mode that is told of
    each operation takes part in what runs."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    modes = getattr(torch._C, '_len_torch_dispatch_stack', int)
    return transformed() or modes() > 0
