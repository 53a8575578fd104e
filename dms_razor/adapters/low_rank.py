# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers that PEFT has put low-rank adapters around (LoRA).

``y = W x + B A x``: A makes as many channels as the adapter has ranks. Those
are no part of the network, they go when it is merged, and are never searched.
"""
from typing import List, Mapping, Optional, Set

from torch import nn


def is_adapted(module: Optional[nn.Module]) -> bool:
    """Whether a module is a layer with adapters around it."""
    return any(kind.__name__ == 'BaseTunerLayer'
               and kind.__module__.partition('.')[0] == 'peft'
               for kind in type(module).__mro__)


def rank_layers(modules: Mapping[str, nn.Module]) -> Set[str]:
    """Paths of the layers whose outputs are the ranks of an adapter.

    Args:
        modules (Mapping[str, nn.Module]): Of a network, by path.
    """
    return {
        name
        for path, module in modules.items() if is_adapted(module)
        for name in _first_of(modules, path)
    }


def _first_of(modules: Mapping[str, nn.Module], path: str) -> Set[str]:
    """Paths of the layers A of the adapters around a layer."""
    start = f'{path}.lora_A.' if path else 'lora_A.'
    return {name for name in modules if name.startswith(start)}


def masked_parts(modules: Mapping[str, nn.Module],
                 path: str,
                 axis: int = 1) -> List[str]:
    """Where the mask of a layer's input is read: by the layer, or in it.

    ``W (m x) + B A (m x)``: the layer that the adapter is around, and A.

    Args:
        modules (Mapping[str, nn.Module]): Of a network, by path.
        path (str): Of the layer.
        axis (int): Of its weight, along which the mask lies.

    Raises:
        RuntimeError: The adapter computes something else.
    """
    if not is_adapted(modules.get(path)):
        return [path]
    parts = [f'{path}.base_layer', *sorted(_first_of(modules, path))]
    own = vars(modules[path])['_modules']
    if axis != 1 or own.get('lora_magnitude_vector') or not all(
            isinstance(modules.get(part), nn.Linear) for part in parts):
        raise RuntimeError(
            f'the layer "{path}" has got an adapter since it was traced that '
            'is no plain LoRA of a linear layer, so that it is not known what '
            'masks are for it. Leave it out of target_modules, or put the '
            'adapters in before the search.')
    return parts
