# Copyright (c) dms_razor contributors. All rights reserved.
"""What a bank saves, and the checks before it takes what it is given.

A state is tensors only: a file with it loads with ``weights_only=True``.
Masks are not part of it, they follow from ratios and order.
"""
from typing import TYPE_CHECKING, Dict

import torch
from torch import Tensor

from .layout import Layout

if TYPE_CHECKING:
    from .bank_masks import BankMasks


def export_state(bank: 'BankMasks') -> Dict[str, Tensor]:
    """Detached copies of ratios, importance, order and counters."""
    return dict(
        layout=bank.layout.fingerprint(),
        ratios=bank.ratios.clone(),
        importance=bank.importance.clone(),
        order=bank.order.clone(),
        updates=torch.tensor(bank.updates),
        depth_frozen=torch.tensor(bank.depth_frozen))


def restore_state(bank: 'BankMasks', state: Dict[str, Tensor]) -> None:
    """Put a state of :func:`export_state` into ``bank``.

    Raises:
        ValueError: If it is not a state, or that of other units. Nothing is
            changed then.
    """
    own = export_state(bank)
    remedy = ('; load a checkpoint of this search, made from the same model '
              'and the same unit settings')
    if not isinstance(state, dict) or set(state) != set(own):
        found = sorted(map(str, state)) if isinstance(state, dict) else state
        raise ValueError('this is not the state of a search: its keys should '
                         f'be {sorted(own)}, found {found}{remedy}')
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f'"{name}" of the saved search is a '
                             f'{type(value).__name__}, not a tensor{remedy}')
    _check_layout(bank, state['layout'], remedy)
    for name, value in state.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise ValueError(
                f'"{name}" of the saved search is {value.dtype} '
                f'{tuple(value.shape)}, it should be {own[name].dtype} '
                f'{tuple(own[name].shape)}{remedy}')
    device = bank.ratios.device
    ratios, importance, order = (
        state[name].detach().to(device, copy=True)
        for name in ('ratios', 'importance', 'order'))
    if not (torch.isfinite(ratios).all() and (ratios >= 0).all() and
            (ratios <= 1).all()):
        raise ValueError('"ratios" of the saved search lie outside [0, 1]'
                         f'{remedy}')
    if not (torch.isfinite(importance).all() and (importance >= 0).all()):
        raise ValueError('"importance" of the saved search is negative or '
                         f'not finite{remedy}')
    rows = bank.layout.row_of_element
    every = torch.arange(bank.layout.E, device=device)
    if not (order.sort().values.equal(every) and rows[order].equal(rows)):
        raise ValueError('"order" of the saved search does not name every '
                         f'element of every unit once{remedy}')
    bank.ratios, bank.importance, bank.order = ratios, importance, order
    bank.updates = int(state['updates'])
    bank.depth_frozen = bool(state['depth_frozen'])


def _check_layout(bank: 'BankMasks', saved: Tensor, remedy: str) -> None:
    own = bank.layout.fingerprint()
    if saved.shape[:1] != own.shape[:1]:
        raise ValueError(f'the saved search has {len(saved)} units, this '
                         f'network has {len(own)}{remedy}')
    if saved.shape != own.shape:
        raise ValueError('"layout" of the saved search is of another '
                         f'version{remedy}')
    differ = (saved.cpu() != own).any(1).nonzero().flatten().tolist()
    if differ:
        names = ', '.join(bank.layout.units[u].name for u in differ[:5])
        raise ValueError(f'{len(differ)} units of the saved search are not '
                         f'those of this network, the first: {names}{remedy}')


def check_kept(layout: Layout, kept: Tensor) -> Tensor:
    """``kept`` as int64 ``[U]`` on the layout's device.

    Raises:
        ValueError: If it is not a whole number within the bounds for every
            unit.
    """
    kept = torch.as_tensor(kept, device=layout.device)
    if kept.shape != layout.size.shape:
        raise ValueError(f'kept counts have shape {tuple(kept.shape)}, there '
                         f'are {layout.U} units')
    for unit, k in zip(layout.units, kept.tolist()):
        if not (unit.least <= k <= unit.most and k == int(k)):
            raise ValueError(
                f'unit "{unit.name}" cannot keep {k} of {unit.size} '
                f'elements, only a whole number from {unit.least} to '
                f'{unit.most}')
        if unit.choices is not None and int(k) not in unit.choices:
            raise ValueError(
                f'unit "{unit.name}" cannot keep {k} of {unit.size} '
                f'elements, its choices are {unit.choices}')
    return kept.long()
