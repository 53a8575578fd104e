# Copyright (c) dms_razor contributors. All rights reserved.
"""Swin's windows without the batch size as a number, while a file is written.

mmpretrain's and mmdet's ``window_reverse`` computes the batch size with
``int()``. A tracer keeps it as a constant, so that the file takes batches of
one size alone, and torch.export refuses it. Here the batch is what ``view``
infers; the result is the same.
"""
import sys
from contextlib import ExitStack, contextmanager
from typing import Iterator
from unittest.mock import patch

from torch import Tensor


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
    with ExitStack() as stack:
        for name, function in _MENDED.items():
            attention = getattr(sys.modules.get(name), 'ShiftWindowMSA', None)
            if attention is not None:
                stack.enter_context(
                    patch.object(attention, 'window_reverse', function))
        yield
