# Copyright (c) dms_razor contributors. All rights reserved.
"""What a table of latencies may hold: kinds and bounds of every entry.

A table may come from anywhere. It is checked whole, before anything is made of
it; a file that is larger than any table is not read at all.
"""
from typing import Any, Iterable, Mapping

#: Of the format. What an older version wrote is read as well.
VERSION = 1
#: Bytes of a file, points along a width, and layers of a network.
MOST_BYTES, MOST_POINTS, MOST_LAYERS = 64_000_000, 64, 100_000
_LARGEST = 1e15


class Unsound(ValueError):
    """Where in a table, and what is wrong there."""


def check_version(content: Mapping[str, Any]) -> None:
    """Refuse a table of a later format.

    Args:
        content (Mapping): The table.

    Raises:
        Unsound: It is one, or its version is no number.
    """
    version = content.get('version', 1)
    _need(
        type(version) is int and version >= 1, 'version',
        f'{version!r:.60} is no whole number from 1 on')
    _need(
        version <= VERSION, 'version',
        f'it is {version}, and this dms_razor reads versions up to {VERSION}: '
        'install the newer dms_razor that wrote it')


def check_table(content: Mapping[str, Any],
                coefficients: Iterable[str]) -> None:
    """Refuse what is no finished table.

    Args:
        content (Mapping): The table.
        coefficients (Iterable[str]): Names of the coefficients.

    Raises:
        Unsound: An entry is missing, of another kind or out of its bounds.
    """
    grid = content.get('grid')
    _numbers(grid, 'grid', above=0.)
    _need(
        0 < len(grid) <= MOST_POINTS and grid[-1] == 1
        and all(a < b for a, b in zip(grid, grid[1:])), 'grid',
        'it does not rise to 1')
    layers = _object(content.get('layers'), 'layers')
    _need(len(layers) <= MOST_LAYERS, 'layers', 'there are too many')
    for name, row in layers.items():
        _numbers(row, f'layers.{name:.60}')
        _need(len(row) <= 16, f'layers.{name:.60}', 'it is too long')
    for name, rows in _object(content.get('parts'), 'parts').items():
        where = f'parts.{name:.60}'
        _need(name in layers, where, 'there is no such layer')
        _need(
            isinstance(rows, list) and len(rows) == len(grid), where,
            f'it is no list of {len(grid)}')
        for row in rows:
            _numbers(row, where, of=len(grid))
    found = _object(content.get('coefficients'), 'coefficients')
    _need(
        set(found) == set(coefficients), 'coefficients',
        f'they are {sorted(found)!r:.60}')
    _numbers(list(found.values()), 'coefficients')
    _setting(content)
    _further(content)


def _setting(content: Mapping[str, Any]) -> None:
    """With what was measured, which an export compares with its machine."""
    setting = _object(content.get('setting'), 'setting')
    for name in ('backend', 'device', 'precision', 'processor'):
        _need(
            isinstance(setting.get(name), str), f'setting.{name}',
            'it is no text')
    threads = setting.get('threads')
    _need(
        type(threads) is int and 1 <= threads <= 2**20, 'setting.threads',
        f'{threads!r:.60} is no number of threads')
    versions = _object(setting.get('versions'), 'setting.versions')
    _need(
        all(isinstance(value, str) for value in versions.values()),
        'setting.versions', 'one is no text')
    shapes = content.get('input')
    _need(isinstance(shapes, list), 'input', 'it is no list')
    for shape in shapes:
        _need(
            isinstance(shape, list) and len(shape) <= 32 and all(
                type(size) is int and 0 <= size <= 2**40 for size in shape),
            'input', f'{shape!r:.60} is no shape')


def _further(content: Mapping[str, Any]) -> None:
    """What is only shown, or proposed: steps and subnets held out."""
    for name, times in _object(content.get('steps', {}), 'steps').items():
        where = f'steps.{name:.60}'
        for width in _object(times, where):
            _need(width.isdecimal() and len(width) < 16, where,
                  f'{width!r:.60} is no width')
        _numbers(list(times.values()), where)
    for part, names in (('held_out', ('measured', 'predicted')),
                        ('fit', ('measured', ))):
        known = _object(content.get(part, {}), part)
        for name in names:
            _numbers(known.get(name, []), f'{part}.{name}')
        _need(
            len({len(known.get(name, []))
                 for name in names}) == 1, part,
            'there are not as many predicted as measured')


def _need(sound: bool, where: str, why: str) -> None:
    if not sound:
        raise Unsound(f'{where}: {why}')


def _object(value: Any, where: str) -> Mapping[str, Any]:
    _need(isinstance(value, dict), where, 'it is no object')
    return value


def _numbers(value: Any,
             where: str,
             above: float = -1.,
             of: Any = None) -> None:
    """A list of finite numbers from 0 on, or above something."""
    _need(
        isinstance(value, list) and of in (None, len(value)), where,
        'it is no list' if of is None else f'it is no list of {of}')
    for number in value:
        _need(
            type(number) in (int, float) and 0 <= number <= _LARGEST
            and number > above, where,
            f'{number!r:.60} is no number from 0 on')
