# Copyright (c) dms_razor contributors. All rights reserved.
"""Where a search stands: ratios, importances and the masks that follow.

The reading half of :class:`dms_razor.core.bank.Bank`, and what sets it by
hand.
"""
from typing import Any, Callable, Dict, Optional

import torch
from torch import Tensor, nn

from .bank_state import check_kept, export_state, restore_state
from .layout import Layout
from .topk import (hard_masks, initial_order, kept_counts, rank_order,
                   ranks_from_order, ratio_bounds, soft_masks)

MODES = ('soft', 'hard', 'off', 'given')

# Masks between 0 and this are this: what float32 cannot see next to a mask of
# 1. A gradient meets up to five masks on its way to a weight; were they much
# smaller, their product would run into float32's denormals, on which a CPU
# computes up to a hundred times slower. At 0 a mask in front of a ReLU would
# lose its gradient (see dms_razor.tracing.folding).
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
