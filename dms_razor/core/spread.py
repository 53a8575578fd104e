# Copyright (c) dms_razor contributors. All rights reserved.
"""Numbers of units, given to all elements of each; backward adds them up.

The elements of a unit lie one behind the other, so that they can be added up
in one go. ``index_select``, whose backward does not know that, would take half
of the time of an update.
"""
from typing import Tuple

import numpy as np
import torch
from torch import Tensor

from .layout import Layout


def spread(values: Tensor, layout: Layout) -> Tensor:
    """The number of its unit for each element.

    Args:
        values (Tensor): Of the units, ``[U]``.
        layout (Layout): The units, on the same device.

    Returns:
        Tensor: ``[E]``.
    """
    return _Spread.apply(values, layout)


class _Spread(torch.autograd.Function):
    """``[U]`` to ``[E]``."""

    @staticmethod
    def forward(ctx, values: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return values.repeat_interleave(
            layout.elements_of_unit, output_size=layout.E)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, None]:
        return _Sum.apply(grad, ctx.layout), None


class _Sum(torch.autograd.Function):
    """``[E]`` to ``[U]``, the sum of each unit."""

    @staticmethod
    def forward(ctx, values: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        if values.device.type == 'cpu' and values.element_size() >= 4:
            return torch.from_numpy(
                np.add.reduceat(values.detach().numpy(), layout.starts))
        return values.new_zeros(layout.U).index_add_(0, layout.unit_of_element,
                                                     values)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, None]:
        return _Spread.apply(grad, ctx.layout), None
