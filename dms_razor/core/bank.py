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
from typing import Any, Callable, Dict, Optional

import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import importance as metrics
from .layout import Layout
from .topk import (hard_masks, initial_order, kept_counts, rank_order,
                   ranks_from_order, ratio_bounds, soft_masks)

# (counts [U], masks [E]) -> loss, a scalar that is differentiable in both.
ResourceLoss = Callable[[Tensor, Tensor], Tensor]


def check_lr(lr: float) -> None:
    """Raise ValueError if ``lr`` is not positive and finite."""
    if not (isinstance(lr, Real) and 0 < lr < float('inf')):
        raise ValueError(f'lr of the ratios is {lr!r}, it must be a positive '
                         'and finite number')


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


def export_state(bank: 'BankMasks') -> Dict[str, Tensor]:
    """Detached copies of ratios, importance, order and counters."""
    return dict(
        layout=bank.layout.fingerprint(),
        ratios=bank.ratios.clone(),
        importance=bank.importance.clone(),
        order=bank.order.clone(),
        updates=torch.tensor(bank.updates),
        depth_frozen=torch.tensor(bank.depth_frozen))


def restore_state(bank: 'BankMasks', state: Dict[str, Tensor]) -> None:
    """Put a state of :func:`export_state` into ``bank``.

    Raises:
        ValueError: If it is not a state, or that of other units. Nothing is
            changed then.
    """
    own = export_state(bank)
    remedy = ('; load a checkpoint of this search, made from the same model '
              'and the same unit settings')
    if not isinstance(state, dict) or set(state) != set(own):
        found = sorted(map(str, state)) if isinstance(state, dict) else state
        raise ValueError('this is not the state of a search: its keys should '
                         f'be {sorted(own)}, found {found}{remedy}')
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f'"{name}" of the saved search is a '
                             f'{type(value).__name__}, not a tensor{remedy}')
    _check_layout(bank, state['layout'], remedy)
    for name, value in state.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise ValueError(
                f'"{name}" of the saved search is {value.dtype} '
                f'{tuple(value.shape)}, it should be {own[name].dtype} '
                f'{tuple(own[name].shape)}{remedy}')
    device = bank.ratios.device
    ratios, importance, order = (
        state[name].detach().to(device, copy=True)
        for name in ('ratios', 'importance', 'order'))
    if not (torch.isfinite(ratios).all() and (ratios >= 0).all() and
            (ratios <= 1).all()):
        raise ValueError('"ratios" of the saved search lie outside [0, 1]'
                         f'{remedy}')
    if not (torch.isfinite(importance).all() and (importance >= 0).all()):
        raise ValueError('"importance" of the saved search is negative or '
                         f'not finite{remedy}')
    rows = bank.layout.row_of_element
    every = torch.arange(bank.layout.E, device=device)
    if not (order.sort().values.equal(every) and rows[order].equal(rows)):
        raise ValueError('"order" of the saved search does not name every '
                         f'element of every unit once{remedy}')
    bank.ratios, bank.importance, bank.order = ratios, importance, order
    bank.updates = int(state['updates'])
    bank.depth_frozen = bool(state['depth_frozen'])


def _check_layout(bank: 'BankMasks', saved: Tensor, remedy: str) -> None:
    own = bank.layout.fingerprint()
    if saved.shape[:1] != own.shape[:1]:
        raise ValueError(f'the saved search has {len(saved)} units, this '
                         f'network has {len(own)}{remedy}')
    if saved.shape != own.shape:
        raise ValueError('"layout" of the saved search is of another '
                         f'version{remedy}')
    differ = (saved.cpu() != own).any(1).nonzero().flatten().tolist()
    if differ:
        names = ', '.join(bank.layout.units[u].name for u in differ[:5])
        raise ValueError(f'{len(differ)} units of the saved search are not '
                         f'those of this network, the first: {names}{remedy}')


def check_kept(layout: Layout, kept: Tensor) -> Tensor:
    """``kept`` as int64 ``[U]`` on the layout's device.

    Raises:
        ValueError: If it is not a whole number within the bounds for every
            unit.
    """
    kept = torch.as_tensor(kept, device=layout.device)
    if kept.shape != layout.size.shape:
        raise ValueError(f'kept counts have shape {tuple(kept.shape)}, there '
                         f'are {layout.U} units')
    for unit, k in zip(layout.units, kept.tolist()):
        if not (unit.least <= k <= unit.most and k == int(k)):
            raise ValueError(
                f'unit "{unit.name}" cannot keep {k} of {unit.size} '
                f'elements, only a whole number from {unit.least} to '
                f'{unit.most}')
        if unit.choices is not None and int(k) not in unit.choices:
            raise ValueError(
                f'unit "{unit.name}" cannot keep {k} of {unit.size} '
                f'elements, its choices are {unit.choices}')
    return kept.long()


MODES = ('soft', 'hard', 'off', 'given')

# Masks between 0 and this are this: what float32 cannot see next to a mask of
# 1. A gradient meets up to five masks on its way to a weight; were they much
# smaller, their product would run into float32's denormals, on which a CPU
# computes up to a hundred times slower. At 0 a mask in front of a ReLU would
# lose its gradient (see dms_razor.tracing.sites).
_TINY = torch.finfo(torch.float32).eps


class BankMasks(nn.Module):
    """Ratios, importances and masks; see :class:`~.bank.Bank`."""

    def __init__(self, layout: Layout, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        if not dtype.is_floating_point:
            raise ValueError(f'masks cannot be {dtype}, use a float type')
        self.layout = layout
        self.updates = 0
        self.depth_frozen = False
        zeros = dict(dtype=torch.float64, device=layout.device)
        # Ratios start at 0 even where a unit may not keep all its elements
        # (most < N): nothing is pruned by the random order. The first update
        # clamps them into their bounds.
        self.ratios = torch.zeros(layout.U, **zeros)
        self.importance = torch.zeros(layout.E, **zeros)
        self.order = initial_order(layout, seed)
        self._low, self._high = ratio_bounds(layout)
        self._dtype = dtype
        self._mode = 'soft'
        self.refresh()

    @property
    def mode(self) -> str:
        """What layers read.

        'soft' masks, 'hard' 0-1 masks of what the ratios round to, 'off', 1,
        or those that were 'given' (:meth:`give`).
        """
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f'mask mode "{mode}" is not known, use one of '
                             f'{", ".join(MODES)}')
        if mode == 'given' and not self.given:
            raise ValueError('no masks were given since the last update')
        self._mode = mode

    @property
    def given(self) -> bool:
        """Whether :meth:`give` was called since the last update."""
        return 'given' in self._constant

    def give(self, keep: Tensor) -> None:
        """Lay masks aside for mode 'given', until the next update.

        Args:
            keep (Tensor): True for the elements of a network, bool ``[E]``.
        """
        with torch.inference_mode(False):
            self._constant['given'] = keep.to(self._dtype)

    @property
    def current(self) -> Tensor:
        """The masks that layers read in the present mode, ``[E]``."""
        if self._mode == 'soft':
            return self.masks
        if self._mode not in self._constant:
            # Made outside inference mode, whoever asks first: training may
            # read the same tensor later.
            with torch.inference_mode(False):
                keep = self.hard()
                if self._mode == 'off':
                    keep = torch.ones_like(keep)
                self._constant[self._mode] = keep.to(self._dtype)
        return self._constant[self._mode]

    def refresh(self) -> None:
        """Work out ranks and masks from ratios and importances."""
        with torch.inference_mode(False), torch.no_grad():
            self.order = rank_order(self.importance, self.layout, self.order)
            self.ranks = ranks_from_order(self.order, self.layout)
            masks = self._soft(self.ratios)
            masks = torch.where((masks > 0) & (masks < _TINY), _TINY, masks)
            self.masks = masks.to(self._dtype).requires_grad_()
            # Loss scales exceed float16: the anchor is never below float32.
            self.scale = torch.ones(
                (),
                dtype=torch.promote_types(self._dtype, torch.float32),
                device=masks.device).requires_grad_()
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

    @property
    def frozen_kept(self) -> Optional[Tensor]:
        """:meth:`kept` once depth is frozen, None before; int64 ``[U]``."""
        return self.kept() if self.depth_frozen else None

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
        if hard:
            return self.kept().double()
        ratios = self.ratios if ratios is None else ratios
        counts = (1 - ratios) * self.layout.size
        if self.depth_frozen:
            counts = torch.where(self.layout.is_depth,
                                 self.kept().double(), counts)
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

    @torch.no_grad()
    def set_kept(self, kept: Tensor) -> None:
        """Set the ratios to exactly ``1 − k/N``.

        Args:
            kept (Tensor): Kept elements a group, whole numbers, ``[U]``.

        Raises:
            ValueError: If a count is outside the bounds of its unit.
        """
        kept = check_kept(self.layout, kept)
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

        Raises:
            ValueError: If a count is outside the bounds of its unit.
        """
        kept = self.kept() if kept is None else check_kept(self.layout, kept)
        self.ratios = torch.where(self.layout.is_depth,
                                  1 - kept.double() / self.layout.size,
                                  self.ratios)
        self.depth_frozen = True
        self.refresh()

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'BankMasks':
        """Follow the network to another device or float type.

        The masks follow in type too; the state stays float64.
        """
        super()._apply(fn, *args, **kwargs)
        probe = fn(self.masks.detach()[:1].clone())
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


def make_bank(model: nn.Module, space, **settings: Any) -> Bank:
    """The bank of a space, on the device of the model.

    Args:
        model (nn.Module): The supernet.
        space (Space): Its space.
        **settings: ``importance``, ``decay``, ``lr``, ``seed``; see
            :class:`Bank`.
    """
    weight = next(model.parameters())
    # Low precision is for activations: masks stay in float32 at least.
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return Bank(space.layout, dtype=dtype, **settings).to(weight.device)
