# Copyright (c) dms_razor contributors. All rights reserved.
"""Whether a kernel may work in the memory of tensors.

What a kernel does there, nobody else sees: where operations of PyTorch are
written down, counted or transformed, they have to be used. And there are
tensors whose memory is not what they are.
"""
from typing import Optional

import torch
from torch import Tensor, nn

from ..network.compiling import compiling


def recorded() -> bool:
    """Whether torch.compile, torch.jit, torch.func or a mode that is told of
    each operation takes part in what runs."""
    if compiling() or torch.jit.is_tracing():
        return True
    transforms = getattr(torch._C, '_are_functorch_transforms_active', bool)
    modes = getattr(torch._C, '_len_torch_dispatch_stack', int)
    return transforms() or modes() > 0


def in_memory(*tensors: Optional[Tensor]) -> bool:
    """Whether the numbers of all tensors are in their memory.

    They are not in subclasses of tensors, in batches of :mod:`torch.func`, and
    where PyTorch only notes that a tensor is zero or to be negated.
    """
    return all(tensor is None or _holds(tensor) for tensor in tensors)


def _holds(tensor: Tensor) -> bool:
    if type(tensor) not in (Tensor, nn.Parameter) or \
            tensor.layout is not torch.strided or \
            tensor._is_zerotensor() or tensor.is_neg():
        return False
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True
