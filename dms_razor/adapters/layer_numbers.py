# Copyright (c) dms_razor contributors. All rights reserved.
"""Numbers by which layers find their place in a cache of keys and values.

Layers of Hugging Face's decoders have a ``layer_idx``, and how far a text has
come is asked of the first layer's place in the cache; of networks with layers
of several types, of the first of each. Where that layer was removed nobody
writes there, and generation would begin again with every word.
"""
from collections import Counter
from typing import Dict, Optional, Sequence

from torch import nn

#: Attribute of a module with its layer's number.
NUMBER = 'layer_idx'


def layer_numbers(model: nn.Module) -> Counter:
    """How many modules of a network have each number."""
    return Counter(module.layer_idx for module in model.modules()
                   if type(vars(module).get(NUMBER)) is int)


def fill_first_places(model: nn.Module, before: Counter) -> None:
    """Let the first layer that is left have the first place, in place.

    Args:
        model (nn.Module): A network of which modules were removed.
        before (Counter): Its :func:`layer_numbers` before that.
    """
    if not _keeps_a_cache(model):
        return
    after, types = layer_numbers(model), _types(model)
    whole = {n for n, count in before.items() if after[n] == count}
    places: Dict[Optional[str], list] = {}
    for number in sorted(before):
        kind = types[number] if number < len(types) else None
        places.setdefault(kind, []).append(number)
    swapped: Dict[int, int] = {}
    for numbers in places.values():
        left = [number for number in numbers if number in whole]
        if left and left[0] != numbers[0]:
            swapped[left[0]], swapped[numbers[0]] = numbers[0], left[0]
    for module in model.modules() if swapped else ():
        number = vars(module).get(NUMBER)
        if type(number) is int:
            module.layer_idx = swapped.get(number, number)


def _keeps_a_cache(model: nn.Module) -> bool:
    """Whether numbers are places in a cache, and nothing else."""
    configs = [
        config for config in (vars(module).get('config')
                              for module in model.modules())
        if config is not None
    ]
    return any(hasattr(config, 'use_cache') for config in configs) and not any(
        getattr(config, 'scale_attn_by_inverse_layer_idx', False)
        for config in configs)


def _types(model: nn.Module) -> Sequence[str]:
    """The type of each layer, as a configuration lists them."""
    for module in model.modules():
        found = getattr(vars(module).get('config'), 'layer_types', None)
        if isinstance(found, (list, tuple)):
            return found
    return ()
