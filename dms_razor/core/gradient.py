# Copyright (c) dms_razor contributors. All rights reserved.
"""The gradient of the masks: where it comes from, and when it is stale."""
from typing import Callable, Iterable, List

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer


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


class Driver:
    """What a training loop has of a bank: its loss term and its step.

    The term is λ_res·L_res as a number, whose gradient reaches the ratios in
    closed form, and the bank's anchor, which measures loss scales. Asking for
    it is also the moment to see that the step before was skipped.

    Args:
        bank (Bank): The search's state.
        resource_loss (Callable): λ_res·L_res of counts ``[U]`` and masks
            ``[E]``.
    """

    def __init__(self, bank, resource_loss: Callable) -> None:
        self.bank, self.resource_loss = bank, resource_loss
        self._weights: List[Tensor] = []
        self._handle = self._value = self._masks = None
        self._used = False

    @property
    def attached(self) -> bool:
        """Whether an optimizer drives the bank."""
        return self._handle is not None

    def follow(self, optimizer: Optimizer, step: Callable) -> None:
        """Call ``step()`` before every step of ``optimizer``."""
        self.release()
        self._weights = [
            weight for group in optimizer.param_groups
            for weight in group['params'] if weight.requires_grad
        ]

        def hook(optimizer, args, kwargs) -> None:
            step()

        self._handle = optimizer.register_step_pre_hook(hook)

    def release(self) -> None:
        """Let the optimizer step alone."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def term(self) -> Tensor:
        """The term, a scalar; its value is worked out once a step."""
        self._used = True
        drop_stale_gradient(self.bank, self._weights)
        if self._value is None or self._masks is not self.bank.masks:
            self._masks = self.bank.masks  # new ones after every update
            with torch.no_grad():
                self._value = self.resource_loss(self.bank.counts(),
                                                 self.bank.resource_masks())
        anchor = self.bank.loss_anchor()
        return self._value.to(anchor.dtype) + anchor

    def forget(self) -> None:
        """Work the value out anew: the target has moved."""
        self._value = None

    def check_stepped(self) -> None:
        """Raise RuntimeError if there were losses and never a step."""
        if self._used and self.bank.updates == 0:
            raise RuntimeError(
                'this search has given losses and has not made a step: its '
                'ratios are where they began. Call search.attach(optimizer) '
                'before the loop, or search.step() after each backward.')
