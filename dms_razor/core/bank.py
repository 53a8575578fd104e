# Copyright (c) dms_razor contributors. All rights reserved.
"""The state of a search, and its one update per optimizer step.

A bank holds the ratios, importances and masks of all units of a network. They
are plain tensors, neither parameters nor buffers of the supernet: otherwise
optimizers, schedulers, gradient clipping, EMA and ``state_dict`` of the
network would all act on them.

One step::

    output = network(x)           # layers read bank.current, [E]
    loss = criterion(output, y) + bank.loss_anchor()
    loss.backward()               # fills the gradient of the mask leaf
    bank.update(resource_loss)    # ratios, importances, new masks
    optimizer.step()

The masks of all units are one leaf tensor, so that after backward its
gradient is ``∂L_task/∂m`` of the whole network at once. It feeds importances
and ratios; the gradient of the resource loss takes a path of its own and
never reaches the importances. The ratios move by plain SGD (paper, appendix
A.3.5): ``a ← a − lr·(g_task + λ_res·g_res)``.
"""
from numbers import Real
from typing import Callable, Optional

import torch
from torch import Tensor

from . import importance as metrics
from .bank_masks import BankMasks
from .layout import Layout
from .reduce import mean_over_ranks

# (counts [U], masks [E]) -> loss, a scalar that is differentiable in both.
ResourceLoss = Callable[[Tensor, Tensor], Tensor]


def check_lr(lr: float) -> None:
    """Raise ValueError if ``lr`` is not positive and finite."""
    if not (isinstance(lr, Real) and 0 < lr < float('inf')):
        raise ValueError(f'lr of the ratios is {lr!r}, it must be a positive '
                         'and finite number')


class Bank(BankMasks):
    """Ratios, importances and masks of all units of a network.

    Args:
        layout (Layout): The units.
        importance (str): Metric, a key of ``importance.METRICS``. Defaults
            to 'taylor'.
        decay (float): Decay of the importance. Defaults to 0.99.
        lr (float): Learning rate of the ratios. Defaults to 5e-3.
        seed (int): Seed of the order of elements before the first update.
            Defaults to 0.
        dtype (torch.dtype): Type of the masks that layers read. Defaults to
            torch.float32. The state itself is always float64.

    Attributes:
        ratios (Tensor): Pruning ratios a, float64 ``[U]``, 0 at first.
        importance (Tensor): float64 ``[E]``, 0 at first.
        order (Tensor): Element ids row by row, least important first, int64
            ``[E]``.
        ranks (Tensor): Rank of every element in its row, int64 ``[E]``.
        masks (Tensor): Soft masks, a leaf that requires a gradient,
            ``[E]``. A new one after every update.
        scale (Tensor): Leaf behind :meth:`loss_anchor`, a scalar.
        updates (int): Number of importance updates so far.
        depth_frozen (bool): Whether :meth:`freeze_depth` was called.
        lr (float): May be changed during a search.

    Raises:
        ValueError: If metric, decay, lr or dtype is out of range.
    """

    def __init__(self,
                 layout: Layout,
                 *,
                 importance: str = 'taylor',
                 decay: float = 0.99,
                 lr: float = 5e-3,
                 seed: int = 0,
                 dtype: torch.dtype = torch.float32) -> None:
        metrics.check_metric(importance)
        if not 0 <= decay < 1:
            raise ValueError(f'decay of the importance is {decay}, it must '
                             'lie in [0, 1)')
        check_lr(lr)
        super().__init__(layout, seed, dtype)
        self.metric, self.decay, self.lr = importance, decay, lr

    def loss_anchor(self) -> Tensor:
        """A zero to add to every loss before backward.

        Its gradient is the factor by which the loss was scaled: loss scaling
        of mixed precision, the division by the number of accumulated
        batches, and the sum over these. :meth:`update` divides by it.
        """
        return self.scale - self.scale.detach()

    def drop_gradient(self) -> None:
        """Forget what was accumulated since the last update."""
        self.masks.grad = None
        self.scale.grad = None

    @torch.no_grad()
    def update(self, resource_loss: Optional[ResourceLoss] = None) -> bool:
        """Move ratios and importances; once per optimizer step.

        The ratios stay where they are in the first update: until then all
        importances are equal and say nothing about what could go.

        Args:
            resource_loss (Callable, optional): Takes counts ``[U]`` and
                masks ``[E]``, both differentiable in the ratios, and returns
                the resource loss, its weight included. Defaults to None.

        Returns:
            bool: False if the gradient was not finite (e.g. an overflow of
            mixed precision). The step is dropped then, on all ranks alike.

        Raises:
            RuntimeError: If there is no gradient of masks or anchor.
        """
        self._check_gradient()
        grad = self.masks.grad.double() / self.scale.grad.double()
        masks = self.masks.detach().double()
        self.drop_gradient()

        ratio_grad = self._ratio_gradient(grad, resource_loss)
        # One collective for both, so that ratios are the same bit by bit on
        # all ranks even where a device adds up in no fixed order.
        grad, ratio_grad = mean_over_ranks(torch.cat(
            (grad, ratio_grad))).split((self.layout.E, self.layout.U))

        importance = metrics.update(self.importance, masks, grad,
                                    self.layout.place_in_row, self.metric,
                                    self.decay)
        if not torch.isfinite(torch.cat((importance, ratio_grad))).all():
            return False
        ratios = self.ratios
        if self.updates > 0:
            ratios = ratios - self.lr * ratio_grad
        ratios = torch.minimum(torch.maximum(ratios, self._low), self._high)
        if self.depth_frozen:
            # Its ratios have no gradient. Its importances rest too: a new
            # order would swap blocks.
            importance = torch.where(self.layout.depth_elements,
                                     self.importance, importance)
        self.ratios, self.importance = ratios, importance
        self.updates += 1
        self.refresh()
        return True

    def _check_gradient(self) -> None:
        if self.masks.grad is None:
            reason = ('no layer read bank.current in a forward pass with '
                      'gradients since the last update, or loss.backward() '
                      'was not called')
            if self.mode != 'soft':
                reason = (f'layers read them in mode "{self.mode}", set '
                          'bank.mode = "soft" to train')
            raise RuntimeError(f'the masks have no gradient: {reason}')
        if self.scale.grad is None:
            raise RuntimeError(
                'the scale of the loss is not known: call backward on '
                'search.loss(loss) instead of the loss; with a bank alone, '
                'add bank.loss_anchor() to it (it is 0, its gradient is the '
                'scale)')

    def _ratio_gradient(self, grad: Tensor,
                        resource_loss: Optional[ResourceLoss]) -> Tensor:
        """∂(L_task + λ_res·L_res)/∂a, float64 ``[U]``."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = self.ratios.clone().requires_grad_()
            masks = self.resource_masks(ratios=leaf)
            outputs, grads = [masks], [grad]
            if resource_loss is not None:
                loss = resource_loss(self.counts(ratios=leaf), masks)
                if loss.requires_grad:
                    outputs.append(loss)
                    grads.append(torch.ones_like(loss))
            return torch.autograd.grad(outputs, [leaf], grads)[0]

    def extra_repr(self) -> str:
        """What ``print`` shows beside the name."""
        return (f'{self.layout!r}, importance={self.metric}, lr={self.lr}, '
                f'mode={self.mode}')
