# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers that PEFT has put low-rank adapters around (LoRA).

``y = W x + B A x``: A makes as many channels as the adapter has ranks. Those
are no part of the network, they go when it is merged, and are never searched.
"""
from typing import Mapping, Set

from torch import nn


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a layer with adapters around it."""
    return any(kind.__name__ == 'BaseTunerLayer'
               and kind.__module__.partition('.')[0] == 'peft'
               for kind in type(module).__mro__)


def rank_layers(modules: Mapping[str, nn.Module]) -> Set[str]:
    """Paths of the layers whose outputs are the ranks of an adapter.

    Args:
        modules (Mapping[str, nn.Module]): Of a network, by path.
    """
    found = set()
    for path, module in modules.items():
        if is_adapted(module):
            start = f'{path}.lora_A.' if path else 'lora_A.'
            found |= {name for name in modules if name.startswith(start)}
    return found
