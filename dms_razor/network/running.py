# Copyright (c) dms_razor contributors. All rights reserved.
"""Running a network in eval mode so that nothing of it shows afterwards."""
import hashlib
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Set
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from .attributes import Attributes


class _PlainOperations(TorchFunctionMode):
    """Changes nothing, but keeps torch from taking fused shortcuts.

    Without it PyTorch's transformer layers run in eval mode as one operation
    that no counter knows.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run the body with ``model`` in eval mode and without gradients.

    Training flags are set and put back one by one (``train()`` of many
    networks does more than that: frozen stages, ``norm_eval``), and so are
    buffers that a forward changes, what it keeps as attributes and the state
    of PyTorch's random number generators. The body draws the same random
    numbers each time.
    """
    attributes = [Attributes(module) for module in model.modules()]
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(module, name, tensor, tensor.clone()) for module, _ in flags
               for name, tensor in module._buffers.items()
               if tensor is not None and not tensor.is_inference()]
    devices = {p.device.index for p in model.parameters() if p.is_cuda}
    try:
        for module, _ in flags:
            module.training = False
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            torch.default_generator.manual_seed(0)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(0)
            yield
    finally:
        for module, flag in flags:
            module.training = flag
        for attribute in attributes:
            attribute.restore()
        for module, name, tensor, value in buffers:
            module._buffers[name] = tensor
            # Not by its version: batch norms do not raise it.
            if not tensor.is_meta and not torch.equal(tensor, value):
                with torch.no_grad():
                    tensor.copy_(value)


@contextmanager
def alone(model: nn.Module) -> Iterator[nn.Module]:
    """Run the body with the model, its norms of this rank's own batch.

    A network is read and exported by each rank for itself: a synchronised norm
    would wait for the others, and is one more operation than a norm.
    """
    kinds = [(module, type(module)) for module in model.modules()
             if isinstance(module, nn.SyncBatchNorm)]
    try:
        for norm, kind in kinds:
            norm.__class__ = _local(kind)
        yield model
    finally:
        for norm, kind in kinds:
            norm.__class__ = kind


class _Local(nn.SyncBatchNorm):
    """A synchronised norm of this rank's own batch."""
    forward = _BatchNorm.forward


_Local.__name__ = nn.SyncBatchNorm.__name__


@lru_cache(maxsize=None)
def _local(kind: type) -> type:
    """The class of a synchronised norm, or of a masked one, without the
    others: a mask's own forward stays in front."""
    if kind is nn.SyncBatchNorm:
        return _Local
    if nn.SyncBatchNorm not in kind.__bases__[1:]:  # somebody's own
        return type(kind.__name__, (kind, ), dict(forward=_BatchNorm.forward))
    own = {
        name: value
        for name, value in vars(kind).items()
        if name not in ('__dict__', '__weakref__')
    }
    bases = tuple(_Local if base is nn.SyncBatchNorm else base
                  for base in kind.__bases__)
    return type(kind.__name__, bases, own)


@contextmanager
def after_scripts(tell: Callable[..., None]) -> Iterator[None]:
    """Call ``tell(module, args, kwargs, out)`` after each scripted module.

    Scripted modules have no hooks of their own, and hooks of all modules know
    keyword arguments only in later versions of torch.

    Args:
        tell (callable): Is called wherever Python calls such a module.
    """
    plain = torch.jit.ScriptModule.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        out = plain(module, *args, **kwargs)
        tell(module, args, kwargs, out)
        return out

    with patch.object(torch.jit.ScriptModule, '__call__', call):
        yield


def refuse_no_network(model: Any, owner: str) -> None:
    """Raise TypeError for what is no network, such as its class.

    Args:
        model (Any): What was given.
        owner (str): What takes a network, for the message.
    """
    if not isinstance(model, nn.Module):
        made = f': call it first, {model.__name__}()' \
            if isinstance(model, type) else ''
        raise TypeError(f'the model is a {type(model).__name__}, and {owner} '
                        f'takes an nn.Module{made}')


def refuse_wrapped(model: nn.Module) -> None:
    """Raise ValueError if a network, or a part of it, is spread by a wrapper.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.DataParallel) or any(
                kind.__name__ in ('DistributedDataParallel',
                                  'FullyShardedDataParallel')
                for kind in type(module).__mro__):
            raise ValueError(
                f'{f"the part {name!r}" if name else "this network"} is '
                f'wrapped in {type(module).__name__}, which would be taken '
                'for a part of it: give the network itself, '
                f'{f"{name}.module" if name else "model.module"}, and wrap it '
                'afterwards')


def call(model: nn.Module,
         inputs: Any,
         forward: Optional[Callable] = None) -> Any:
    """Call a network on example inputs, operation by operation.

    Args:
        model (nn.Module): The network.
        inputs (Any): A tensor, a tuple or list of arguments, or a dict of
            keyword arguments; as everywhere in this project.
        forward (callable, optional): ``forward(model, *inputs)`` for
            networks that are not simply called.
    """
    forward = forward or run_model
    with _PlainOperations():
        if isinstance(inputs, Mapping):
            return forward(model, **inputs)
        return forward(model, *several(inputs))


def several(inputs: Any) -> tuple:
    """The arguments that example inputs are; a named tuple is one."""
    if isinstance(inputs, (tuple, list)) and not hasattr(inputs, '_fields'):
        return tuple(inputs)
    return (inputs, )


def run_model(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The default forward: ``model(*args, **kwargs)``.

    A language model runs without the cache of its generation: keys and
    values that it hands out would have to stay as they are.
    """
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if getattr(getattr(module, 'config', None), 'use_cache', None) is True
    }
    try:
        for config in configs.values():
            config.use_cache = False
        return model(*args, **kwargs)
    finally:
        for config in configs.values():
            config.use_cache = True


def tensors_of(value: Any, seen: Optional[Set[int]] = None) -> List[Tensor]:
    """All tensors in what a network takes or returns, in order.

    Looks into lists, tuples, mappings and objects (data classes, namespaces,
    the data samples of OpenMMLab), not into modules.

    Args:
        value (Any): What a network returns or takes.
        seen (set[int], optional): Ids of what has been looked into.
    """
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (nn.Module, type)) or id(value) in seen:
        return []
    seen.add(id(value))
    if isinstance(value, Mapping):
        value = list(value.values())
    elif not isinstance(value, (list, tuple)):
        names = (*getattr(value, '__dict__',
                          ()), *getattr(type(value), '__slots__', ()))
        value = [getattr(value, name, None) for name in names]
    return [tensor for part in value for tensor in tensors_of(part, seen)]


def device_of(model: nn.Module) -> torch.device:
    """Where a network is: the device of its first parameter."""
    return next((p.device for p in model.parameters()), torch.device('cpu'))


def named_tensors(model: nn.Module) -> Dict[str, Tensor]:
    """Every parameter and buffer itself, shared ones under each name."""
    return dict((*model.named_parameters(remove_duplicate=False),
                 *model.named_buffers(remove_duplicate=False)))


def state_shapes(model: nn.Module) -> Dict[str, List[int]]:
    """The shape of every tensor in a network's state dict, by full name."""
    return {
        name: list(value.shape)
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }


def shape_differences(expected: Mapping[str, List[int]],
                      found: Mapping[str, List[int]]) -> List[str]:
    """Put into words how shapes by name differ from what is expected.

    Returns:
        list[str]: One phrase per difference, shapes before names.
    """
    differ = [
        f'{name} has shape {tuple(found[name])} instead of {tuple(shape)}'
        for name, shape in expected.items()
        if name in found and list(found[name]) != list(shape)
    ]
    missing = [f'{name} is missing' for name in expected if name not in found]
    return differ + missing + [
        f'{name} is not expected' for name in found if name not in expected
    ]


def fingerprint(shapes: Mapping[str, Any]) -> str:
    """SHA-256 of the sorted names and shapes of a state dict, in hexadecimal.

    Two networks with the same have the same architecture as far as their
    weights know.
    """
    lines = [f'{name}:{list(shapes[name])}' for name in sorted(shapes)]
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()
