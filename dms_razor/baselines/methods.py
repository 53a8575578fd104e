# Copyright (c) dms_razor contributors. All rights reserved.
"""What elements are scored by where nothing is searched.

A method is a callable that takes the search, and of ``batches``, ``loss``,
``seed`` and ``scope`` those that it names, and returns how much each element
is worth, float ``[E]`` and not negative. One more is one registration::

    @METHODS.register('norm')
    def norm(search):
        return comparable(..., search.space.layout)

    narrow(search, 'norm', scope='global')
"""
import torch
from torch import Tensor

from ..core.layout import Layout
from ..core.registry import Registry
from ..search import Search

METHODS = Registry('method of narrowing')

_LOWEST = .25  # share of the others' scores that a unit may draw at least


def comparable(scores: Tensor, layout: Layout) -> Tensor:
    """Divide scores by the mean of their unit.

    Layers differ in scale: without it one threshold for all would take whole
    layers. Where all scores of a unit are 0 they become 1, the mean.

    Args:
        scores (Tensor): Of elements, not negative, ``[E]``.
        layout (Layout): The units, on the same device.
    """
    unit = layout.unit_of_element
    sums = scores.new_zeros(layout.U).index_add(0, unit, scores)
    mean = (sums / (layout.size * layout.groups)).index_select(0, unit)
    return torch.where(mean > 0, scores / mean, 1.)


@METHODS.register('uniform')
def uniform(search: Search) -> Tensor:
    """Every unit keeps the same share, its first elements.

    The scores are the same shares in each unit, so that one threshold for
    all is the same network.
    """
    layout = search.space.layout.to(search.bank.importance.device)
    size = layout.size_of_row[layout.row_of_element]
    return 1 - (layout.place_in_row.double() + .5) / size


@METHODS.register('random')
def random(search: Search, seed: int, scope: str) -> Tensor:
    """Random elements; under 'global' also random counts.

    Random numbers alone would leave about the same share of every unit under
    one threshold. So those of a unit are multiplied by another between a
    quarter and 1, under 'global'.
    """
    layout = search.space.layout.to('cpu')
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(layout.E, generator=generator, dtype=torch.float64)
    if scope == 'local':
        return scores
    factors = torch.rand(layout.U, generator=generator, dtype=torch.float64)
    factors = _LOWEST + (1 - _LOWEST) * factors
    return scores * factors[layout.unit_of_element]
