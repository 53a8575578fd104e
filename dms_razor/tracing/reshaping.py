# Copyright (c) dms_razor contributors. All rights reserved.
"""Sizes that a module's code takes off its stream, and what they follow.

See :mod:`dms_razor.adapters.reshaping` for the modules that look them up.
"""
from typing import Dict, Iterable, Iterator, List, Tuple

import torch
from torch import Tensor

from ..adapters.reshaping import SIZE
from .labels import compress, core
from .units import Elements


def find_sizes(recorder, elements: Elements,
               paths: Iterable[str]) -> Dict[str, Dict[str, Tensor]]:
    """The sizes of some modules' reshapes along dimensions of channels.

    Positions keep the sizes that the code computes for them.

    Args:
        recorder (Recorder): A finished recording, maybe with a second one.
        elements (Elements): Element of every channel.
        paths (Iterable[str]): The modules.

    Returns:
        dict[str, dict[str, Tensor]]: Path -> name of a number -> element of
        each entry, -1 for what stays. A module in which one call does several
        things is left out.
    """
    found: Dict[str, Dict[str, Tensor]] = {path: {} for path in paths}
    owners = {id(recorder.modules[path]): path for path in found}
    unclear = set()
    for one in recorder.passes:
        for node in one.nodes:
            if node.site is None or id(node.site.module) not in owners:
                continue
            path = owners[id(node.site.module)]
            sizes = list(_sizes(node.labels[0], elements))
            if not sizes and node.call >= 0 and \
                    one.calls[node.call].path == path:
                sizes = _as_stream(node, one.calls[node.call])
            for dim, index in sizes:
                other = found[path].setdefault(f'{SIZE}{node.site.call}_{dim}',
                                               index)
                if not torch.equal(other, index):
                    unclear.add(path)
    return {
        path: sizes
        for path, sizes in found.items() if sizes and path not in unclear
    }


def _as_stream(node, call) -> List[Tuple[int, Tensor]]:
    """What is not understood, in the shape of what the module was given.

    Its channels stay, and so does their number, while the code may take it
    off a stream that is pruned.
    """
    width = 0 if call.source is None else core(compress(call.source)).numel()
    dims = [dim for dim, size in enumerate(node.shape) if size == width > 1]
    last = len(node.shape) - 1
    if len(dims) != 1 and last not in dims:
        return []
    dim = last if last in dims else dims[0]
    return [(dim, torch.full((width, ), -1))]


def _sizes(labels: Tensor, elements: Elements) -> Iterator[Tuple[int, Tensor]]:
    """Dimensions that hold channels, and the elements along each."""
    small = core(compress(labels))
    index = elements.index(small)
    if index.dim() == small.dim():
        index = index.unsqueeze(-1)
    for dim in range(small.dim()):
        if small.shape[dim] < 2:
            continue
        rows = index.movedim(dim, 0).reshape(small.shape[dim], -1,
                                             index.shape[-1])
        if bool((rows == rows[:1]).all()):
            # What may go lies along other dimensions.
            own = torch.full((len(rows), ), -1)
        else:
            own = rows[:, 0] if index.shape[-1] > 1 else rows[:, 0, 0]
        yield dim, own.clone()
