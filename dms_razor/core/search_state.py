# Copyright (c) dms_razor contributors. All rights reserved.
"""The saved state of a whole search: its format, its settings, its numbers.

A resumed search goes on as it began. So what it began with is part of its
state, and another target, metric, length, importance or seed is refused, or
wanted. Tensors only, so that it is loaded with ``weights_only=True``.
"""
import json
import logging
import warnings
from typing import Any, Dict

import torch
from torch import Tensor

from .budget import AUTO, format_amount
from .plain_json import loads
from .state import check_units

#: Of the format. States of dms_razor 0.1 carry none and are read as well.
VERSION = 2
_NEEDED = {'bank', 'step_count'}
_LENGTHS = ('total_steps', 'warmup_steps', 'width_only_steps')


def settings_of(search: Any) -> Dict[str, Any]:
    """What a search was begun with, in plain values.

    Args:
        search (Search): The search.
    """
    importance = search.bank.importance_name
    if not isinstance(importance, str):
        importance = getattr(importance, '__qualname__',
                             type(importance).__name__)
    return dict(
        target=float(search.target),
        metric=search.metric,
        constraints=search.limits and search.limits.amounts,
        total_steps=search.total_steps,
        warmup_steps=getattr(search.schedule, 'warmup', 0),
        width_only_steps=search.width_only_steps,
        fall=float(search.fall),
        harden=float(search.harden),
        importance=importance,
        selector=type(search.bank.selector).__name__,
        lr=search.bank.lr,
        loss_weight=search.constraint.weight,
        **search.learning)


def saved_search(search: Any) -> Dict[str, Any]:
    """Everything that a resumed search needs, in tensors."""
    settings = json.dumps(settings_of(search), sort_keys=True).encode()
    return dict(
        version=torch.tensor(VERSION),
        settings=torch.tensor(list(settings), dtype=torch.uint8),
        bank=search.bank.state_dict(),
        step_count=torch.tensor(search.step_count),
        projected=torch.tensor(search._projected, dtype=torch.float64))


def restore_search(search: Any, state: Any, with_changes: bool) -> None:
    """Put a state that :func:`saved_search` gave into a search.

    Args:
        search (Search): The search.
        state (dict): The state.
        with_changes (bool): Whether its settings may be others. What differs
            is logged.

    Raises:
        ValueError: It is not the state of such a search. Nothing is changed.
    """
    if not isinstance(state, dict) or not _NEEDED <= set(state):
        raise ValueError('this is no state of a search: load the dict that '
                         'Search.state_dict() returned')
    version = int(_number('version', state.get('version', torch.tensor(1)), 1))
    if version > VERSION:
        raise ValueError(
            f'the saved search is of format version {version}, this dms_razor '
            f'reads versions up to {VERSION}: install the newer dms_razor '
            'that saved it')
    steps = int(_number('step_count', state['step_count']))
    projected = _number('projected', state.get('projected', torch.tensor(0.)))
    _check_network(search, state['bank'])
    differ = _differences(search, state)
    if differ and not with_changes:
        raise ValueError(
            f'the saved search was begun with other settings: {differ}. '
            'Resume with the settings it was begun with, or, if the change is '
            'wanted, with load_state_dict(state, with_changes=True); with '
            'tools/train.py, --resume-with-changes')
    search.bank.load_state_dict(state['bank'])
    search.step_count, search._projected = steps, projected
    if differ:
        logging.getLogger('dms_razor').warning(
            'The saved search was begun with other settings: %s.', differ)
    if 'projected' not in state and search.constraint.weight == AUTO:
        warnings.warn('this search was begun by dms_razor 0.1, with lr='
                      '5e-3, loss_weight=1., fall=1.; now others hold')


def _differences(search: Any, state: Dict[str, Any]) -> str:
    """The settings that differ, in words; '' if none do."""
    if 'settings' not in state:
        return ''
    settings = state['settings']
    try:
        if settings.numel() > 100_000:  # a view may be of any size
            raise ValueError
        then = loads(bytes(settings.tolist()).decode())
        then = {name: then.get(name) for name in settings_of(search)}
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise ValueError('"settings" of the saved search cannot be read: it '
                         'is damaged; load another checkpoint') from None
    now = settings_of(search)
    # A search that only evaluates has no length.
    unknown = () if now['total_steps'] and then['total_steps'] else _LENGTHS
    return ', '.join(
        f'{name} {_told(search, name, then)}, now {_told(search, name, now)}'
        for name, value in now.items()
        if value != then[name] and name not in unknown)


def _check_network(search: Any, bank: Any) -> None:
    """Of another network no setting need be compared."""
    saved = bank.get('layout') if isinstance(bank, dict) else None
    if isinstance(saved, Tensor) and saved.dim() == 2 and not (
            saved.is_meta or saved.is_quantized or saved.is_sparse):
        check_units(saved, search.bank.layout)


def _told(search: Any, name: str, settings: Dict[str, Any]) -> str:
    """A setting; amounts also as the shares that they were asked for as."""
    value, whole = settings[name], search.preflight().supernet
    if name == 'target' and settings['metric'] in whole and isinstance(
            value, float):
        return _amount(value, whole, settings['metric'])
    if name == 'constraints' and isinstance(value, dict) and all(
            metric in whole and isinstance(amount, (int, float))
            for metric, amount in value.items()):
        return ' and '.join(f'{metric} {_amount(amount, whole, metric)}'
                            for metric, amount in value.items())
    return repr(value)


def _amount(amount: float, supernet: Dict[str, float], metric: str) -> str:
    share = amount / (supernet[metric] or 1.)
    return f'{format_amount(amount, metric)} ({share:.1%})'


def _number(name: str, value: Any, least: float = 0) -> float:
    if not isinstance(value, Tensor) or (value.is_meta or value.is_complex()
                                         or value.numel() != 1
                                         or not least <= value < 2**53):
        raise ValueError(f'"{name}" of the saved search is {value!r}, not a '
                         f'number from {least} on: it is damaged; load '
                         'another checkpoint')
    return value.item()
