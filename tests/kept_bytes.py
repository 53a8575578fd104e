# Copyright (c) dms_razor contributors. All rights reserved.
"""What a forward pass keeps for its backward."""
import torch


def kept_bytes(net, forward):
    """Bytes that backward keeps beside the parameters, each memory once."""
    known = {p.untyped_storage().data_ptr() for p in net.parameters()}
    held = {}

    def pack(tensor):
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in known:
            held[memory.data_ptr()] = memory.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = forward()
    del out
    return sum(size for size, _ in held.values())
