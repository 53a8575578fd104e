# Copyright (c) dms_razor contributors. All rights reserved.
"""Linear layers of whole numbers, without the packages that make such."""
import copy

import torch
import torch.nn.functional as F
from torch import nn


class Numbers(nn.Parameter):
    """Packed numbers with their scales, which go to the layer when it runs;
    they are lost where one is made of its data alone."""

    def __deepcopy__(self, memo):
        made = Numbers(self.data.clone(), requires_grad=False)
        made.scale = copy.deepcopy(getattr(self, 'scale', None))
        return made


class Packed(nn.Linear):
    """Two numbers of 4 bits in a byte, ``[out * in / 2, 1]``, times a scale
    for each row; exact in any precision."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features, bias=False)
        weight = layer.weight.detach()
        scale = weight.abs().amax(1) / 7
        rounded = (weight / scale[:, None]).round() + 8
        pairs = rounded.to(torch.uint8).flatten().view(-1, 2)
        self.weight = Numbers(
            (16 * pairs[:, 0] + pairs[:, 1])[:, None], requires_grad=False)
        self.weight.scale, self.scale = scale, None
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)

    def numbers(self):
        """The weight, written out."""
        if self.weight.scale is not None:
            self.scale, self.weight.scale = self.weight.scale, None
        packed = self.weight.data.flatten()
        pairs = torch.stack((packed // 16, packed % 16), 1)
        whole = pairs.view(self.out_features, self.in_features)
        return (whole.to(self.scale) - 8) * self.scale[:, None]

    def forward(self, x):
        return F.linear(x, self.numbers().to(x.dtype), self.bias)


class Packing(Packed):
    """As bitsandbytes does on a CPU: evaluated without gradients, it keeps
    its weight in another way, which has none."""

    def __init__(self, layer):
        super().__init__(layer)
        self.support_avx512bf16_for_cpu, self.packed = True, False

    def _save_to_state_dict(self, *args):
        self.packed = False
        super()._save_to_state_dict(*args)

    def forward(self, x):
        self.packed |= (
            self.support_avx512bf16_for_cpu and not self.training
            and not x.requires_grad)
        return super().forward(x.detach() if self.packed else x)


def pack(net, kind=Packed, spared=('head', )):
    """Quantise all linear layers but some, in place; the rest is at rest."""
    net.requires_grad_(False)
    for path, layer in list(net.named_modules()):
        parent, _, name = path.rpartition('.')
        if type(layer) is nn.Linear and name not in spared:
            setattr(
                net.get_submodule(parent), name,
                kind(layer).train(layer.training))
    return net


def written_out(net):
    """The same network with the weights of packed layers written out."""
    for path, layer in list(net.named_modules()):
        parent, _, name = path.rpartition('.')
        if isinstance(layer, Packed):
            plain = nn.Linear(layer.in_features, layer.out_features, False)
            plain.weight = nn.Parameter(layer.numbers(), requires_grad=False)
            plain.bias = layer.bias
            setattr(net.get_submodule(parent), name, plain)
    return net
