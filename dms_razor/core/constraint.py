# Copyright (c) dms_razor contributors. All rights reserved.
"""The resource constraint loss (paper, equations 5 to 7)."""
from numbers import Real

import torch
from torch import Tensor


def check_weight(weight: float) -> float:
    """λ_res, unless it is below 0 or no number.

    Raises:
        ValueError: It is: the search would run away from its target.
    """
    if not (isinstance(weight, Real) and 0 <= weight < float('inf')):
        raise ValueError(f'loss_weight is {weight!r}; give a number from 0 '
                         'on, e.g. 1.0')
    return weight


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
