# Copyright (c) dms_razor contributors. All rights reserved.
"""Layer, RMS and group norm whose statistics are those of kept channels.

With masks m the mean is Σmx/Σm and the variance Σm(x−mean)²/Σm (METHOD
section 2), so that with hard masks a norm computes what the exported, narrow
norm computes. Fused autograd functions keep only what a standard norm keeps
(an output and one number a row), and give the masks their gradient.
Statistics are taken in float32 at least, as PyTorch's norms do.
"""
from types import ModuleType
from typing import Any, Callable, List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import written_norms
from .memory import in_memory, recorded

try:
    from . import fused_norms
except ImportError:  # PyTorch was built without Triton
    fused_norms = None
try:
    from . import compiled_norms
except ImportError:  # there is no Numba
    compiled_norms = None


class MaskedGroups(torch.autograd.Function):
    """``(x - mean) * rstd`` with masked statistics of each group.

    Shapes: x ``[B, G, C]``, statistics over the last dimension; mask
    ``[G, C]``.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, eps: float) -> Tensor:
        """Statistics in float32 at least, the result in the dtype of x."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide, masks = x.to(dtype), mask.to(dtype)
        weight = masks / masks.sum(-1, keepdim=True)
        mean = (wide * weight).sum(-1, keepdim=True)
        out = wide - mean
        rstd = ((out * out * weight).sum(-1, keepdim=True) + eps).rsqrt_()
        out.mul_(rstd)
        ctx.save_for_backward(x, mask, mean, rstd)
        ctx.eps = eps
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Gradients of x and mask; the formula stands in
        :func:`.written_norms.backward_rows`."""
        x, mask, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_derived(grad, written_norms.of_groups, x, mask, ctx.eps),
                    None)
        masks, grad = mask.to(rstd.dtype), grad.to(rstd.dtype)
        total = masks.sum(-1, keepdim=True)
        y = (x.to(rstd.dtype) - mean).mul_(rstd)
        s = (grad * y).sum(-1, keepdim=True)
        t = grad.sum(-1, keepdim=True)
        grad_x = (grad - masks / total * (t + y * s)).mul_(rstd)
        rows = -.5 * s * (y.square() - 1 + ctx.eps * rstd.square()) - y * t
        grad_mask = rows.sum(0) / total
        return grad_x.to(x.dtype), grad_mask.to(mask.dtype), None


def masked_layer_norm(x: Tensor, mask: Tensor, weight: Optional[Tensor],
                      bias: Optional[Tensor], eps: float,
                      center: bool) -> Tensor:
    """Layer norm (or RMS norm) of ``[..., C]`` under masks ``[C]``.

    Raises:
        RuntimeError: If mask, weight or bias are of another number of
            channels.
    """
    for part in (mask, weight, bias):
        if part is not None and part.shape != x.shape[-1:]:
            raise RuntimeError(
                f'a norm of {tuple(part.shape)} channels was given an input '
                f'of {tuple(x.shape)}: its last dimension has to be that of '
                'the norm')
    # Viewed out here: a view made in the function could not be written into
    # by an activation in place.
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    mask, weight, bias = (None if part is None else part.contiguous()
                          for part in (mask, weight, bias))
    return MaskedLayerNorm.apply(rows, mask, weight, bias, eps,
                                 center).view(x.shape)


def masked_group_norm(x: Tensor, groups: int, mask: Tensor,
                      weight: Optional[Tensor], bias: Optional[Tensor],
                      eps: float) -> Tensor:
    """Group norm of ``[B, C, ...]`` under masks ``[C]``."""
    shape = x.shape
    positions = x[0, 0].numel()
    rows = mask.view(groups, -1, 1).expand(-1, -1, positions)
    out = MaskedGroups.apply(
        x.reshape(shape[0], groups, -1), rows.reshape(groups, -1), eps)
    out = out.view(shape)
    view = (1, -1) + (1, ) * (len(shape) - 2)
    if weight is not None:
        out = out * weight.view(view)
    return out if bias is None else out + bias.view(view)


def masked_mean(x: Tensor, mask: Tensor, dim: int, keepdim: bool) -> Tensor:
    """Mean along ``dim`` of the kept channels, Σmx/Σm; masks ``[C]``."""
    with torch.autocast(x.device.type, enabled=False):
        weight = (mask / mask.sum()).to(x.dtype)
        mean = x.movedim(dim, -1) @ weight
    return mean.unsqueeze(dim) if keepdim else mean


def is_plain_layer_norm(layer: nn.Module) -> bool:
    """Whether all that a norm does is to call PyTorch's layer norm."""
    return type(layer).forward is nn.LayerNorm.forward


class NormInterceptor(TorchFunctionMode):
    """While a norm module runs, its norm function reads masks.

    Works for any module that calls the PyTorch function, whatever it does
    around it (a LayerNorm over the channels of images permutes first), and
    for norms that are written out with a mean over channels.

    Args:
        mask (Tensor): Masks of the normalised channels, ``[C]``.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, '__name__', '')

        def get(position: int, key: str, default: Any = None) -> Any:
            return args[position] if len(args) > position else kwargs.get(
                key, default)

        x = get(0, 'input')
        if name == 'layer_norm' and func is F.layer_norm:
            return masked_layer_norm(x, self.mask, get(2, 'weight'),
                                     get(3, 'bias'), get(4, 'eps', 1e-5), True)
        if name == 'rms_norm':
            eps = get(3, 'eps')
            eps = torch.finfo(x.dtype).eps if eps is None else eps
            return masked_layer_norm(x, self.mask, get(2, 'weight'), None, eps,
                                     False)
        if name == 'group_norm':
            return masked_group_norm(x, get(1, 'num_groups'), self.mask,
                                     get(2, 'weight'), get(3, 'bias'),
                                     get(4, 'eps', 1e-5))
        if name == 'mean':
            dim = get(1, 'dim')
            dim = dim[0] if isinstance(dim, (tuple,
                                             list)) and len(dim) == 1 else dim
            if type(dim) is int and x.shape[dim] == len(self.mask):
                wanted = get(3, 'dtype')
                x = x if wanted is None else x.to(wanted)
                return masked_mean(x, self.mask, dim % x.dim(),
                                   get(2, 'keepdim', False))
        return func(*args, **kwargs)


class MaskedLayerNorm(torch.autograd.Function):
    """Layer norm (``center``) or RMS norm of ``[R, C]``, masks ``[C]``, both
    contiguous."""

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, gain: Optional[Tensor],
                bias: Optional[Tensor], eps: float, center: bool) -> Tensor:
        """Statistics in float32 at least, the result in the dtype of x."""
        ctx.rest, rows = (eps, center), _rows_of(x, mask, gain, bias)
        with torch.autocast(x.device.type, enabled=False):
            out, mean, rstd = rows.forward_rows(x, mask, gain, bias, eps,
                                                center)
        ctx.save_for_backward(x, mask, gain, bias, mean, rstd)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Gradients of x, mask, gain and bias."""
        x, mask, gain, bias, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_derived(grad, written_norms.of_rows, x, mask, gain, bias,
                              *ctx.rest), None, None)
        grad = grad.contiguous()
        # Asked again: what is given, or was kept elsewhere, may be otherwise.
        rows = _rows_of(grad, x, mask, gain, mean, rstd)
        with torch.autocast(grad.device.type, enabled=False):
            grad_x, sums = rows.backward_rows(grad, x, mask, gain, mean, rstd,
                                              *ctx.rest)
        of_mask, of_gain, of_bias = sums
        return (grad_x, of_mask.to(mask.dtype),
                None if gain is None else of_gain.to(gain.dtype),
                None if bias is None else of_bias.to(bias.dtype), None, None)


def _rows_of(x: Tensor, *others: Optional[Tensor]) -> ModuleType:
    """The module that works on such rows, with a mask and the like."""
    there = [x, *(other for other in others if other is not None)]
    if recorded() or not in_memory(*there) or not all(one.is_contiguous()
                                                      for one in there):
        return written_norms
    if x.is_cuda:
        fits = fused_norms is not None and x.shape[-1] <= fused_norms.MOST
        return fused_norms if fits else written_norms
    fits = compiled_norms is not None and compiled_norms.fits(*there)
    return compiled_norms if fits else written_norms


def _derived(grad: Tensor, formula: Callable[..., Tensor], *given:
             Any) -> List[Optional[Tensor]]:
    """Gradients of the tensors given to a formula, to be derived again."""
    # Each by a name of its own, as one may be given twice.
    given = [x.view_as(x) if isinstance(x, Tensor) else x for x in given]
    inputs = [x for x in given if isinstance(x, Tensor) and x.requires_grad]
    with torch.autocast(grad.device.type, enabled=False):
        found = torch.autograd.grad(
            formula(*given), inputs, grad, create_graph=True)
    places = {id(x): one for x, one in zip(inputs, found)}
    return [
        places.get(id(x)) for x in given if x is None or isinstance(x, Tensor)
    ]
