# Copyright (c) dms_razor contributors. All rights reserved.
"""A backward pass of PyTorch that can end the process.

torch 2.13 on a CPU writes behind the end of its memory in the backward pass of
a 1 × 1 convolution with a stride that reads fewer than 8 channels in
channels-last layout, which an image array that was permuted to NCHW has. The
process may die much later, or not at all. A narrow ResNet's shortcut is such
a layer, so that a search makes one of a network that had none.
"""
from typing import List

import torch
from torch import nn

#: Fewer channels than this.
CHANNELS = 8


def is_affected(version: str = torch.__version__) -> bool:
    """Whether this PyTorch is known to do it.

    Args:
        version (str): Of PyTorch.
    """
    return version.split('.')[:2] == ['2', '13'] and \
        torch.backends.mkldnn.is_available()


def risky_layers(model: nn.Module) -> List[str]:
    """Paths of the convolutions of a network that are such layers."""
    return [
        path for path, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and set(layer.kernel_size) == {1}
        and max(layer.stride) > 1 and layer.in_channels < CHANNELS
    ]


def warning(model: nn.Module) -> str:
    """What to tell who trains a network; '' if there is nothing to tell.

    Args:
        model (nn.Module): The network.
    """
    layers = risky_layers(model) if is_affected() else []
    if not layers:
        return ''
    return (
        f'{", ".join(layers)}: torch {torch.__version__} on a CPU can end the '
        'process in the backward pass of such a layer (1 × 1, with a stride, '
        f'fewer than {CHANNELS} channels) if images come in channels-last '
        'layout. Train on a GPU, give the network x.contiguous(), or search '
        f'with units={{…: dict(least={CHANNELS})}} or another PyTorch.')
