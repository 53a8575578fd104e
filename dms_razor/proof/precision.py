# Copyright (c) dms_razor contributors. All rights reserved.
"""Lets a network compute in double precision, whatever it casts to.

In float64 a wrong channel stands far above the rounding; in float32 it may
not. Code that asks for a precision by name (``x.float()``,
``softmax(dtype=torch.float32)``, a table that is made in the forward) is
given the double one meanwhile.
"""
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

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
                    isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
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
        out = function(*args, **kwargs)
        return out if any(out is x for x in args) else _double(out)


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
                str(t.dtype).split('.')[-1] for t in tree_leaves((args, out))
                if isinstance(t, Tensor) and t.dtype in DOUBLE
                and t.numel() > 1
            ]
        if low:
            self.found = self.found or f'{function} in {low[0]}'
        return out
