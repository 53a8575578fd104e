# Copyright (c) dms_razor contributors. All rights reserved.
"""Channels that dependent layers share, pruned by one differentiable top-k."""
from collections import defaultdict
from typing import Dict, Iterable, List, NamedTuple

import torch
from mmrazor.models.mutables.mutable_channel.units.channel_unit import Channel
from mmrazor.registry import MODELS
from torch import nn

from .base_unit import BankUnit


@MODELS.register_module()
class DiffTopkChannelUnit(BankUnit):
    """A width unit: layers whose channels come and go together.

    ``output_related`` names the layers that produce the channels or keep
    them apart (convolution, BatchNorm), ``input_related`` those that take
    them in; the masks act there (METHOD: section 2).
    """

    @property
    def mutable_prefix(self) -> str:
        """str: MMRazor's name for this kind of search group."""
        return 'channel'

    def relate(self, model: nn.Module, spans: Iterable['Span']) -> None:
        """Fill ``input_related`` and ``output_related``.

        Args:
            model (nn.Module): The traced network.
            spans (Iterable[Span]): Those of this unit.
        """
        # MMRazor's add_output_related compares with all channels before: a
        # wide attention layer has thousands of runs.
        for span in dict.fromkeys(spans):
            channel = Channel(
                span.path,
                model.get_submodule(span.path), (span.start, span.stop),
                is_output_channel=span.is_output)
            if span.is_output:
                self.output_related.append(channel)
            else:
                self.input_related.append(channel)


class Span(NamedTuple):
    """Channels ``start`` to ``stop`` of a layer, all of one unit.

    Attributes:
        path (str): Of the layer.
        start (int): First channel.
        stop (int): Channel after the last.
        is_output (bool): Channels that the layer gives, else that it takes.
    """
    path: str
    start: int
    stop: int
    is_output: bool


def spans_by_unit(space) -> Dict[int, List[Span]]:
    """Where the elements of each width unit lie in the layers' weights.

    Args:
        space (Space): What the tracer found.

    Returns:
        dict[int, list[Span]]: Unit number to contiguous runs of channels.
    """
    unit_of_element = space.layout.unit_of_element
    found: Dict[int, List[Span]] = defaultdict(list)
    for sites in space.slice_sites.values():
        for site in sites:
            path, _, tensor = site.name.rpartition('.')
            if tensor != 'weight' or site.axis > 1 or site.groups > 1:
                continue
            unit = torch.where(site.index < 0, -1,
                               unit_of_element[site.index.clamp(min=0)])
            units, lengths = unit.unique_consecutive(return_counts=True)
            stops = lengths.cumsum(0).tolist()
            for i, start, stop in zip(units.tolist(), [0] + stops, stops):
                if i >= 0:
                    found[i].append(Span(path, start, stop, site.axis == 0))
    return found
