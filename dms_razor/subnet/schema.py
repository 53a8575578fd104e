# Copyright (c) dms_razor contributors. All rights reserved.
"""What a subnet.json may hold: names, kinds and bounds of every entry.

A manifest may come from anywhere. It is checked whole, before anything is
built from it: each entry is there once, of its kind and in its bounds, and the
parts agree. No tensor is larger than the supernet's of that name, which a
network that is built from code has to match; so a file cannot ask for memory.
"""
import json
import math
from typing import Any, Callable, Dict, List

import numpy as np
import torch

from ..core.layout import KINDS
from ..core.plain_json import nests_deeper
from ..errors import SubnetError
from ..network import fingerprint

#: Characters of a file, bytes of all example inputs, and how deep they nest.
MOST_TEXT, MOST_INPUT, MOST_DEPTH = 64_000_000, 400_000_000, 50
_MOST = 2**53


class _Wrong(Exception):
    """Where in the manifest, and what is wrong there."""


def parse(text: str, origin: str) -> Any:
    """Read JSON in which no key stands twice.

    Args:
        text (str): The text.
        origin (str): What to call it in messages.

    Raises:
        SubnetError: It is none.
    """
    if len(text) > MOST_TEXT:
        raise SubnetError(
            f'{origin} has {len(text):,} characters, more than any subnet '
            'takes: it is damaged or no manifest. Export the subnet again.')

    if nests_deeper(text, 2 * MOST_DEPTH):
        raise SubnetError(f'{origin} is not readable as JSON: it nests too '
                          'deep. Export the subnet again.')

    def once(pairs: List) -> Dict[str, Any]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(n for n in names if names.count(n) > 1)
            raise SubnetError(f'{origin} has the key {twice!r} twice: it was '
                              'edited or damaged. Use the file as exported.')
        return entries

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(f'{number:.20} is no finite number')
        return float(number)

    try:
        return json.loads(
            text,
            object_pairs_hook=once,
            parse_float=finite,
            parse_constant=finite)
    except SubnetError:
        raise
    except (ValueError, RecursionError) as error:
        raise SubnetError(
            f'{origin} is not readable as JSON ({error}): it is '
            'truncated or no manifest. Export the subnet again, or copy '
            'the file again.') from error


def check(content: Dict[str, Any], origin: str) -> None:
    """Refuse what is no manifest of a subnet.

    Args:
        content (dict): The fields of a :class:`~.manifest.Manifest`.
        origin (str): What to call it in messages.

    Raises:
        SubnetError: An entry is missing, unknown, of another kind, out of its
            bounds or against another one; it is named.
    """
    try:
        _model(content['model'])
        inputs_size(content['inputs'], 'inputs')
        _text(content['metric'], 'metric')
        if content['target'] is not None:
            _number(content['target'], 'target')
        for name in ('macs', 'params'):
            _cost(content[name], name, counted=True)
        for name, cost in _entries(content.get('others', {}), 'others'):
            _cost(cost, f'others.{name}')
        _units(content['units'])
        _modules(content)
        for path, part in _entries(content['receives'], 'receives'):
            _need(path in content['modules'], 'receives', f'no module {path}')
            inputs_size(part, f'receives.{path}')
        for path, pair in _entries(content.get('branches', {}), 'branches'):
            _need(path in content['removed'], 'branches', f'{path} is there')
            _list(pair, f'branches.{path}', _whole)
            _need(
                len(pair) == 2 and pair[0] <= 1 and pair[1] <= 64,
                f'branches.{path}', 'it is not [zero, outputs]')
        for name, limit in _entries(content.get('limits', {}), 'limits'):
            _number(limit, f'limits.{name}')
        for name, value in _entries(content.get('measured', {}), 'measured'):
            _number(value, f'measured.{name}')
    except _Wrong as error:
        raise SubnetError(
            f'{origin} is no sound manifest: {error}. It was edited or '
            'damaged, or is of a version with a fault: export the subnet '
            'again.') from None


def _need(sound: bool, where: str, why: str) -> None:
    if not sound:
        raise _Wrong(f'{where}: {why}')


def _text(value: Any, where: str) -> None:
    _need(isinstance(value, str), where, f'{value!r:.60} is no text')


def _whole(value: Any, where: str, least: int = 0, most: int = _MOST) -> None:
    _need(
        type(value) is int and least <= value <= most, where,
        f'{value!r:.60} is no whole number from {least} to {most}')


def _number(value: Any, where: str) -> None:
    _need(
        type(value) in (int, float) and 0 <= value <= 1e300
        and math.isfinite(value), where,
        f'{value!r:.60} is no number from 0 on')


def _list(value: Any, where: str, check: Callable) -> None:
    _need(isinstance(value, list), where, 'it is no list')
    for entry in value:
        check(entry, where)


def _entries(value: Any, where: str) -> Any:
    _need(isinstance(value, dict), where, 'it is no object')
    return value.items()


def _keys(value: Any, where: str, needed: tuple, optional: tuple = ()) -> None:
    _entries(value, where)
    odd = (set(needed) - set(value)) | (set(value) - {*needed, *optional})
    _need(not odd, where, f'it lacks or adds {sorted(odd)}')


def _shape(value: Any, where: str) -> None:
    _list(value, where, _whole)
    _need(
        len(value) <= 32 and math.prod(value) <= _MOST, where,
        'it is no shape of a tensor')


def _model(value: Any) -> None:
    _keys(value, 'model', ('type', 'tensors', 'fingerprint'))
    _text(value['type'], 'model.type')
    for name, shape in _entries(value['tensors'], 'model.tensors'):
        _shape(shape, f'model.tensors.{name}')
    _need(value['fingerprint'] == fingerprint(value['tensors']),
          'model.fingerprint', 'it is not that of model.tensors')


def _cost(value: Any, where: str, counted: bool = False) -> None:
    needed = ('supernet', 'searched') + ('counted', ) * counted
    _keys(value, where, needed, ('counted', 'samples'))
    for name, number in value.items():
        check = _whole if counted or name == 'samples' else _number
        check(number, f'{where}.{name}')
    _need(value['searched'] <= value['supernet'], where,
          'the subnet costs more than the supernet')
    _need(value.get('samples', 1) >= 1, where, 'there are no samples')


def _units(units: Any) -> None:
    _list(units, 'units', _unit)
    names = [unit['name'] for unit in units]
    _need(len(set(names)) == len(names), 'units', 'a name is there twice')


def _unit(unit: Any, where: str) -> None:
    _keys(unit, where, ('name', 'kind', 'total', 'kept', 'groups', 'step',
                        'members', 'kept_index'))
    _text(unit['name'], where)
    where = f'unit {unit["name"]!r:.60}'
    _need(unit['kind'] in KINDS, where, f'there is no kind {unit["kind"]!r}')
    _list(unit['members'], f'{where}.members', _text)
    for name in ('total', 'groups', 'step'):
        _whole(unit[name], f'{where}.{name}', 1)
    _whole(unit['kept'], f'{where}.kept', 0, unit['total'])
    index, total, kept = unit['kept_index'], unit['total'], unit['kept']
    _list(index, f'{where}.kept_index', _whole)
    groups = unit['groups']
    _need(
        len(index) == groups * kept and all(a < b
                                            for a, b in zip(index, index[1:]))
        and all(entry // total == place // kept
                for place, entry in enumerate(index)), f'{where}.kept_index',
        f'it does not name {kept} of {total} elements in each of {groups} '
        'groups')


def _modules(content: Dict[str, Any]) -> None:
    """Modules, and what is removed of them."""
    modules, full = content['modules'], content['model']['tensors']
    _list(content['removed'], 'removed', _text)
    removed = set(content['removed'])
    _need(
        len(removed) == len(content['removed']), 'removed',
        'a path is there twice')
    _entries(modules, 'modules')
    _need('' in modules, 'modules', 'the network itself is missing')
    for path, module in modules.items():
        where = f'module {path!r:.60}'
        _keys(module, where, ('type', 'tensors', 'attributes', 'macs'),
              ('slim', ))
        _text(module['type'], where)
        _text(module.get('slim', ''), where)
        _whole(module['macs'], f'{where}.macs')
        parent = path.rpartition('.')[0]
        _need(parent in modules, where, 'it is in no module')
        _need(path == '' or parent not in removed, where, 'it was removed')
        for name, width in _entries(module['attributes'], where):
            _whole(width, f'{where}.{name}')
        for name, shape in _entries(module['tensors'], where):
            _shape(shape, f'{where}.{name}')
            whole = full.get(f'{path}.{name}' if path else name)
            _need(
                whole is None or len(whole) == len(shape)
                and all(min(b, 1) <= a <= b
                        for a, b in zip(shape, whole)), f'{where}.{name}',
                f'{shape} is no part of the supernet\'s {whole}')


def inputs_size(value: Any, where: str, depth: int = 0) -> int:
    """Bytes of the zeros that described inputs are, checked."""
    _need(depth <= MOST_DEPTH, where, 'it nests too deep')
    if isinstance(value, list):
        size = sum(inputs_size(part, where, depth + 1) for part in value)
    elif isinstance(value, dict) and 'named' in value:
        _keys(value, where, ('named', ), ('type', 'meta'))
        _text(value.get('type', ''), where)
        parts = [*_entries(value['named'], where)]
        parts += [('', value['meta'])] if 'meta' in value else []
        size = sum(inputs_size(part, where, depth + 1) for _, part in parts)
    elif isinstance(value, dict) and 'value' in value:
        _keys(value, where, ('value', ))
        _need(
            value['value'] is None
            or type(value['value']) in (bool, int, float, str), where,
            'it is no plain value')
        size = 0
    else:
        name = 'array' if isinstance(value,
                                     dict) and 'array' in value else 'shape'
        _keys(value, where, (name, 'dtype'))
        _shape(value[name], where)
        size = math.prod(value[name]) * _item_size(name, value['dtype'], where)
    _need(size <= MOST_INPUT, where,
          f'it takes {size:,} bytes, more than {MOST_INPUT:,}')
    return size


def _item_size(name: str, dtype: Any, where: str) -> int:
    _text(dtype, where)
    if name == 'shape':
        kind = getattr(torch, dtype, None)
        _need(isinstance(kind, torch.dtype), where, f'no dtype {dtype:.30}')
        return kind.itemsize
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError):
        kind = None
    _need(kind is not None and kind.kind in 'biufc', where,
          f'no dtype {dtype:.30}')
    return kind.itemsize
