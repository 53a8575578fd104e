# Copyright (c) dms_razor contributors. All rights reserved.
"""Low-rank adapters as PEFT puts them in, without PEFT.

Its class is known by its name and the module that it is from; names of the
parts, what they compute and how they are merged are those of PEFT's LoRA.
"""
import torch
from torch import nn

BaseTunerLayer = type('BaseTunerLayer', (),
                      dict(__module__='peft.tuners.tuners_utils'))


class Adapted(nn.Module, BaseTunerLayer):
    """``W x + 2 B A x``, the rank being that of ``A``."""

    def __init__(self, base, rank):
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        dtype = base.weight.dtype
        if not dtype.is_floating_point:  # packed
            dtype = torch.float64
        self.lora_A = nn.ModuleDict(
            dict(
                default=nn.Linear(
                    base.in_features, rank, bias=False, dtype=dtype)))
        self.lora_B = nn.ModuleDict(
            dict(
                default=nn.Linear(
                    rank, base.out_features, bias=False, dtype=dtype)))

    def forward(self, x):
        return self.base_layer(x) + 2 * self.lora_B['default'](
            self.lora_A['default'](x))

    @torch.no_grad()
    def merged(self):
        """The layer alone, with what the adapter adds in its weight."""
        self.base_layer.weight += 2 * (
            self.lora_B['default'].weight @ self.lora_A['default'].weight)
        return self.base_layer


def adapt(net, names, rank=3):
    """Put adapters around layers of these names, in place; others rest."""
    net.requires_grad_(False)
    for path, layer in list(net.named_modules()):
        parent, _, name = path.rpartition('.')
        if name in names:
            setattr(net.get_submodule(parent), name, Adapted(layer, rank))
    return net


def merge(net):
    """Merge all adapters, in place."""
    for path, layer in list(net.named_modules()):
        if isinstance(layer, Adapted):
            parent, _, name = path.rpartition('.')
            setattr(net.get_submodule(parent), name, layer.merged())
    return net
