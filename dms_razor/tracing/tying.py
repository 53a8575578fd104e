# Copyright (c) dms_razor contributors. All rights reserved.
"""One ratio for all layers of a kind: ``layers='tied'``.

Transformers are built of one configuration: every layer has as many heads and
as wide a feed-forward network. Units that differ in the first number of their
paths alone, that of the layer, become one here, each of them a group of it:
elements are ranked in their own layer, and equally many of each layer stay.
Tying goes from space to space, so what the self-check has shown of the free
one holds.
"""
from collections import Counter
from dataclasses import replace
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor

from ..core.layout import Layout, Unit
from ..core.resource import Axis, Cost, ResourceModel, Term
from ..space import Space


def of_layers(space: Space, layers: str) -> Space:
    """The space, or for 'tied' that of :func:`tie_layers`."""
    return tie_layers(space) if layers == 'tied' else space


def tie_layers(space: Space) -> Space:
    """A space in which units of layers that are alike share one ratio.

    Alike are units of one kind, with the same elements and bounds, whose
    names are the same but for the first number in them. Depth is not tied.

    Args:
        space (Space): The space, each unit on its own.

    Returns:
        Space: Tied units are named with ``*`` in the place of that number; a
        further unit of that name, of layers of other sizes, ends in ``[1]``.

    Raises:
        ValueError: No two units are alike.
    """
    families = _families(space.units)
    if len(families) == len(space.units):
        raise ValueError(
            "layers='tied' ties nothing: no two units of this network have "
            'the same number of elements and names that differ in one number '
            "alone, such as layers.0.mlp and layers.1.mlp. Use 'free'")
    units, places = _joined(space, families)
    layout = Layout(units)
    place = torch.empty(space.layout.E, dtype=torch.int64)
    place[torch.cat(places)] = torch.arange(layout.E)
    number = {old: new for new, f in enumerate(families) for old in f}

    def moved(site: Any) -> Any:
        return replace(site, index=_at(site.index, place))

    return replace(
        space,
        units=units,
        layout=layout,
        mask_sites=[moved(site) for site in space.mask_sites],
        slice_sites={
            name: [moved(site) for site in sites]
            for name, sites in space.slice_sites.items()
        },
        norm_sites=[moved(site) for site in space.norm_sites],
        blocks=[
            replace(block, element=int(place[block.element]))
            for block in space.blocks
        ],
        resource=_resource(space.resource, number, place, layout),
        attributes={
            path: {
                name: _at(index, place)
                for name, index in numbers.items()
            }
            for path, numbers in space.attributes.items()
        },
        producers={
            unit.name: [
                made for old in family
                for made in space.producers[space.units[old].name]
            ]
            for unit, family in zip(units, families) if unit.kind == 'width'
        })


def _families(units: List[Unit]) -> List[List[int]]:
    """Numbers of units that are alike, in the order of the first of each."""
    families: Dict[Any, List[int]] = {}
    for number, unit in enumerate(units):
        alike = (number, ) if unit.kind == 'depth' else (_pattern(
            unit.name), replace(unit, name='', members=()))
        families.setdefault(alike, []).append(number)
    return list(families.values())


def _pattern(name: str) -> str:
    """A name without the first number that is a whole part of it."""
    parts = name.split('.')
    place = next((n for n, x in enumerate(parts) if x.isdigit()), None)
    return name if place is None else '.'.join(
        (*parts[:place], '*', *parts[place + 1:]))


def _joined(space: Space,
            families: List[List[int]]) -> Tuple[List[Unit], List[Tensor]]:
    """The units of families, and the old elements of each."""
    units, places, names = [], [], Counter()
    for family in families:
        unit, parts = space.units[family[0]], [space.units[n] for n in family]
        if len(family) > 1:
            name = _pattern(unit.name)
            again, names[name] = names[name], names[name] + 1
            unit = replace(
                unit,
                name=f'{name}[{again}]' if again else name,
                groups=sum(part.groups for part in parts),
                members=[m for part in parts for m in part.members])
        units.append(unit)
        places += [
            torch.arange(space.layout.E)[space.layout.slice_of(n)]
            for n in family
        ]
    return units, places


def _at(index: Tensor, place: Tensor) -> Tensor:
    """Element ids of the free space as those of the tied one; -1 stays."""
    return torch.where(index < 0, index, place[index.clamp(min=0)])


def _resource(free: ResourceModel, number: Dict[int, int], place: Tensor,
              layout: Layout) -> ResourceModel:
    """The same costs, in other units and elements."""
    old = free.layout.U

    def factor(index: int) -> int:
        if index == 0:
            return 0
        if index <= old:  # as many in a group of all layers as in one's
            return 1 + number[index - 1]
        return 1 + layout.U + int(place[index - 1 - old])

    def term(one: Term) -> Term:
        return Term(one.mult, tuple(map(factor, one.factors)))

    def cost(one: Cost) -> Cost:
        return replace(one, blocks=tuple(int(place[b]) for b in one.blocks))

    return ResourceModel(
        [Axis(tuple(map(term, axis.terms))) for axis in free.axes],
        [cost(one) for one in free.costs], layout)
