# Copyright (c) dms_razor contributors. All rights reserved.
"""The resource constraint loss (paper, equations 5 to 7)."""
import torch
from torch import Tensor


def constraint_loss(current: Tensor, target: float) -> Tensor:
    """``log(current / target)`` above the target, 0 at and below it.

    The loss pulls the network down to the target and never pushes it up.
    Its gradient ``1 / current`` depends on the relative size of a change
    only, so one weight serves networks of any size.

    Args:
        current (Tensor): Resource figure, a positive scalar or ``[...]``.
        target (float): What it may be at most, positive, same unit.

    Returns:
        Tensor: Loss of the shape of ``current``, differentiable in it.

    Raises:
        ValueError: If the target is not positive.
    """
    if not target > 0:
        raise ValueError(f'the resource target is {target}, it must be '
                         'positive')
    # Strictly above: at the start the network lies exactly on its target.
    excess = torch.where(current > target, current / target, 1.)
    return torch.log(excess)
