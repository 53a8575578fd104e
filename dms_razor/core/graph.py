# Copyright (c) dms_razor contributors. All rights reserved.
"""Masks with their graph in the numbers that a search learns.

Between two updates the masks of the network, those of the resource and the
resource loss are the same for whoever asks. They are worked out once: masks
with the update before, the loss and its slope while the network runs, so that
an update, for which a GPU has to wait, has less to do.
"""
from typing import Any, Callable, Optional, Tuple

import torch
from torch import Tensor


class MaskGraph:
    """Both masks of a bank, and what is made of them.

    Args:
        bank (Bank, optional): The search's state; without one it fits none.

    Attributes:
        masks, expected (Tensor): Of the network and of the resource, see
            :meth:`.bank.Bank.both_masks`, float64 ``[E]``.
    """

    def __init__(self, bank: Any = None) -> None:
        self._of = self._state(bank)
        self._resource: Tuple = (None, None, None)
        if bank is None:
            return
        with torch.inference_mode(False), torch.enable_grad():
            self._leaf = bank.selector.numbers.clone().requires_grad_()
            self.masks, self.expected = bank.both_masks(numbers=self._leaf)

    def __deepcopy__(self, memo: dict) -> 'MaskGraph':
        return MaskGraph()

    def __reduce__(self) -> tuple:
        return MaskGraph, ()

    @staticmethod
    def _state(bank: Any) -> tuple:
        """What masks depend on: tensors by identity, and held, so that no
        other gets the same; in place the numbers alone are changed."""
        if bank is None:
            return ()
        numbers = bank.selector.numbers
        version = 0 if numbers.is_inference() else numbers._version
        return (id(numbers), version, id(bank.ranks), bank.depth_frozen,
                numbers, bank.ranks)

    def fits(self, bank: Any) -> bool:
        """Whether the masks are still those of a bank."""
        return self._of[:4] == self._state(bank)[:4]

    def task_slope(self, grad: Tensor) -> Tensor:
        """∂L_task/∂a ``[n]`` of ∂L_task/∂m ``[E]``."""
        return torch.autograd.grad(
            self.masks, self._leaf, grad, retain_graph=True)[0]

    def resource(self, bank: Any,
                 loss: Callable) -> Tuple[Tensor, Optional[Tensor]]:
        """The resource loss, its weight included, and its slope.

        Args:
            bank (Bank): The search's state.
            loss (callable): See :meth:`.bank.Bank.update`. One that equals
                that of the last call is not worked out again.

        Returns:
            tuple[Tensor, Tensor]: A number, and float64 ``[n]``, or None
            where it does not depend on the numbers.
        """
        if self._resource[0] is None or self._resource[0] != loss:
            with torch.inference_mode(False), torch.enable_grad():
                value = loss(bank.counts(ratios=self._leaf), self.expected)
                slope = torch.autograd.grad(
                    value, self._leaf, retain_graph=True)[0] \
                    if value.requires_grad else None
            self._resource = loss, value.detach(), slope
        return self._resource[1:]
