# Copyright (c) dms_razor contributors. All rights reserved.
"""What a training loop asks of a search: a loss term and an update a step."""
from typing import Callable, List, Optional

import torch
from torch import Tensor, nn

from .search_view import SearchView
from .stale_gradient import drop_stale_gradient


class SearchStep(SearchView):
    """The moving half of :class:`dms_razor.search.Search`.

    Attributes:
        constraint (callable): Weighted resource loss of the current and the
            target cost.
        total_steps (int): Length of the search proper.
        width_only_steps (int): Length of the phase with frozen depth.
        own_clock (bool): Whether :meth:`step` moves the target's clock.
    """
    constraint: Callable
    total_steps: int
    width_only_steps: int
    own_clock: bool = True
    _handle = None
    _term: Optional[Tensor] = None
    _losses: bool = False
    _weights: List[nn.Parameter] = []

    @property
    def attached(self) -> bool:
        """Whether an optimizer drives the ratios."""
        return self._handle is not None

    def attach(self, optimizer: torch.optim.Optimizer) -> 'SearchStep':
        """Let every ``optimizer.step()`` update the ratios first.

        A step that a ``GradScaler`` skips because of infinite gradients
        skips the ratios too.

        Args:
            optimizer (torch.optim.Optimizer): The weights' optimizer; it does
                not get to know the ratios.

        Returns:
            Search: self.
        """
        if self._handle is not None:
            self._handle.remove()
        self._weights = [
            weight for group in optimizer.param_groups
            for weight in group['params'] if weight.requires_grad
        ]
        self._handle = optimizer.register_step_pre_hook(self._before_step)
        return self

    def loss(self, task_loss: Tensor) -> Tensor:
        """The loss to call backward on (paper, eq. 5): L_task + λ_res·L_res.

        Args:
            task_loss (Tensor): The task's loss, a scalar.

        Returns:
            Tensor: A scalar with the task's gradient. L_res is in it as a
            number; its gradient goes to the ratios in closed form.
        """
        return task_loss + self.resource_term().to(task_loss.dtype)

    def resource_term(self) -> Tensor:
        """λ_res·L_res as a number, with the anchor that measures loss scales.

        To be added once to each loss that is backpropagated. The anchor p − p
        is zero; its gradient is the factor by which AMP and gradient
        accumulation scale the loss, and the bank divides by it.

        Returns:
            Tensor: A scalar.
        """
        self._losses = True
        drop_stale_gradient(self.bank, self._weights)
        if self._term is None:
            with torch.no_grad():
                self._term = self._resource_loss(self.bank.counts(),
                                                 self.bank.resource_masks())
        anchor = self.bank.loss_anchor()
        return self._term.to(anchor.dtype) + anchor

    def step(self) -> bool:
        """Update importance and ratios from the gradients of one step.

        Called by the optimizer's hook; call it by hand, after backward, only
        in a loop without an optimizer (ratios alone, the paper's DMS_p-).

        Returns:
            bool: False if the gradient was not finite and was dropped.
        """
        done = self.bank.update(self._resource_loss)
        self._term = None
        if self.own_clock:
            self.advance(self.step_count + 1)
        return done

    def advance(self, step: int) -> None:
        """Set the clock of the target schedule, and freeze depth in time.

        :meth:`step` moves the clock by itself. A loop whose schedule counts
        something else, such as iterations of which several make one optimizer
        step, sets ``search.own_clock = False`` and calls this.

        Args:
            step (int): Steps that lie behind.
        """
        self.step_count = step
        self._term = None
        if (self.width_only_steps and step >= self.total_steps
                and not self.bank.depth_frozen):
            self.freeze_depth()

    def freeze_depth(self) -> None:
        """Project onto the budget and fix which blocks stay.

        From here on depth is hard in the forward pass and in the resource,
        and only widths move (METHOD: section 3).
        """
        kept = self.project()
        self.bank.set_kept(kept)
        self.bank.freeze_depth()
        self._term = None

    def _before_step(self, optimizer, args, kwargs) -> None:
        """The optimizer's pre-hook."""
        self.step()

    def _resource_loss(self, counts: Tensor, masks: Tensor) -> Tensor:
        """λ_res·L_res of soft counts (U, ) and masks (E, ); a scalar."""
        cost = self.space.resource(counts, masks, self.metric)
        return self.constraint(cost, self.current_target)
