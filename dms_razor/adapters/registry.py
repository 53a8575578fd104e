# Copyright (c) dms_razor contributors. All rights reserved.
"""Slim classes: layers whose subnet the standard class cannot express.

Most subnets are the standard classes with other numbers. Some layers compute
with equal sizes where a searched one has two: attention takes one head size,
a C2f stage cuts its channels into equal halves. A *slim* class is the
standard class with a forward for that; parameters keep their names. Which
layer becomes which slim class stands in the manifest.
"""
import copyreg
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from .reshaping import RESHAPED, Reshaped, reshaped_type

#: (module, class name) -> slim mixin; the class name is its manifest name.
_SLIM: Dict[Tuple[str, str], type] = {}
_TYPES: Dict[type, type] = {}


def register_slim(home: str, name: str) -> Callable[[type], type]:
    """Decorator: the class is the slim form of a standard class.

    The slim class has ``_dms_setup()``, which gives the layer its further
    numbers at full size, and a ``forward``. It may have ``dms_numbers``
    (attributes that follow heads) and a static ``slots(module)`` that gives
    :class:`Slots`, for a module whose blocks are read side by side.

    Args:
        home (str): Module that defines the standard class.
        name (str): Name of the standard class.
    """

    def register(mixin: type) -> type:
        _SLIM[home, name] = mixin
        return mixin

    return register


def slim_class(module: nn.Module) -> Optional[type]:
    """The slim mixin for a layer of a standard class; None if it has none."""
    kind = type(module)
    return _SLIM.get((kind.__module__, kind.__name__))


def slim_name(module: nn.Module) -> Optional[str]:
    """Manifest name of the slim class for a layer; None if it has none."""
    return None if slim_class(module) is None else type(module).__name__


@dataclass(frozen=True)
class Slots:
    """Where the outputs of a module's blocks lie in what its last layer reads.

    Without its block a slot repeats the one before it, so it goes, and its
    weights are added to those of the slot before. A module with slots takes
    pieces of any size.

    Attributes:
        layer (str): Path of that layer in the module.
        width (int): Channels of a slot.
        starts (list[tuple[str, int]]): Path of each block in the module, and
            its first channel there.
        pieces (str): Attribute of the slim module with the sizes of pieces.
    """
    layer: str
    width: int
    starts: List[Tuple[str, int]]
    pieces: str


def slots_of(module: nn.Module) -> Optional[Slots]:
    """The slots of a module of a standard class; None if it has none."""
    find = getattr(slim_class(module), 'slots', None)
    return None if find is None else find(module)


def make_slim(module: nn.Module, name: str) -> nn.Module:
    """Give a standard layer its slim class, in place.

    Args:
        module (nn.Module): The layer, of full size.
        name (str): Name of the slim class, from the space or a manifest.

    Raises:
        ValueError: There is no such class, or the layer is of another one.
    """
    kind = type(module)
    if kind in _TYPES.values():
        return module
    mixin = slim_class(module)
    if name != RESHAPED and (mixin is None or slim_name(module) != name):
        raise ValueError(
            f'a layer of class {kind.__name__} cannot become a slim '
            f'"{name}"; the supernet or dms_razor is another one than that '
            'of the search. Use those of the search.')
    module.__class__ = slim_type(kind, name)
    if name != RESHAPED:
        module._dms_setup()
    return module


def slim_type(kind: type, name: str) -> type:
    """The slim class of a standard one, made once.

    Args:
        kind (type): The standard class.
        name (str): Name of the slim class, as for :func:`make_slim`.
    """
    if kind not in _TYPES:
        if name == RESHAPED:
            made = reshaped_type(kind)
        else:
            mixin = _SLIM[kind.__module__, kind.__name__]
            made = type(f'Slim{name}', (mixin, kind),
                        dict(__module__=mixin.__module__))
        made.__reduce_ex__ = _reduce
        _TYPES[kind] = made
    return _TYPES[kind]


def remake(kind: type) -> Tuple[Callable, tuple]:
    """How pickle makes an empty module of a class.

    A slim class it cannot find by its name: the standard class and the slim
    name are written.

    Returns:
        tuple[Callable, tuple]: A function, and its arguments.
    """
    standard = next((key for key, slim in _TYPES.items() if slim is kind),
                    None)
    if standard is None:
        return copyreg._reconstructor, (kind, object, None)
    name = RESHAPED if issubclass(kind, Reshaped) else standard.__name__
    return _of_slim_type, (standard, name)


def _reduce(module: nn.Module, protocol: int) -> tuple:
    """``__reduce_ex__`` of slim classes, and of classes made of them."""
    state = object.__reduce_ex__(module, max(2, protocol))[2]
    return (*remake(type(module)), state)


def _of_slim_type(kind: type, name: str) -> nn.Module:
    """An empty module of a slim class, which pickle fills."""
    return nn.Module.__new__(slim_type(kind, name))


class RemovedBlock(nn.Identity):
    """What stands where a residual block was removed, or a part of a branch.

    An identity for the first tensor that it is given, whatever else it is
    given; or zeros of its shape, which end a branch ``x + f(x)``.

    Args:
        zero (bool): Whether it returns zeros.
        outputs (int): Length of the tuple that the removed module returned,
            whose first entry alone was used; 0 for a tensor.
    """

    def __init__(self, zero: bool = False, outputs: int = 0) -> None:
        super().__init__()
        self.zero, self.outputs = zero, outputs

    def forward(self, *args, **kwargs):
        """The first tensor, unchanged, or zeros of its shape."""
        given = (*args, *kwargs.values())
        out = next(x for x in given if isinstance(x, Tensor))
        out = torch.zeros_like(out) if self.zero else out
        return (out, *[None] * (self.outputs - 1)) if self.outputs else out
