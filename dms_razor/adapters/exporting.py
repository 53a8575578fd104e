# Copyright (c) dms_razor contributors. All rights reserved.
"""Swin's windows without the batch size as a number, while a file is written.

mmpretrain's and mmdet's ``window_reverse`` computes the batch size with
``int()``. A tracer keeps it as a constant, so that the file takes batches of
one size alone, and torch.export refuses it. Here the batch is what ``view``
infers; the result is the same.
"""
import sys
from contextlib import contextmanager
from typing import Iterator

from torch import Tensor, nn


def _reverse(windows: Tensor, H: int, W: int, window_size: int) -> Tensor:
    """Windows (B * number, window, window, C) to (B, H, W, C)."""
    channels = windows.shape[-1]
    x = windows.view(-1, H // window_size, W // window_size, window_size,
                     window_size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, H, W, channels)


def _reverse_mmdet(self, windows: Tensor, H: int, W: int) -> Tensor:
    return _reverse(windows, H, W, self.window_size)


_MENDED = {
    'mmpretrain.models.utils.attention': staticmethod(_reverse),
    'mmdet.models.backbones.swin': _reverse_mmdet,
}
"""Module with a ShiftWindowMSA -> its window_reverse."""


@contextmanager
def windows_of_any_batch() -> Iterator[None]:
    """Exchange ``window_reverse`` in the body, where it is imported."""
    found = []
    try:
        for name, function in _MENDED.items():
            attention = getattr(sys.modules.get(name), 'ShiftWindowMSA', None)
            if attention is not None:
                found.append((attention, vars(attention)['window_reverse']))
                attention.window_reverse = function
        yield
    finally:
        for attention, function in found:
            attention.window_reverse = function


# MMRazor's Autoformer without its mutable, while a file is written.
#
# The backbone's forward asks a mutable for the present width of the
# embedding, which is the number of ones in a tensor; torch.export cannot know
# it. Where there is no mutable the forward takes its largest width, and for a
# plain network that is the same. The mutable itself stays in the network: its
# mask is in the checkpoints.

_MODULE = 'mmrazor.models.architectures.backbones.searchable_autoformer'


@contextmanager
def widths_without_mutables(network: nn.Module) -> Iterator[None]:
    """Set the mutables of Autoformer backbones aside in the body.

    Args:
        network (nn.Module): A network; others than Autoformer stay as they
            are, and so does a backbone that is not at its largest width.
    """
    backbone = getattr(sys.modules.get(_MODULE), 'AutoformerBackbone', None)
    aside = []
    try:
        for module in network.modules() if backbone is not None else ():
            if not isinstance(module, backbone):
                continue
            mutable = module._modules.get('mutable_embed_dims')
            if mutable is not None and int(
                    mutable.current_choice) == module.embed_dim_range[-1]:
                aside.append((module, mutable))
        for module, _ in aside:
            module._modules['mutable_embed_dims'] = None
        yield
    finally:
        for module, mutable in aside:
            module._modules['mutable_embed_dims'] = mutable
