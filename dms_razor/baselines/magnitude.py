# Copyright (c) dms_razor contributors. All rights reserved.
"""The method 'l1': elements are worth the weights that make them."""
from typing import Dict, Iterator, Tuple

import torch
from torch import Tensor, nn

from ..search import Search
from ..space import SliceSite
from ..tracing.sites import attribute_names
from .methods import METHODS, comparable


@METHODS.register('l1')
def l1(search: Search) -> Tensor:
    """``Σ|w|`` of what makes an element.

    * An element of a width: the weights that write it, all rows of its
      channels, in every layer that writes into it (the branches of a
      residual stream, a depthwise convolution as well). Biases and the
      vectors of norms do not count.
    * A block: all its weights.

    Then both are divided by the mean of their unit. As all elements of a unit
    have the same layers, the mean over layers that torch-pruning takes is the
    same.
    """
    layout = search.space.layout
    sums = torch.zeros(layout.E, dtype=torch.float64)
    for site, weight in _written(search):
        others = [a for a in range(weight.dim()) if a != site.axis]
        size = weight.detach().abs().double().sum(others).cpu()
        for index in site.index.cpu().view(len(size), -1).T:
            held = index >= 0
            sums.index_add_(0, index[held], size[held])
    for block in search.space.blocks:
        sums[block.element] += sum(
            _size(search.model.get_submodule(part.path))
            for part in block.stand_ins)
    return comparable(sums, layout.to('cpu'))


def _written(search: Search) -> Iterator[Tuple[SliceSite, Tensor]]:
    """Axes of weights that elements are written along."""
    modules = dict(search.model.named_modules())
    weights: Dict[str, Tensor] = dict(
        search.model.named_parameters(remove_duplicate=False))
    for name, sites in search.space.slice_sites.items():
        weight = weights.get(name)
        if weight is None:
            continue  # a buffer
        path, _, tensor = name.rpartition('.')
        for site in sites:
            if _writes(modules[path], tensor, weight, site.axis):
                yield site, weight


def _writes(module: nn.Module, tensor: str, weight: Tensor, axis: int) -> bool:
    """Whether elements are written along this axis: not read, not scaled."""
    attribute = attribute_names(module, axis) if tensor == 'weight' else ''
    if attribute.startswith(('in_', 'out_')):
        return attribute.startswith('out_')
    # Vectors scale or shift. Of matrices with other names rows are outputs;
    # the channels of tables, of positions or words, are their last axis.
    vector = weight.numel() == max(weight.shape)
    rows = weight.dim() == 2 and attribute != 'embedding_dim'
    return not vector and not (rows and axis == 1)


def _size(block: nn.Module) -> float:
    """Sum of the absolute weights in a block."""
    return sum(weight.detach().abs().double().sum().item()
               for weight in block.parameters() if weight.dim() > 1)
