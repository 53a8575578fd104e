# Copyright (c) dms_razor contributors. All rights reserved.
"""Lets a network compute in double precision, whatever it casts to.

In float64 a wrong channel stands far above the rounding; in float32 it may
not. Code that asks for a precision by name (``x.float()``,
``softmax(dtype=torch.float32)``, a table that is made in the forward) is
given the double one meanwhile.
"""
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

#: Precisions -> what stands in their place.
DOUBLE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
    torch.complex32: torch.complex128,
}
CASTS = (Tensor.float, Tensor.half, Tensor.bfloat16)


def to_double(value: Any) -> Any:
    """Tensors in any nesting in double precision; others as they are."""
    return tree_map_only(
        Tensor, lambda t: t.to(DOUBLE[t.dtype])
        if t.dtype in DOUBLE else t, value)


def double_network(network: nn.Module) -> nn.Module:
    """Convert a network in place: parameters, buffers, tensors it keeps."""
    network._apply(to_double)
    for module in network.modules():
        for name, value in list(vars(module).items()):
            # The registered ones are done; a tensor may lie in a list.
            if not name.startswith('_') and any(
                    isinstance(leaf, Tensor)
                    for leaf in tree_flatten(value)[0]):
                vars(module)[name] = to_double(value)
    return network


class _Double(TorchFunctionMode):
    """Puts double precision in the place of every other."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in CASTS:
            return args[0].to(DOUBLE.get(args[0].dtype, torch.float64))
        name = getattr(function, '__name__', '')
        if name == '__get__':  # x.shape, x.dtype
            return function(*args, **kwargs)
        # What is written into stays; all else is of one precision.
        first = int(
            name in ('__set__', '__setitem__')
            or name.endswith('_') and not name.endswith('__')
            or name.startswith('__i'))
        args = (*args[:first], *map(_double, args[first:]))
        kwargs = {
            name: value if name == 'out' else _double(value)
            for name, value in kwargs.items()
        }
        if name.strip('_') == 'grouped_mm' and args[1].dim() > args[0].dim():
            return _grouped(*args, **kwargs)
        if _is_depthwise(function, args):
            return _depthwise(*args)
        out = function(*args, **kwargs)
        return out if any(out is x for x in args) else _double(out)


def _is_depthwise(function: Callable, args: tuple) -> bool:
    """Whether a call, with all its arguments by place, as ``nn.Conv2d`` has
    it, is a convolution in which each channel has a filter of its own."""
    return function is torch.conv2d and len(args) == 7 and args[6] > 1 and \
        args[6] == args[1].shape[0] == args[0].shape[-3] and \
        args[0].dim() == 4 and not isinstance(args[4], str)


def _depthwise(x: Tensor, weight: Tensor, bias: Optional[Tensor], stride: Any,
               padding: Any, dilation: Any, groups: int) -> Tensor:
    """A depth-wise convolution, which PyTorch has in double precision as one
    product for each channel: dozens of times slower than this sum."""
    strides, pads, steps = ((v, v) if isinstance(v, int) else (*v, *v)[:2]
                            for v in (stride, padding, dilation))
    x = nn.functional.pad(x, (pads[1], pads[1], pads[0], pads[0]))
    kernel = weight.shape[-2:]
    ends = [(length - step * (size - 1) - 1) // stride * stride + 1 for length,
            size, step, stride in zip(x.shape[-2:], kernel, steps, strides)]
    if min(ends) < 1:  # an error, whose words are PyTorch's
        return torch.conv2d(x, weight, bias, stride, 0, dilation, groups)
    total: Any = 0. if bias is None else bias[:, None, None]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * steps[0], j * steps[1]
            total = total + weight[:, 0, i, j, None,
                                   None] * x[..., top:top + ends[0]:strides[0],
                                             left:left + ends[1]:strides[1]]
    return total


def _grouped(x: Tensor,
             matrices: Tensor,
             offs: Tensor,
             bias: Optional[Tensor] = None,
             out_dtype: Optional[torch.dtype] = None) -> Tensor:
    """Rows ``[n, m]`` in groups, each times its matrix of ``[g, m, p]``, of
    which PyTorch has no form in double precision.

    Args:
        offs (Tensor): Where the groups end, ``[g]``; rows behind the last one
            give zeros.
    """
    out = x.new_zeros(len(x), matrices.shape[-1])
    start = 0
    for matrix, end in zip(matrices, offs.tolist()):
        out[start:end] = x[start:end] @ matrix
        start = end
    return out if bias is None else out + bias


def _double(value: Any) -> Any:
    """A tensor or a type in double precision; others as they are."""
    if isinstance(value, Tensor):
        return value.to(DOUBLE[value.dtype]) if value.dtype in DOUBLE \
            else value
    return DOUBLE.get(value, value) if type(value) is torch.dtype else value


@contextmanager
def double_precision() -> Iterator[None]:
    """In the body new tensors are of double precision, and casts go to it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


class LowPrecision(TorchDispatchMode):
    """Notes the first operation that computes below double precision.

    Attributes:
        found (str | None): The operation and its precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Optional[str] = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # Else the casts below would be those of double_precision().
        with torch._C.DisableTorchFunction():
            out = function(*args, **(kwargs or {}))
            low: List[str] = [
                str(t.dtype).split('.')[-1]
                for t in tree_flatten((args, out))[0] if isinstance(t, Tensor)
                and t.dtype in DOUBLE and t.numel() > 1
            ]
        if low:
            self.found = self.found or f'{function} in {low[0]}'
        return out
