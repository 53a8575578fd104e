# Copyright (c) dms_razor contributors. All rights reserved.
"""What a recording consists of: operations, module calls, tensors."""
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Set, Tuple

from torch import Tensor

from ..adapters.reshaping import CALLS, Site, site_of
from ..moved import moved_names

__getattr__ = moved_names(__name__)


class NotUnderstood(Exception):
    """Raised by a rule: the channels of the operation stay, with a reason."""


@dataclass
class Node:
    """One recorded operation.

    Attributes:
        index (int): Position in the order of execution.
        op (str): Canonical name of the function, e.g. ``'conv2d'``.
        call (int): Index of the innermost module call, -1 outside of any.
        inputs (list[int]): Nodes whose outputs were read, each once.
        uses (int): How many tensors it read that are no constants.
        settings (tuple): Its arguments that are no tensors.
        shape (tuple[int, ...]): Shape of the (first) output.
        plain_add (bool): An addition of two tensors of the same shape with
            no scaling: the only operation a residual connection may end with.
        labels (list[Tensor]): Labels of its outputs.
        names (set[str]): Parameters and buffers that it read.
        constant (bool): It is computed from those alone.
        site (Site, optional): Where a reshape stands in the network's code.
    """
    index: int
    op: str
    call: int
    inputs: List[int]
    uses: int = 0
    settings: Tuple = ()
    shape: Tuple[int, ...] = ()
    plain_add: bool = False
    labels: List[Tensor] = field(default_factory=list)
    names: Set[str] = field(default_factory=set)
    constant: bool = False
    site: Optional[Site] = None


@dataclass
class ModuleCall:
    """One call of a module: its path, its nodes and what went in and out.

    ``source`` holds the labels of its first argument, if it is an activation
    that is given by position. ``tensor_first``: it returns a tensor or a
    tuple that begins with one; ``length``: that of the tuple, else 0.
    ``hands_on``: a parameter or buffer is among what it returns.
    """
    index: int
    path: str
    parent: int
    first: int
    last: int = -1
    inputs: Tuple[int, ...] = ()
    outputs: Tuple[int, ...] = ()
    returns_tensor: bool = False
    tensor_first: bool = False
    length: int = 0
    hands_on: bool = False
    source: Optional[Tensor] = None


@dataclass
class Value:
    """What is known about a tensor.

    Attributes:
        tensor (Tensor): The tensor, held so that no other gets its id.
        node (int): The operation it came from.
        labels (Tensor): The label of every entry.
        own_shape (tuple[int, ...]): Its shape before it was expanded.
    """
    tensor: Tensor
    node: int
    labels: Tensor
    own_shape: Tuple[int, ...]


@dataclass
class OpCall:
    """One call of a PyTorch function, as rules see it.

    Attributes:
        func (Callable): The function.
        op (str): Its canonical name.
        args (tuple): What it was given by position.
        kwargs (dict): What it was given by name.
        outs (list[Tensor]): What it returned.
        tensors (list[Tensor]): All tensors in its arguments.
        changed (list[Tensor]): Those of them that it wrote into.
    """
    func: Callable
    op: str
    args: tuple
    kwargs: dict
    outs: List[Tensor]
    tensors: List[Tensor]
    changed: List[Tensor] = field(default_factory=list)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by name.

        Torch takes NumPy's ``axis`` for its own ``dim``.
        """
        if len(self.args) > position:
            return self.args[position]
        if name == 'dim' and 'axis' in self.kwargs:
            return self.kwargs['axis']
        return self.kwargs.get(name, default)


def reshape_site(op: str) -> Optional[Site]:
    """Where the operation that is being recorded stands, if it reshapes."""
    if op not in CALLS:
        return None
    frame = sys._getframe(1)
    # Above: the recorder's methods, and modes that watch beside it.
    while frame.f_code.co_name != '__torch_function__' or \
            frame.f_back.f_code.co_name == '__torch_function__':
        frame = frame.f_back
    return site_of(frame.f_back)


def version_of(tensor: Tensor) -> int:
    """Grows with every operation that changes the tensor in place."""
    return 0 if tensor.is_inference() else tensor._version
