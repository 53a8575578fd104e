# Copyright (c) dms_razor contributors. All rights reserved.
"""Attributes that say how wide a module is, such as ``in_channels``.

A width is a whole number, the last entry of a tuple of such numbers
(``nn.LayerNorm.normalized_shape``), or, named with its place, an entry of a
list (``'num_features.3'``, the width of a backbone's fourth stage).
"""
from typing import Any, Tuple

from torch import nn

from .errors import SubnetError


def get_width(module: nn.Module, path: str, name: str) -> int:
    """Read a width of a module.

    Args:
        module (nn.Module): The module.
        path (str): Its path, for messages.
        name (str): The width, e.g. ``'in_channels'``.

    Returns:
        int: The width.

    Raises:
        SubnetError: The module has no such width.
    """
    value, place = _find(module, path, name)
    return value if place is None else value[place]


def set_width(module: nn.Module, path: str, name: str, width: int) -> None:
    """Set a width of a module, on the module itself and never on its class.

    Args:
        module (nn.Module): The module.
        path (str): Its path, for messages.
        name (str): The width, e.g. ``'in_channels'``.
        width (int): Entries that stay.

    Raises:
        SubnetError: The module has no such width.
    """
    value, place = _find(module, path, name)
    if place is not None:
        entries = list(value)
        entries[place] = width
        width = type(value)(entries)
    setattr(module, name.partition('.')[0], width)


def _find(module: nn.Module, path: str, name: str) -> Tuple[Any, Any]:
    """Return the attribute and, if it is a list, the place of the width."""
    attribute, _, place = name.partition('.')
    value = getattr(module, attribute, None)
    if isinstance(value, (list, tuple)):
        index = int(place) if place else -1
        if -len(value) <= index < len(value) and _whole(value[index]):
            return value, index
    elif not place and _whole(value):
        return value, None
    raise SubnetError(
        f'Module {path!r} ({type(module).__name__}) has no width {name!r}. '
        'The description is that of another network: use the network that '
        'was searched.')


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
