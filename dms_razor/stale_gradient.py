# Copyright (c) dms_razor contributors. All rights reserved.
"""Gradients of the masks that belong to a step which never came."""
from typing import Iterable

from torch import Tensor

from .core.bank import Bank


def drop_stale_gradient(bank: Bank, weights: Iterable[Tensor]) -> bool:
    """Forget what the masks hold of a step that was skipped.

    A ``GradScaler`` that sees infinities skips ``optimizer.step`` and with it
    the bank's update. ``zero_grad`` clears the weights, which it knows, and
    not the masks, which it does not. Between the micro-batches of one
    accumulated step, however, the weights do have gradients.

    Args:
        bank (Bank): The search's state.
        weights (Iterable[Tensor]): What the optimizer trains.

    Returns:
        bool: Whether something was dropped.
    """
    if bank.masks.grad is None:
        return False
    weights = list(weights)
    # zero_grad(set_to_none=False) leaves zeros.
    cleared = bool(weights) and not any(
        weight.grad is not None and bool(weight.grad.any())
        for weight in weights)
    stale = cleared or not bool(bank.masks.grad.isfinite().all())
    if stale:
        bank.drop_gradient()
    return stale
