# Copyright (c) dms_razor contributors. All rights reserved.
"""The gradient of the masks: where it comes from, and when it is stale."""
from typing import Callable, Iterable, List, Optional

import torch
import torch.distributed as dist
from torch import Tensor


def check_gradient(bank) -> None:
    """Raise RuntimeError, with the reason, if masks or anchor have none."""
    if bank.masks.grad is None:
        reason = ('no layer read bank.current in a forward pass with '
                  'gradients since the last update, or loss.backward() '
                  'was not called')
        if bank.mode != 'soft':
            reason = (f'layers read them in mode "{bank.mode}", set '
                      'bank.mode = "soft" to train')
        raise RuntimeError(f'the masks have no gradient: {reason}')
    if bank.scale.grad is None:
        raise RuntimeError(
            'the scale of the loss is not known: call backward on '
            'search.loss(loss) instead of the loss; with a bank alone, '
            'add bank.loss_anchor() to it (it is 0, its gradient is the '
            'scale)')


def mean_over_ranks(vector: Tensor) -> Tensor:
    """Mean of ``vector`` over all ranks; itself outside distributed runs.

    The sum is the same, bit by bit, on every rank. In place of the argument.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return vector
    ranks = dist.get_world_size()
    if ranks > 1:
        dist.all_reduce(vector)
        vector /= ranks
    return vector


def drop_stale_gradient(bank, weights: Iterable[Tensor]) -> bool:
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


class LossTerm:
    """What a training loop adds to each loss that it backpropagates.

    That is λ_res·L_res as a number, whose gradient reaches the ratios in
    closed form, and the bank's anchor, which measures loss scales. Adding it
    is also the moment to see that the step before was skipped.

    Args:
        bank (Bank): The search's state.
        resource_loss (Callable): λ_res·L_res of counts ``[U]`` and masks
            ``[E]``.

    Attributes:
        weights (list[Tensor]): What the optimizer trains.
        used (bool): Whether a loop has asked for it.
    """

    def __init__(self, bank, resource_loss: Callable) -> None:
        self.bank, self.resource_loss = bank, resource_loss
        self.weights: List[Tensor] = []
        self.used = False
        self._value: Optional[Tensor] = None

    def __call__(self) -> Tensor:
        """The term, a scalar; its value is worked out once a step."""
        self.used = True
        drop_stale_gradient(self.bank, self.weights)
        if self._value is None:
            with torch.no_grad():
                self._value = self.resource_loss(self.bank.counts(),
                                                 self.bank.resource_masks())
        anchor = self.bank.loss_anchor()
        return self._value.to(anchor.dtype) + anchor

    def forget(self) -> None:
        """Work the value out anew: ratios or target have moved."""
        self._value = None
