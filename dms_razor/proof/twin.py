# Copyright (c) dms_razor contributors. All rights reserved.
"""The proof of a network that is too large to be proved, on a small twin.

A twin has the same layers under the same names, of other sizes. What holds
for it is a matter of the code that both run.
"""
from dataclasses import replace
from typing import Callable, Tuple

from torch import nn

from ..space import Space
from .check import check_space
from .repair import follow_like, leave_alone


def prove_twin(builder, twin_builder, twin: nn.Module, inputs: Tuple,
               forward: Callable) -> Space:
    """The space of a network as far as it holds for its twin.

    Args:
        builder (SpaceBuilder): Builds the space of the network.
        twin_builder (SpaceBuilder): Builds that of the twin.
        twin (nn.Module): The twin.
        inputs (tuple): What the twin is run on, as it is.
        forward (Callable): How it is run.

    Returns:
        Space: A space of units that the twin has too.

    Raises:
        ValueError: The twin has other layers, or numbers that only look
            alike; or nothing is left.
    """
    _refuse_stranger(builder.recorder.modules, twin_builder.recorder.modules)
    small = check_space(twin, inputs, forward, twin_builder,
                        twin_builder.build())
    follow_like(builder, twin_builder)
    proved = {(u.name, u.kind, u.members) for u in small.units}
    reasons = {stay.module: stay.reason for stay in small.full_width}
    while True:
        space = builder.build()
        left = [
            number for number, u in enumerate(space.units)
            if (u.name, u.kind, u.members) not in proved
        ]
        if not left:
            break
        unit = space.units[left[0]]
        reason = next((reasons[m] for m in unit.members if m in reasons),
                      'no unit of the twin')
        leave_alone(builder, space, left[:1], f'as in the twin: {reason}')
    for path, numbers in space.attributes.items():
        for name in set(numbers) - set(small.attributes.get(path, ())):
            raise ValueError(
                f'"{name}" of "{path}" follows a width in the network and not '
                'in its twin, so that the proof says nothing of it. Choose '
                'sizes of the twin that differ where those of the network do.')
    space.proof = replace(
        small.proof,
        network=f'a twin of {type(twin).__name__}',
        units=len(space.units))
    return space


def _refuse_stranger(modules, others) -> None:
    """Raise ValueError if the twin is another network."""
    for path in [*modules, *others]:
        kinds = [
            type(m[path]).__name__ if path in m else 'nothing'
            for m in (modules, others)
        ]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f'the twin is none: at "{path}" it has {kinds[1]}, the '
                f'network has {kinds[0]}. A twin is built by the same code, '
                'with other widths.')
