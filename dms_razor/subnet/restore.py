# Copyright (c) dms_razor contributors. All rights reserved.
"""A call that fails leaves the network as it was."""
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Tuple

import torch
from torch import nn

from ..network import named_tensors


@contextmanager
def unchanged_on_failure(model: nn.Module) -> Iterator[None]:
    """Put a network back if the body raises, every object and every number.

    Parameters, buffers, submodules and attributes are the same objects again,
    with the same classes and values. It holds a copy of the tensors meanwhile.
    """
    modules = [(module, type(module), _attributes(module))
               for module in model.modules()
               if not isinstance(module, torch.jit.ScriptModule)]
    tensors = {id(t): t for t in named_tensors(model).values()}
    numbers = [(t, t.data, t.data.clone()) for t in tensors.values()]
    try:
        yield
    except BaseException:
        for module, kind, attributes in modules:
            if type(module) is not kind:
                module.__class__ = kind
            _put_back(module, attributes)
        with torch.no_grad():
            for tensor, data, values in numbers:
                if not data.is_meta and not torch.equal(data, values):
                    data.copy_(values)
                tensor.data = data
        raise


def _attributes(module: nn.Module) -> Dict[str, Tuple[Any, Any]]:
    """Each attribute, and what is in it if it can be changed in place."""
    return {
        name: (value, value.copy() if isinstance(value,
                                                 (dict, list)) else None)
        for name, value in vars(module).items()
    }


def _put_back(module: nn.Module, attributes: Dict[str, Tuple]) -> None:
    own = vars(module)
    for name in own.keys() - attributes.keys():
        del own[name]
    for name, (value, content) in attributes.items():
        own[name] = value
        if content is not None:
            value.clear()
            value.extend(content) if isinstance(
                value, list) else value.update(content)
