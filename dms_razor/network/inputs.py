# Copyright (c) dms_razor contributors. All rights reserved.
"""What a network is called with: its nesting, in memory and in a manifest.

Example inputs are a tensor, a tuple or list of arguments, or a mapping of
keyword arguments. Inside them tensors may lie in tuples, lists, named tuples,
mappings of any type, data classes and data samples (what has the fields and
the metainfo of mmengine's ``BaseDataElement``), beside plain values.
"""
import copy
import dataclasses
import sys
from functools import partial
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import SubnetError
from .running import device_of, several


def as_arguments(inputs: Any, forward: Callable) -> Tuple[tuple, Callable]:
    """Bring example inputs to positional arguments.

    Args:
        inputs (Any): As for :func:`dms_razor.network.running.call`.
        forward (callable): As there.

    Returns:
        tuple: The arguments, and what is called as ``f(model, *arguments)``;
        keyword arguments are one of them, a mapping.
    """
    if isinstance(inputs, Mapping):
        return (inputs, ), partial(_by_name, forward)
    return several(inputs), forward


def _by_name(forward: Callable, model: nn.Module, named: Mapping) -> Any:
    return forward(model, **named)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same nesting with other tensors; what holds none is the same."""
    again = partial(map_tensors, function)
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, PackedSequence):  # its batch sizes stay on the CPU
        return PackedSequence(
            again(value.data), value.batch_sizes, again(value.sorted_indices),
            again(value.unsorted_indices))
    if isinstance(value, Mapping):
        return _mapping(type(value), {k: again(x) for k, x in value.items()})
    if isinstance(value, (list, tuple)):
        parts = [again(part) for part in value]
        return type(value)(*parts) if _named(value) else type(value)(parts)
    if _is_record(value) or _is_sample(value):
        value = copy.copy(value)
        names = [f.name for f in dataclasses.fields(value)
                 ] if _is_record(value) else list(vars(value))
        for name in names:
            object.__setattr__(value, name, again(getattr(value, name)))
    return value


def _mapping(kind: type, entries: Dict) -> Mapping:
    """A mapping of a class, a plain dict where it cannot be filled."""
    try:
        made = kind()
        for key, entry in entries.items():
            made[key] = entry
        return made
    except Exception:  # whatever a class of others asks for
        return entries


def _named(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, '_fields')


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_sample(value: Any) -> bool:
    """Whether this is a data sample of OpenMMLab's kind."""
    return all(
        callable(getattr(type(value), name, None))
        for name in ('items', 'metainfo_items', 'set_metainfo'))


def describe_inputs(inputs: Any) -> Any:
    """Describe example inputs, of tensors and plain values, in JSON's terms.

    Returns:
        Any: The same nesting, each tensor as ``{'shape': [1, 3, 224, 224],
        'dtype': 'float32'}``, each mapping or object as ``{'named': {…}}``
        with the name of its class as ``'type'``, if it is none of Python's.

    Raises:
        SubnetError: Something is neither a tensor nor a plain value.
    """
    if isinstance(inputs, Tensor):
        return dict(
            shape=list(inputs.shape), dtype=str(inputs.dtype).split('.')[-1])
    if isinstance(inputs, np.ndarray):
        return dict(array=list(inputs.shape), dtype=str(inputs.dtype))
    if isinstance(inputs, np.generic):
        inputs = inputs.item()
    if inputs is None or isinstance(inputs, (bool, int, float, str)):
        return dict(value=inputs)
    if isinstance(inputs, Mapping):
        return _described(inputs, inputs.items(), dict)
    if _named(inputs):
        return _described(inputs, inputs._asdict().items())
    if isinstance(inputs, (list, tuple)):
        return [describe_inputs(value) for value in inputs]
    if _is_record(inputs):
        return _described(inputs, ((f.name, getattr(inputs, f.name))
                                   for f in dataclasses.fields(inputs)))
    if _is_sample(inputs):
        described = _described(inputs, inputs.items())
        described['meta'] = describe_inputs(dict(inputs.metainfo_items()))
        return described
    raise SubnetError(
        f'The example inputs hold a {type(inputs).__name__}, which a '
        'manifest cannot describe. Pass tensors and plain values, in tuples, '
        'lists, mappings, data classes or data samples, and let forward= '
        'make what else the network takes of them.')


def _described(value: Any,
               entries: Iterable,
               plain: Optional[type] = None) -> Dict[str, Any]:
    named = {str(name): describe_inputs(entry) for name, entry in entries}
    kind = type(value)
    if kind is plain:
        return dict(named=named)
    return dict(named=named, type=f'{kind.__module__}:{kind.__qualname__}')


def make_inputs(description: Any, like: nn.Module) -> Any:
    """Make zeros of what :func:`describe_inputs` returned, where ``like`` is.

    MACs do not depend on their values.

    Raises:
        SubnetError: The class of an object is not imported.
    """
    if isinstance(description, list):
        return tuple(make_inputs(part, like) for part in description)
    if 'named' in description:
        named = description['named'].items()
        entries = {name: make_inputs(part, like) for name, part in named}
        if 'type' not in description:
            return entries
        meta = description.get('meta')
        return _make(description['type'], entries,
                     None if meta is None else make_inputs(meta, like))
    if 'value' in description:
        return description['value']
    if 'array' in description:
        return np.zeros(description['array'], description['dtype'])
    return torch.zeros(
        description['shape'],
        dtype=getattr(torch, description['dtype']),
        device=device_of(like))


def _make(name: str, entries: Dict[str, Any], meta: Optional[Dict]) -> Any:
    """An object of a class that is imported already: a manifest is data, and
    runs no code that the network does not bring along."""
    module, _, path = name.partition(':')
    kind: Any = sys.modules.get(module)
    for part in path.split('.'):
        kind = getattr(kind, part, None)
    if isinstance(kind, type):
        try:
            return _filled(kind, entries, meta)
        except Exception as error:  # of a class of others, or an odd manifest
            raise SubnetError(
                f'The inputs of the network hold a {path} of {module}, which '
                f'cannot be made of {sorted(entries)} ({error}). Use the '
                'version of its package that the subnet was exported with.'
            ) from error
    raise SubnetError(
        f'The network takes a {path} of {module}, which is not imported, so '
        'that its MACs cannot be counted. Import that module first.')


def _filled(kind: type, entries: Dict[str, Any], meta: Optional[Dict]) -> Any:
    if issubclass(kind, Mapping):
        return _mapping(kind, entries)
    if issubclass(kind, tuple) and hasattr(kind, '_fields'):
        return kind(**entries)
    if dataclasses.is_dataclass(kind):
        made = object.__new__(kind)
        for attribute, entry in entries.items():
            object.__setattr__(made, attribute, entry)
        return made
    if meta is not None and hasattr(kind, 'set_metainfo'):
        made = kind(metainfo=meta)
        for attribute, entry in entries.items():
            setattr(made, attribute, entry)
        return made
    raise TypeError('it is no mapping, record or data sample')


def to_device_of(model: nn.Module, inputs: Any) -> Any:
    """Example inputs, in the same nesting, where the network is."""
    device = device_of(model)
    return map_tensors(lambda tensor: tensor.to(device), inputs)
