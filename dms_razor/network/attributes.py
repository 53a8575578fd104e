# Copyright (c) dms_razor contributors. All rights reserved.
"""What a module's attributes are, to see what a run changes, and undo it."""
from collections import OrderedDict, deque
from typing import Any, List, Mapping, Tuple

import torch
from torch import Tensor, nn

#: What most attributes are: no container and no tensor.
_PLAIN = frozenset((bool, int, float, str, tuple, type(None)))


class Attributes:
    """What a module's attributes are, to put them back.

    Hooks, submodules and the names of parameters and buffers are among them;
    the numbers in parameters and buffers are not.
    """

    containers = frozenset((dict, OrderedDict, list, set, deque))

    def __init__(self, module: nn.Module) -> None:
        self.module, self.type = module, type(module)
        self.values = dict(vars(module))
        self.contents: List[Tuple[Any, Any]] = []
        self.tensors: List[Tuple[Tensor, int, Tensor]] = []
        for value in self.values.values():
            kind = type(value)
            if kind in self.containers:
                self.contents.append((value, value.copy() if value else ()))
            elif kind not in _PLAIN and isinstance(
                    value, Tensor) and not value.is_inference():
                self.tensors.append(
                    (value, value._version, value.detach().clone()))

    def changed(self) -> bool:
        """Whether anything but the training flag is not what it was."""
        own = vars(self.module)
        return type(self.module) is not self.type or \
            own.keys() != self.values.keys() or any(
                own[name] is not value for name, value in self.values.items()
                if name != 'training') or any(
                    _differ(*pair) for pair in self.contents) or any(
                        tensor._version != version
                        for tensor, version, _ in self.tensors)

    def restore(self) -> None:
        """Put back what has changed."""
        if type(self.module) is not self.type:
            self.module.__class__ = self.type
        own = vars(self.module)
        for name in [name for name in own if name not in self.values]:
            del own[name]
        own.update(self.values)
        for value, content in self.contents:
            if _differ(value, content):
                value.clear()
                getattr(value, 'update', getattr(value, 'extend', None))(
                    content)
        for tensor, version, value in self.tensors:
            if tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(value)


def _differ(value: Any, content: Any) -> bool:
    """Whether a container does not hold the very same things any more."""
    if isinstance(value, set):  # a copy may have another order
        return value != set(content)
    return bool(value or content) and (len(value) != len(content) or any(
        a is not b for a, b in zip(_flat(value), _flat(content))))


def _flat(container: Any) -> List[Any]:
    """The entries of a container, of a mapping with their names."""
    return [*container, *container.values()] if isinstance(
        container, Mapping) else list(container)
