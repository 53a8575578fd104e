# Copyright (c) dms_razor contributors. All rights reserved.
"""The saved state of a search: what is in it, and what it must look like."""
from typing import Any, Dict

import torch
from torch import Tensor

from ..errors import listed
from .layout import Layout

# What the selector learns it checks itself.
_SIGNED = ('moved_by_task', 'moved_by_resource')
_NEVER_NEGATIVE = ('importance', 'updates', 'step_seen', 'step_square',
                   'steps_of_account', 'steps_of_resource')
_MOST = torch.finfo(torch.float64).max


def check_state(state: Dict[str, Tensor], own: Dict[str, Tensor],
                layout: Layout) -> None:
    """Refuse what is not the state of a bank with these units.

    Args:
        state (dict): A saved state.
        own (dict): The present state of the bank that is to load it.
        layout (Layout): The units of that bank.

    Raises:
        ValueError: Keys, types, shapes, units or values do not fit.
    """
    if not isinstance(state, dict) or set(state) != set(own):
        found = sorted(map(str, state)) if isinstance(state, dict) else state
        raise ValueError('this is not the state of a search: its keys should '
                         f'be {sorted(own)}, found {found}')
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f'"{name}" of the saved search is a '
                             f'{type(value).__name__}, not a tensor')
        if value.is_meta or value.is_quantized or value.is_sparse:
            raise ValueError(f'"{name}" of the saved search has no numbers '
                             'that could be read')
    check_units(state['layout'], layout)
    for name, value in state.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise ValueError(
                f'"{name}" of the saved search is {value.dtype} '
                f'{tuple(value.shape)}, it should be {own[name].dtype} '
                f'{tuple(own[name].shape)}')
    for name in _SIGNED + _NEVER_NEGATIVE:
        value, least = state[name], 0 if name in _NEVER_NEGATIVE else -_MOST
        if not ((value >= least) & (value <= _MOST)).all():
            raise ValueError(f'"{name}" of the saved search is negative or '
                             'not finite')
    order, rows = state['order'].cpu(), layout.row_of_element.cpu()
    if not (order.sort().values.equal(torch.arange(layout.E))
            and rows[order].equal(rows)):
        raise ValueError('"order" of the saved search does not name every '
                         'element of every unit once')


def check_units(saved: Tensor, layout: Layout) -> None:
    """Refuse the units of another network.

    Args:
        saved (Tensor): What :meth:`Layout.fingerprint` gave of the saved ones.
        layout (Layout): The units of the bank that is to load them.

    Raises:
        ValueError: They are others.
    """
    units = layout.fingerprint()
    remedy = ('load the state of a search of this network, with the same '
              'units=, only=, depth= and the like')
    if saved.dim() and len(saved) != len(units):
        raise ValueError(f'the saved search is of another network: it has '
                         f'{len(saved)} units, this network has '
                         f'{len(units)}; {remedy}')
    if saved.shape != units.shape:
        raise ValueError('"layout" of the saved search is of another version')
    differ = (saved.cpu() != units).any(1).nonzero().flatten().tolist()
    if differ:
        raise ValueError(
            'the saved search is of another network: '
            f'{len(differ)} units of the saved search are not those of this '
            'network, the first: '
            f'{listed(layout.units[u].name for u in differ)}; {remedy}')


def saved(bank) -> Dict[str, Tensor]:
    """Copies of everything that a resumed search needs of a bank."""
    return dict(
        layout=bank.layout.fingerprint(),
        **bank.selector.state(),
        importance=bank.importance.clone(),
        order=bank.order.clone(),
        **bank.motion.state(),
        updates=torch.tensor(bank.updates),
        depth_frozen=torch.tensor(bank.depth_frozen))


def restore(bank, state: Any) -> None:
    """Put a state that :func:`saved` gave into a bank.

    Raises:
        ValueError: If it is not that of a bank with these units. Nothing is
            changed then.
    """
    try:
        state = bank.motion.completed(state)
        check_state(state, saved(bank), bank.layout)
        bank.selector.load(state)
    except ValueError as error:
        raise ValueError(
            f'{error}; load a checkpoint of this search, made from the '
            'same model and the same unit settings') from None
    bank.importance, bank.order = (
        state[name].detach().to(bank.layout.device, copy=True)
        for name in ('importance', 'order'))
    bank.motion.load(state)
    bank.updates = int(state['updates'])
    bank.depth_frozen = bool(state['depth_frozen'])
