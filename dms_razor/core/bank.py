# Copyright (c) dms_razor contributors. All rights reserved.
"""The state of a search, and its one update per optimizer step.

A bank holds the importances, ranks and masks of all units of a network, and
the selector that owns its learnable numbers, pruning ratios in the paper.
They are plain tensors, neither parameters nor buffers: optimizers, clipping,
EMA and ``state_dict`` of the network would all act on such.

One step::

    loss = criterion(network(x), y) + bank.loss_anchor()  # reads bank.current
    loss.backward()               # fills the gradient of the mask leaf
    bank.update(resource_loss)    # ratios, importances, new masks
    optimizer.step()

The masks of all units are one leaf tensor, so that after backward its
gradient is ``∂L_task/∂m`` of the whole network at once. It feeds importances
and ratios; the gradient of the resource loss takes a path of its own and
never reaches the importances. The ratios move by plain SGD (paper, appendix
A.3.5): ``a ← a − lr·(g_task + λ_res·g_res)``; or along ``g_task`` alone, and
then by the smallest shift along ``g_res`` that meets the budget exactly, which
is the same step with the λ_res that it takes (:mod:`.multiplier`).
"""
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Union

import torch
from torch import Tensor, nn

from .gradient import (at_numbers, from_first_rank, mean_over_ranks, slopes_of,
                       taken_gradient)
from .graph import MaskGraph
from .importance import Importance, make_importance
from .layout import Layout
from .motion import Motion
from .selectors import Selector, check_lr, make_selector
from .state import restore, saved
from .topk import (hard_masks, hardened, initial_order, rank_order,
                   ranks_from_order, visible)

# (counts [U], masks [E]) -> loss, a scalar that is differentiable in both.
ResourceLoss = Callable[[Tensor, Tensor], Tensor]

MODES = ('soft', 'hard', 'off', 'given')


class Bank(nn.Module):
    """Importances, ranks and masks of all units of a network.

    Args:
        layout (Layout): The units.
        importance (str | Callable): A name of
            :data:`~.importance.IMPORTANCES` or ``f(mask, grad, previous)``.
        decay (float, optional): Decay of a named importance; refused where
            it has none. Defaults to the paper's 0.99.
        selector (str | Callable | Selector): What is learnt, see
            :mod:`.selectors`.
        lr (float | str): Step size of the numbers, or 'auto', see
            :mod:`.step_size`. Defaults to the paper's 5e-3.
        seed (int): Seed of the order of elements before the first update.
        dtype (torch.dtype): Type of the masks that layers read. The state
            itself is always float64, and on the CPU: an update is many
            operations on little data, which a GPU would take longer to be
            told of.

    Attributes:
        selector (Selector): Owns the learnable numbers.
        importance (Tensor): float64 ``[E]``, 0 at first.
        order (Tensor): Element ids row by row, least important first, int64
            ``[E]``.
        ranks (Tensor): Rank of every element in its row, int64 ``[E]``.
        masks (Tensor): A leaf that requires a gradient, ``[E]``; soft, unless
            hardened. A new one after every update. On the network's device.
        scale (Tensor): Leaf behind :meth:`loss_anchor`, a scalar, there too.
        updates (int): Number of importance updates so far.
        depth_frozen (bool): Whether :meth:`freeze_depth` was called.
        hardened (bool): Whether :meth:`harden` was called.
        motion (Motion): How the numbers move, and who moved them.
        lr (float | str): May be changed during a search.

    Raises:
        ValueError: If importance, decay, selector, lr or dtype is out of
            range.
    """

    def __init__(self,
                 layout: Layout,
                 *,
                 importance: Union[str, Importance] = 'taylor',
                 decay: Optional[float] = None,
                 selector: Union[str, Callable, Selector] = 'dms',
                 lr: Union[float, str] = 5e-3,
                 seed: int = 0,
                 dtype: torch.dtype = torch.float32) -> None:
        check_lr(lr)
        if not dtype.is_floating_point:
            raise ValueError(f'masks cannot be {dtype}, use a float type')
        super().__init__()
        self.layout, self._dtype = layout.to('cpu'), dtype
        self._device = torch.device('cpu')
        self.importance_name = importance
        self._new_importance = make_importance(importance, layout, decay)
        self.selector = make_selector(selector, layout, seed)
        self.motion = Motion(self.selector, layout, lr)
        self.importance = torch.zeros(
            layout.E, dtype=torch.float64, device=layout.device)
        self.order = initial_order(layout, seed)
        self.updates, self._mode = 0, 'soft'
        self.depth_frozen = self.hardened = False
        self.refresh()

    @property
    def ratios(self) -> Tensor:
        """Pruning ratios a, float64 ``[U]``, 0 at first.

        'dms' learns just them; there they can be set, and refreshed.
        """
        return self.selector.ratios

    @ratios.setter
    def ratios(self, ratios: Tensor) -> None:
        self.selector.ratios = ratios

    @property
    def lr(self) -> Union[float, str]:
        """Step size of the numbers, or 'auto'."""
        return self.motion.lr

    @lr.setter
    def lr(self, lr: Union[float, str]) -> None:
        self.motion.lr = lr

    @property
    def mode(self) -> str:
        """What layers read: 'soft' masks, 'hard' 0-1 masks of what the ratios
        round to, 'off', 1, or those that were 'given' (:meth:`give`)."""
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
        """Lay a selection, bool ``[E]``, aside for mode 'given', until the
        next update."""
        with torch.inference_mode(False):
            self._constant['given'] = keep.to(self._device, self._dtype)

    @property
    def current(self) -> Tensor:
        """The masks that layers read in the present mode, ``[E]``."""
        if self._mode == 'soft':
            return self.masks
        if self._mode not in self._constant:
            # Made outside inference mode, whoever asks first: training may
            # read the same tensor later.
            with torch.inference_mode(False):
                self._constant[self._mode] = (
                    self.masks.new_ones(self.layout.E)
                    if self._mode == 'off' else self.hard().to(self.masks))
        return self._constant[self._mode]

    def refresh(self) -> None:
        """Work out ranks and masks from ratios and importances."""
        self._rank()
        self._mask()

    def _rank(self) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.order = rank_order(
                self.selector.score(self.importance), self.layout, self.order)
            self.ranks = ranks_from_order(self.order, self.layout)

    def _mask(self) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._graph = MaskGraph(self)
            self._soft = visible(self._graph.masks.detach())
            masks = hardened(self._soft, self.hard()) if self.hardened \
                else self._soft
            masks = masks.to(self._device, self._dtype)
            self.masks = masks.requires_grad_()
            # Loss scales exceed float16: the anchor is never below float32.
            self.scale = torch.ones(
                (),
                dtype=torch.promote_types(self._dtype, torch.float32),
                device=self._device).requires_grad_()
            self._constant: Dict[str, Tensor] = {}

    def kept(self) -> Tensor:
        """The k of every unit: elements kept a group, int64 ``[U]``."""
        return self.selector.kept()

    def hard(self, kept: Optional[Tensor] = None) -> Tensor:
        """True for the k most important of each group, bool ``[E]``; k of
        every unit as in ``kept``, by default :meth:`kept`."""
        return hard_masks(self.kept() if kept is None else kept, self.ranks,
                          self.layout)

    @property
    def frozen_kept(self) -> Optional[Tensor]:
        """:meth:`kept` once depth is frozen, None before; int64 ``[U]``."""
        return self.kept() if self.depth_frozen else None

    def counts(self,
               hard: bool = False,
               ratios: Optional[Tensor] = None) -> Tensor:
        """Kept elements a group as the resource reads them.

        Args:
            hard (bool): Whole numbers k instead of the continuous (1 − a)N.
                Defaults to False.
            ratios (Tensor, optional): Ratios, or whatever numbers the
                selector learns, to differentiate in. Defaults to the bank's.

        Returns:
            Tensor: float64 ``[U]``. Whole for depth that is frozen.
        """
        numbers = self.selector.numbers if ratios is None else ratios
        return self._read(
            self.selector.counts(numbers), self.kept, self.layout.is_depth,
            hard)

    def resource_masks(self,
                       hard: bool = False,
                       ratios: Optional[Tensor] = None) -> Tensor:
        """Masks for the resource, arguments as in :meth:`counts`; ``[E]``.

        They are not the leaf that the network reads, so a gradient of the
        resource loss never reaches the importances.
        """
        return self.both_masks(hard, ratios)[1] if hard or \
            ratios is not None else self.graph.expected.detach()

    @property
    def graph(self) -> MaskGraph:
        """The soft masks of now, with their graph."""
        if not self._graph.fits(self):
            self._graph = MaskGraph(self)
        return self._graph

    def both_masks(self,
                   hard: bool = False,
                   numbers: Optional[Tensor] = None) -> List[Tensor]:
        """Masks of the network and of the resource, ``[E]`` each."""
        numbers = self.selector.numbers if numbers is None else numbers
        soft = self.selector.soft(numbers, self.ranks)
        both = soft, self.selector.expected(numbers, self.ranks, soft)
        depth = self.layout.depth_elements
        return [self._read(masks, self.hard, depth, hard) for masks in both]

    def _read(self, soft: Tensor, whole: Callable, depth: Tensor,
              hard: bool) -> Tensor:
        """``whole()`` if asked for or, of depth, frozen; else ``soft``."""
        if hard:
            return whole().double()
        if not self.depth_frozen:
            return soft
        return torch.where(depth, whole().double(), soft)

    @torch.no_grad()
    def set_kept(self, kept: Tensor) -> None:
        """Set the ratios to exactly ``1 − k/N``, whole numbers k, ``[U]``.

        Raises:
            ValueError: If a count is outside the bounds of its unit.
        """
        self.selector.set_kept(
            self.layout.check_counts(kept),
            torch.ones_like(self.layout.is_depth))
        self.refresh()

    @torch.no_grad()
    def freeze_depth(self, kept: Optional[Tensor] = None) -> None:
        """From now on only width trains (the paper's extra epochs).

        Depth ratios are set to what they round to and stay there; depth
        masks are 0 or 1, in the network and in the resource.

        Args:
            kept (Tensor, optional): Kept counts ``[U]``, of which the depth
                units' are used. Defaults to what the ratios round to.

        Raises:
            ValueError: If a count is outside the bounds of its unit.
        """
        kept = self.kept() if kept is None else self.layout.check_counts(kept)
        self.selector.set_kept(kept, self.layout.is_depth)
        self.depth_frozen = True
        self.refresh()

    def harden(self, hard: bool = True) -> None:
        """From now on the network reads 0-1 masks, so that weights get used
        to what will be exported; ratios move by the slope of the soft ones
        (straight through), and importances are theirs."""
        if hard != self.hardened:
            self.hardened = hard
            self._mask()

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
    def update(self,
               resource_loss: Optional[ResourceLoss] = None,
               excess: Optional[ResourceLoss] = None) -> bool:
        """Move ratios and importances; once per optimizer step.

        The ratios stay where they are in the first update: until then all
        importances are equal and say nothing about what could go.

        Args:
            resource_loss (Callable, optional): Takes counts ``[U]`` and
                masks ``[E]``, both differentiable in the ratios, and returns
                the resource loss, its weight included.
            excess (Callable, optional): Instead of it, log(r_c / r_t); the
                numbers are shifted until it is 0, see :mod:`.multiplier`.

        Returns:
            bool: False if the gradient was not finite (e.g. an overflow of
            mixed precision). The step is dropped then, on all ranks alike.

        Raises:
            RuntimeError: If there is no gradient of masks or anchor.
        """
        grad = taken_gradient(self)
        task, slope = slopes_of(self, grad, resource_loss)
        # One collective for all, so that ratios are the same bit by bit on
        # all ranks even where a device adds up in no fixed order.
        every = mean_over_ranks(torch.cat((grad, task, slope)), self._device)
        grad, task, slope = every.split((len(grad), len(task), len(slope)))

        importance = self._new_importance(
            self._soft.to(self._dtype).double(), grad, self.importance)
        if not torch.isfinite(torch.cat((importance, slope))).all():
            return False
        self.motion.along(self.selector, slope, task, still=not self.updates)
        if self.depth_frozen:
            # Its ratios have no gradient. Its importances rest too: a new
            # order would swap blocks.
            importance = torch.where(self.layout.depth_elements,
                                     self.importance, importance)
        self.importance = importance
        self._rank()
        if excess is not None and self.updates:
            self.motion.meet(self.selector, partial(at_numbers, self, excess))
            self.selector.numbers = from_first_rank(self.selector.numbers,
                                                    self._device)
        self.motion.book(self.selector)
        self.updates += 1
        self._mask()
        return True

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'Bank':
        """Masks follow the network, its device and float type; no state."""
        super()._apply(fn, *args, **kwargs)
        probe = fn(self.masks.detach()[:1].clone())
        if (probe.device, probe.dtype) != (self._device, self._dtype):
            self._device, self._dtype = probe.device, probe.dtype
            self._mask()
        return self

    def state_dict(self,
                   destination: Optional[Dict[str, Tensor]] = None,
                   *args: Any,
                   **kwargs: Any) -> Dict[str, Tensor]:
        """Copies of the state of the search; nothing among weights."""
        if destination is not None:
            return destination
        return saved(self)

    def load_state_dict(self, state: Dict[str, Tensor], *args: Any,
                        **kwargs: Any) -> None:
        """Continue from :meth:`state_dict`; see :func:`.state.restore`."""
        restore(self, state)
        self.refresh()

    def extra_repr(self) -> str:
        return (f'{self.layout!r}, importance={self.importance_name}, '
                f'lr={self.lr}, mode={self.mode}')
