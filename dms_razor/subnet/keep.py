# Copyright (c) dms_razor contributors. All rights reserved.
"""``keep``: which elements of a space a subnet has.

``keep`` is a bool tensor of shape [E], one entry per element in the flat
order of the space: units in order and, inside a unit, group by group. It
says everything about a subnet, so it is checked here before anything is cut.
"""
from typing import List, Sequence

import torch
from torch import Tensor

from .errors import SubnetError


def unit_rows(units: Sequence, keep: Tensor) -> List[Tensor]:
    """Split ``keep`` into one [groups, size] tensor per unit.

    Args:
        units (Sequence[Unit]): The units of the space, in its order.
        keep (Tensor): Any tensor of shape [E].

    Returns:
        list[Tensor]: Views of ``keep``, one per unit.
    """
    rows, start = [], 0
    for unit in units:
        stop = start + unit.size * unit.groups
        rows.append(keep[start:stop].view(unit.groups, unit.size))
        start = stop
    return rows


def kept_counts(units: Sequence, keep: Tensor) -> List[int]:
    """Count the kept elements of each unit, per group.

    Args:
        units (Sequence[Unit]): The units of the space, in its order.
        keep (Tensor): Bool of shape [E] that :func:`check_keep` accepted.

    Returns:
        list[int]: k of each unit (section 3.1 of the paper: k of N stay).
    """
    return [int(rows[0].sum()) for rows in unit_rows(units, keep)]


def check_keep(units: Sequence, keep: Tensor) -> Tensor:
    """Refuse a ``keep`` that is no network of the space.

    Args:
        units (Sequence[Unit]): The units of the space, in its order.
        keep (Tensor): Bool of shape [E].

    Returns:
        Tensor: ``keep`` on the CPU, detached.

    Raises:
        TypeError: ``keep`` is not a bool tensor.
        SubnetError: Wrong length, a unit below its lower bound, or groups of
            a unit that keep different numbers of elements.
    """
    if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
        kind = keep.dtype if isinstance(keep, Tensor) else type(keep).__name__
        raise TypeError(f'keep must be a bool tensor, got {kind}. Pass '
                        'bank.hard() or a tensor of True and False with one '
                        'entry per element of the space.')
    keep = keep.detach().cpu()
    elements = sum(unit.size * unit.groups for unit in units)
    if tuple(keep.shape) != (elements, ):
        raise SubnetError(
            f'keep has shape {tuple(keep.shape)}, but the space has '
            f'{elements} elements. Use the keep of a search over this very '
            'space.')
    for unit, rows in zip(units, unit_rows(units, keep)):
        counts = rows.sum(1)
        if counts.min() != counts.max():
            raise SubnetError(
                f'Unit {unit.name!r} keeps {counts.tolist()} elements in its '
                f'{unit.groups} groups. Its groups must stay equally wide: '
                'keep the same number in each.')
        kept = int(counts[0])
        if kept < unit.least:
            raise SubnetError(
                f'Unit {unit.name!r} keeps {kept} of {unit.size} elements a '
                f'group, but at least {unit.least} must stay. Keep more, or '
                "lower the unit's bound in the search config.")
    return keep
