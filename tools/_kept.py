# Copyright (c) dms_razor contributors. All rights reserved.
"""What a forward pass keeps for its backward."""
from typing import Callable, Dict, Tuple

import torch


def kept_bytes(model: torch.nn.Module, forward: Callable) -> int:
    """Bytes of all storages that one backward needs, but weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: Dict[int, Tuple[int, torch.Tensor]] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # Held, or its place in memory would be counted again for another.
            held[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        _ = forward()
    return sum(size for size, _ in held.values())
