# Copyright (c) dms_razor contributors. All rights reserved.
"""Steps whose gradient is not finite: dropped, counted, and not for ever.

A loss that overflows once in mixed precision costs a step. One that is NaN
from some step on costs the search: the weights are NaN, and no ratio moves any
more. So a search ends when too many steps in a row were dropped.
"""
import logging
import warnings
from typing import Iterable, Optional

import torch
from torch import Tensor

from .gradient import drop_stale_gradient

#: So many dropped steps in a row end a search.
LIMIT = 10


class DroppedSteps:
    """Counts the steps of a search that were dropped.

    Args:
        limit (int, optional): So many in a row end the search; None lets it
            go on. Defaults to 10.

    Attributes:
        total (int): Steps of the optimizer whose gradient was not finite: its
            weights moved, the ratios did not.
        skipped (int): Steps that a ``GradScaler`` skipped.
        in_row (int): The last ones of both without a good one between them;
            of the skipped ones those alone whose loss was not scaled up any
            more.
        unused (int): Finite gradients in a row of which no step made use.
    """

    def __init__(self, limit: Optional[int] = LIMIT) -> None:
        self.limit = limit
        self.total = self.skipped = self.in_row = self.unused = 0

    def count(self, done: bool, step: int) -> None:
        """Take note of an update of the ratios.

        Args:
            done (bool): Whether the gradient was finite.
            step (int): The step, from 0 on.

        Raises:
            FloatingPointError: Too many in a row were not.
        """
        self.unused = 0
        if done:
            self.in_row = 0
            return
        self.total += 1
        self._one_more(step)

    def look(self, bank, gradients: Iterable[Optional[Tensor]],
             step: int) -> None:
        """Drop a gradient that no step has used, and take note of it.

        Args:
            bank (Bank): The search's state, when backward begins.
            gradients (Iterable[Tensor, optional]): Of what the optimizer
                trains.
            step (int): The step, from 0 on.

        Raises:
            FloatingPointError: Too many steps in a row were skipped although
                the loss is not scaled up any more.
        """
        gradient, scale = bank.masks.grad, bank.scale.grad
        if not drop_stale_gradient(bank, gradients):
            return
        if torch.isfinite(gradient).all():
            self._one_more_unused()
            return
        self.skipped += 1
        if scale is not None and float(scale) <= 1:
            self._one_more(step)

    def _one_more_unused(self) -> None:
        self.unused += 1
        if self.unused == LIMIT:
            warnings.warn(
                f'{LIMIT} times in a row backward was called and gradients '
                'were cleared, without a step of the optimizer to which the '
                'search is attached: the ratios stay where they are. If a '
                'GradScaler skips the steps, see that its scale comes down. '
                'Else attach the search to the optimizer that takes the '
                'steps; with PyTorch 2.1, '
                'which no longer calls the hooks of optimizers once '
                'torch.compile was used, call search.step() after backward, '
                'or use a later PyTorch')

    def _one_more(self, step: int) -> None:
        self.in_row += 1
        if self.in_row == 1:
            logging.getLogger('dms_razor').warning(
                'The gradient of step %d is not finite (NaN or infinite): the '
                'ratios stay where they are.', step + 1)
        if self.limit is not None and self.in_row >= self.limit:
            raise FloatingPointError(
                f'{self.in_row} steps in a row, up to step {step + 1}, had a '
                'gradient that is not finite (NaN or infinite): the training '
                'has diverged, and its weights are of no use. Go back to a '
                f'checkpoint before step {step + 2 - self.in_row}; then lower '
                'the learning rate, clip the gradients, look for NaN in the '
                'data, or use a GradScaler with float16. '
                'search.dropped.limit = None lets a search go on')

    def text(self) -> str:
        """What was dropped, in words; '' if nothing was."""
        found = [
            f'{number} {what}'
            for number, what in ((self.total, 'with a gradient that is not '
                                  'finite'), (self.skipped,
                                              'skipped by the loss scaling'))
            if number
        ]
        return f'steps dropped: {", ".join(found)}' if found else ''
