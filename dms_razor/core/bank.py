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
from typing import Any, Callable, Dict, Optional

import torch
from torch import Tensor, nn

from . import importance as metrics
from .bank_state import export_state, restore_state
from .layout import Layout
from .reduce import mean_over_ranks
from .topk import (hard_masks, initial_order, kept_counts, rank_order,
                   ranks_from_order, ratio_bounds, soft_masks)

MODES = ('soft', 'hard', 'off')

# Masks below this are 0. Left alone they would run through float32's
# denormals, on which a CPU computes up to a hundred times slower, and so
# would the weights that they multiply.
_TINY = 1e-19

# (counts [U], masks [E]) -> loss, a scalar that is differentiable in both.
ResourceLoss = Callable[[Tensor, Tensor], Tensor]


class Bank(nn.Module):
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
        super().__init__()
        metrics.check_metric(importance)
        if not 0 <= decay < 1:
            raise ValueError(f'decay of the importance is {decay}, it must '
                             'lie in [0, 1)')
        if not 0 < lr < float('inf'):
            raise ValueError(f'lr of the ratios is {lr}, it must be positive '
                             'and finite')
        if not dtype.is_floating_point:
            raise ValueError(f'masks cannot be {dtype}, use a float type')
        self.layout = layout
        self.metric, self.decay, self.lr = importance, decay, lr
        self.updates = 0
        self.depth_frozen = False
        device = layout.device
        # Ratios start at 0 even where a unit may not keep all its elements
        # (most < N): nothing is pruned by the random order. The first update
        # clamps them into their bounds.
        self.ratios = torch.zeros(layout.U, dtype=torch.float64, device=device)
        self.importance = torch.zeros(
            layout.E, dtype=torch.float64, device=device)
        self.order = initial_order(layout, seed)
        self._low, self._high = ratio_bounds(layout)
        self._dtype = dtype
        self._mode = 'soft'
        self.refresh()

    # ------------------------------------------------------------- masks
    @property
    def mode(self) -> str:
        """What layers read: 'soft' masks, 'hard' 0-1 masks, or 'off', 1."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f'mask mode "{mode}" is not known, use one of '
                             f'{", ".join(MODES)}')
        self._mode = mode

    @property
    def current(self) -> Tensor:
        """The masks that layers read in the present mode, ``[E]``."""
        if self._mode == 'soft':
            return self.masks
        if self._mode not in self._constant:
            # Made outside inference mode, whoever asks first: training may
            # read the same tensor later.
            with torch.inference_mode(False):
                keep = (
                    self.hard() if self._mode == 'hard' else torch.ones_like(
                        self.order, dtype=torch.bool))
                self._constant[self._mode] = keep.to(self._dtype)
        return self._constant[self._mode]

    def refresh(self) -> None:
        """Work out ranks and masks from ratios and importances."""
        with torch.inference_mode(False), torch.no_grad():
            self.order = rank_order(self.importance, self.layout, self.order)
            self.ranks = ranks_from_order(self.order, self.layout)
            masks = self._soft(self.ratios)
            masks = torch.where(masks < _TINY, 0., masks)
            self.masks = masks.to(self._dtype, copy=True).requires_grad_()
            self.scale = self.masks.new_ones(()).requires_grad_()
            self._constant: Dict[str, Tensor] = {}

    def _soft(self, ratios: Tensor) -> Tensor:
        """Soft masks, hard where depth is frozen; float64 ``[E]``."""
        masks = soft_masks(ratios, self.ranks, self.layout)
        if self.depth_frozen:
            masks = torch.where(self.layout.depth_elements,
                                self.hard().double(), masks)
        return masks

    def kept(self) -> Tensor:
        """The k of every unit: elements kept a group, int64 ``[U]``."""
        return kept_counts(self.ratios, self.layout)

    def hard(self) -> Tensor:
        """True for the k most important of each group, bool ``[E]``."""
        return hard_masks(self.kept(), self.ranks, self.layout)

    # ---------------------------------------------- inputs of the resource
    def counts(self,
               hard: bool = False,
               ratios: Optional[Tensor] = None) -> Tensor:
        """Kept elements a group as the resource figure reads them.

        Args:
            hard (bool): Whole numbers k instead of the continuous (1 − a)N.
                Defaults to False.
            ratios (Tensor, optional): Ratios to differentiate in, ``[U]``.
                Defaults to the bank's.

        Returns:
            Tensor: float64 ``[U]``. Whole for depth that is frozen.
        """
        kept = self.kept().double()
        if hard:
            return kept
        ratios = self.ratios if ratios is None else ratios
        counts = (1 - ratios) * self.layout.size
        if self.depth_frozen:
            counts = torch.where(self.layout.is_depth, kept, counts)
        return counts

    def resource_masks(self,
                       hard: bool = False,
                       ratios: Optional[Tensor] = None) -> Tensor:
        """Masks for the resource figure, on a path of their own.

        They are not the leaf that the network reads, so a gradient of the
        resource loss never reaches the importances. Arguments as in
        :meth:`counts`; float64 ``[E]``.
        """
        if hard:
            return self.hard().double()
        return self._soft(self.ratios if ratios is None else ratios)

    # ------------------------------------------------------------- update
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
            # Its importances rest too: a new order would swap blocks.
            ratios = torch.where(self.layout.is_depth, self.ratios, ratios)
            importance = torch.where(self.layout.depth_elements,
                                     self.importance, importance)
        self.ratios, self.importance = ratios, importance
        self.updates += 1
        self.refresh()
        return True

    def _check_gradient(self) -> None:
        if self.masks.grad is None:
            reason = (
                f'the masks are in mode "{self._mode}", set bank.mode = '
                '"soft" to train' if self._mode != 'soft' else
                'no layer read bank.current in a forward pass with gradients '
                'since the last update, or loss.backward() was not called')
            raise RuntimeError(f'the masks have no gradient: {reason}')
        if self.scale.grad is None:
            raise RuntimeError(
                'the scale of the loss is not known: add bank.loss_anchor() '
                'to the loss before backward (it is 0, its gradient is the '
                'scale)')

    def _ratio_gradient(self, grad: Tensor,
                        resource_loss: Optional[ResourceLoss]) -> Tensor:
        """∂(L_task + λ_res·L_res)/∂a, float64 ``[U]``."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = self.ratios.clone().requires_grad_()
            masks = self._soft(leaf)
            outputs, grads = [masks], [grad]
            if resource_loss is not None:
                loss = resource_loss(self.counts(ratios=leaf), masks)
                if loss.requires_grad:
                    outputs.append(loss)
                    grads.append(torch.ones_like(loss))
            return torch.autograd.grad(outputs, [leaf], grads)[0]

    # -------------------------------------------------------- set by hand
    @torch.no_grad()
    def set_kept(self, kept: Tensor) -> None:
        """Set the ratios to exactly ``1 − k/N``.

        Args:
            kept (Tensor): Kept elements a group, whole numbers, ``[U]``.

        Raises:
            ValueError: If a count is outside the bounds of its unit.
        """
        kept = torch.as_tensor(kept, device=self.ratios.device)
        if kept.shape != self.ratios.shape:
            raise ValueError(f'kept counts have shape {tuple(kept.shape)}, '
                             f'the bank has {self.layout.U} units')
        for unit, k in zip(self.layout.units, kept.tolist()):
            if not (unit.least <= k <= unit.most and k == int(k)):
                raise ValueError(
                    f'unit "{unit.name}" cannot keep {k} of {unit.size} '
                    f'elements, only whole numbers from {unit.least} to '
                    f'{unit.most}')
        self.ratios = 1 - kept.double() / self.layout.size
        self.refresh()

    @torch.no_grad()
    def freeze_depth(self, kept: Optional[Tensor] = None) -> None:
        """From now on only width trains (the paper's extra epochs).

        Depth ratios are set to what they round to and stay there; depth
        masks are 0 or 1, in the network and in the resource figure.

        Args:
            kept (Tensor, optional): Kept counts ``[U]``, of which the depth
                units' are used. Defaults to what the ratios round to.
        """
        kept = self.kept() if kept is None else torch.as_tensor(
            kept, device=self.ratios.device)
        width = self.ratios
        self.set_kept(torch.where(self.layout.is_depth, kept, self.kept()))
        self.ratios = torch.where(self.layout.is_depth, self.ratios, width)
        self.depth_frozen = True
        self.refresh()

    # ------------------------------------------------------- nn.Module
    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'Bank':
        """Follow the network to another device or float type.

        The masks follow in type too; the state stays float64.
        """
        super()._apply(fn, *args, **kwargs)
        probe = fn(self.masks.detach()[:1])
        if probe.device != self.ratios.device or probe.dtype != self._dtype:
            self._dtype = probe.dtype
            self.layout = self.layout.to(probe.device)
            for name in ('ratios', 'importance', 'order', '_low', '_high'):
                setattr(self, name, getattr(self, name).to(probe.device))
            self.refresh()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Dict[str, Tensor]:
        """State of the search, tensors only.

        As part of a network's ``state_dict`` the bank adds nothing: it is
        saved beside the weights, never among them.
        """
        destination = args[0] if args else kwargs.get('destination')
        return export_state(self) if destination is None else destination

    def load_state_dict(self, state: Dict[str, Tensor], *args: Any,
                        **kwargs: Any) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: If the state is not that of a bank with these units.
                The bank is unchanged then.
        """
        restore_state(self, state)
        self.refresh()

    def extra_repr(self) -> str:
        return (f'{self.layout!r}, importance={self.metric}, lr={self.lr}, '
                f'mode={self._mode}')
