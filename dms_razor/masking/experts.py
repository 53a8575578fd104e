# Copyright (c) dms_razor contributors. All rights reserved.
"""The softmax of a router under masks: that of the experts that are kept.

``p_e = m_e exp(l_e) / Σ m exp(l)``: with hard masks that of the router that is
cut, and an expert whose mask is 0 is as good as removed. Its mask has a
gradient all the same, ``exp(l_e) / Σ m exp(l) · (g_e − Σ p g)``: the logarithm
of a mask, which has none at 0, is not taken.
"""
import math
from typing import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# How far below the largest number of a type exponentials stay, so that the
# gradient of what was removed, times that of a loss, is finite.
_SPARE = 10


def masked_softmax(x: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Softmax of ``x`` along ``dim`` under masks ``[size of dim]``.

    Args:
        x (Tensor): Scores.
        mask (Tensor): Masks from 0 to 1, some of them above 0.
        dim (int): The dimension.

    Returns:
        Tensor: In the dtype of ``x``; computed in float32 at least.
    """
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(x.dtype, torch.float32)
        shape = [1] * x.dim()
        shape[dim] = -1
        wide, mask = x.to(dtype), mask.to(dtype).view(shape)
        # Taken of what is kept: what is removed may lie far above it, so
        # that all kept exponentials would vanish.
        with torch.no_grad():
            top = (wide + mask.log()).logsumexp(dim, keepdim=True)
        limit = math.log(torch.finfo(dtype).max) - _SPARE
        weighted = mask * (wide - top).clamp(max=limit).exp()
        return (weighted / weighted.sum(dim, keepdim=True)).to(x.dtype)


class SoftmaxInterceptor(TorchFunctionMode):
    """While a router runs, its softmax over experts reads masks.

    Args:
        mask (Tensor): Masks of the experts, ``[E]``.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__name__', '') != 'softmax':
            return func(*args, **kwargs)
        x = args[0] if args else kwargs['input']
        dim = args[1] if len(args) > 1 else kwargs.get('dim')
        # It stands at another place in each of PyTorch's forms.
        wanted = kwargs.get('dtype') or next(
            (x for x in args[2:] if isinstance(x, torch.dtype)), None)
        if dim is None or x.shape[dim] != len(self.mask):
            return func(*args, **kwargs)
        return masked_softmax(
            x if wanted is None else x.to(wanted), self.mask, dim)
