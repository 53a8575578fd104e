# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable top-k (paper, section 3.1), for all units in one flat call.

Step by step, with the paper's equation numbers:

1. [1] keep the ``k`` most important of ``N`` elements, where the pruning
   ratio ``a`` says how many: :func:`kept_counts`, :func:`hard_masks`.
2. [2] replace importances by their ranks, spread evenly over (0, 1):
   :func:`rank_order`, :func:`ranks_from_order`. Elements then leave one after
   the other while ``a`` grows at constant speed, which is what makes the
   search steerable.
3. [3] soft masks ``sigmoid(λ(c' − a))``, through which ``a`` gets a gradient:
   :func:`soft_masks`.

The paper leaves some points open. They are decided like this:

* **Mid-ranks.** ``c' = (rank + ½)/N`` with ranks from 0, so that the masks of
  a unit add up to about ``(1 − a)N``.
* **Identity at a = 0.** The printed mask is below 1 there and would disturb a
  pretrained network before anything is pruned. The mask is blended with 1
  while less than one element is to go: ``m = 1 − w + w·σ``, ``w = min(1,
  aN)``. It is exactly 1 at a = 0 and still has a gradient there.
* **An empty stage.** Depth masks carry a factor ``min(1, (1 − a)N)``, so that
  a = 1 is exactly 0 and a stage can lose its last block.
* **One k.** ``k = floor((1 − a)N + ½)`` in float64, halves up. Hard masks,
  reports and the exported network use this k and ranks, never ``m > ½``.
* **Ties.** Equal importances keep their previous order, so that a set of
  pruned elements does not flicker and all ranks of a distributed run agree.
"""
from typing import Optional, Tuple

import torch
from torch import Tensor

from .layout import Layout, Unit
from .spread import spread


def initial_order(layout: Layout, seed: int = 0) -> Tensor:
    """A random order to begin with, while all importances are equal.

    Drawn on the CPU, hence the same on every device and every rank.

    Returns:
        Tensor: Element ids, row by row, int64 ``[E]``.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(layout.E, generator=generator, dtype=torch.float64)
    return rank_order(noise.to(layout.device), layout)


def rank_order(importance: Tensor,
               layout: Layout,
               previous: Optional[Tensor] = None) -> Tensor:
    """Sort the elements of every row by importance.

    Rows of one size are sorted together, each by itself. Where their sizes are
    many, one flat sort with two keys, row and importance, does it: two stable
    passes, since a single float key "row + importance" would lose the
    importance in the rounding.

    Args:
        importance (Tensor): Float ``[E]``.
        layout (Layout): The units.
        previous (Tensor, optional): Previous order, row by row, int64
            ``[E]``; equal importances keep it. Defaults to the order in the
            network.

    Returns:
        Tensor: Element ids, row by row, least important first, int64 ``[E]``.
    """
    layout = layout.to(importance.device)
    if previous is None:
        previous = torch.arange(layout.E, device=importance.device)
    by_importance = importance.index_select(0, previous)
    if not layout.rows_by_size:
        order = previous.index_select(0, by_importance.argsort(stable=True))
        rows = layout.row_of_element.index_select(0, order)
        return order.index_select(0, rows.argsort(stable=True))
    order = torch.empty_like(previous)
    for places in layout.rows_by_size:
        within = by_importance.take(places).argsort(dim=1, stable=True)
        order.scatter_(0, places.flatten(),
                       previous.take(places.gather(1, within)).flatten())
    return order


def ranks_from_order(order: Tensor, layout: Layout) -> Tensor:
    """Rank of every element in its row, 0 for the least important.

    Args:
        order (Tensor): From :func:`rank_order`, int64 ``[E]``.
        layout (Layout): The units.

    Returns:
        Tensor: int64 ``[E]``.
    """
    layout = layout.to(order.device)
    # Rows are contiguous in both orders, so position i of the order is rank
    # place_in_row[i] of that row.
    return torch.empty_like(order).scatter_(0, order, layout.place_in_row)


def soft_masks(ratios: Tensor,
               ranks: Tensor,
               layout: Layout,
               temperature: Optional[Tensor] = None) -> Tensor:
    """Masks of equation 3, differentiable in the ratios.

    The gradient is the paper's ``−λ·m·(1 − m)`` wherever at least one element
    is to go. Nothing flows through the ranks, which are piecewise constant.

    Args:
        ratios (Tensor): Pruning ratios in [0, 1], float ``[U]``.
        ranks (Tensor): From :func:`ranks_from_order`, int64 ``[E]``.
        layout (Layout): The units.
        temperature (Tensor, optional): λ of each unit, ``[U]``. Defaults to
            the paper's, N for width and 4N for depth and heads.

    Returns:
        Tensor: Masks in [0, 1], float64 ``[E]``.
    """
    layout = layout.to(ratios.device)
    gain = layout.gain if temperature is None else temperature / layout.size
    removed = ratios * layout.removable  # aN, 0 where nothing can go
    blend = removed.clamp(max=1)
    presence = torch.where(layout.is_depth,
                           (layout.size - removed).clamp(max=1), 1.)
    # m = presence·(1 − blend + blend·σ(gain·(rank + ½ − aN))): everything
    # that is constant in a unit is worked out for units and spread once.
    gain, shift, factor, floor = (
        spread(per_unit, layout)
        for per_unit in (gain, gain * (removed - 0.5), presence * blend,
                         presence * (1 - blend)))
    return torch.addcmul(floor, factor, torch.sigmoid(gain * ranks - shift))


def kept_counts(ratios: Tensor, layout: Layout) -> Tensor:
    """The k of equation 1: elements kept in each group.

    Args:
        ratios (Tensor): Pruning ratios, ``[U]``.
        layout (Layout): The units.

    Returns:
        Tensor: ``floor((1 − a)N + ½)`` in float64, clamped to what the unit
        may keep; for a unit with choices the nearest of them, the larger one
        halfway; int64 ``[U]``.
    """
    layout = layout.to(ratios.device)
    return nearest_counts((1 - ratios.detach().double()) * layout.size, layout)


def nearest_counts(counts: Tensor, layout: Layout) -> Tensor:
    """Counts that units may keep, nearest to any numbers.

    Args:
        counts (Tensor): Wanted elements of a group, float64 ``[..., U]``.
        layout (Layout): The units, on the same device.

    Returns:
        Tensor: int64 ``[..., U]``.
    """
    if layout.has_choices:
        halves = torch.floor(2 * counts).long()
        halves = torch.minimum(halves.clamp(min=0), 2 * layout.size)
        return layout.count_of_half[layout.half_start + halves]
    kept = torch.floor(counts + 0.5).long()
    return torch.minimum(torch.maximum(kept, layout.least), layout.most)


def hard_masks(kept: Tensor, ranks: Tensor, layout: Layout) -> Tensor:
    """The k most important elements of every group.

    Args:
        kept (Tensor): Kept elements of a group, int64 ``[U]``.
        ranks (Tensor): From :func:`ranks_from_order`, int64 ``[E]``.
        layout (Layout): The units.

    Returns:
        Tensor: True where an element is kept, bool ``[E]``.
    """
    layout = layout.to(ranks.device)
    first = layout.size - kept.to(ranks.device)
    first = first.index_select(0, layout.unit_of_element)
    return ranks >= first


def ratio_bounds(layout: Layout) -> Tuple[Tensor, Tensor]:
    """Interval in which the ratio of each unit may move.

    Returns:
        tuple[Tensor, Tensor]: ``1 − most/N`` and ``1 − least/N``, float64
        ``[U]`` each. They are equal where nothing may be pruned.
    """
    size = layout.size.double()
    return 1 - layout.most / size, 1 - layout.least / size


def topk(importance: Tensor,
         ratio: Tensor,
         temperature: Optional[float] = None,
         kind: str = 'width') -> Tensor:
    """Soft masks of a single set of elements: the operator of the paper.

    Args:
        importance (Tensor): Importance of N elements, ``[N]``. Only its order
            matters.
        ratio (Tensor): Pruning ratio in [0, 1], a scalar.
        temperature (float, optional): λ. Defaults to the paper's for
            ``kind``.
        kind (str): 'width', 'depth', 'heads', 'qk', 'v' or
            'experts'.
            Defaults to 'width'.

    Returns:
        Tensor: Masks ``[N]``, differentiable in ``ratio`` and of its dtype.

    Examples:
        >>> ratio = torch.tensor(0.5, requires_grad=True)
        >>> masks = topk(torch.tensor([3., 1., 2., 4.]), ratio)
        >>> [round(m, 2) for m in masks.tolist()]
        [0.62, 0.18, 0.38, 0.82]
        >>> masks.sum().backward()
        >>> round(ratio.grad.item(), 2)
        -3.07
    """
    if importance.dim() != 1:
        raise ValueError('topk takes the importance of one set of elements, '
                         f'[N], not a tensor of shape '
                         f'{tuple(importance.shape)}; use soft_masks for '
                         'several')
    layout = Layout([Unit('topk', kind, importance.numel())])
    layout = layout.to(importance.device)
    if temperature is not None:
        temperature = ratio.new_tensor([temperature])
    ranks = ranks_from_order(rank_order(importance.detach(), layout), layout)
    masks = soft_masks(ratio.reshape(1), ranks, layout, temperature)
    return masks.to(ratio.dtype)


# What float32 cannot see next to a mask of 1. A gradient meets up to five
# masks on its way to a weight; were they much smaller, their product would run
# into float32's denormals, on which a CPU computes up to a hundred times
# slower. At 0 a mask in front of a ReLU would lose its gradient (see
# dms_razor.tracing.sites).
TINY = torch.finfo(torch.float32).eps


def visible(soft: Tensor) -> Tensor:
    """Soft masks, ``[E]``, none of them between 0 and float32's epsilon."""
    return torch.where((soft > 0) & (soft < TINY), TINY, soft)


def hardened(soft: Tensor, keep: Tensor) -> Tensor:
    """1 where ``keep`` is true, else as good as 0 but with a gradient."""
    return soft.clamp(max=TINY).masked_fill(keep, 1.)
