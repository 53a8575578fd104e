# Copyright (c) dms_razor contributors. All rights reserved.
"""How rows of the coverage table are written down."""
import datetime
from importlib.metadata import version
from typing import Dict, Iterable, List

from dms_razor.subnet.report import table
from .backbones import NO_NETWORK
from .check import Row
from .text import KINDS, general, plain

#: Of the table, after the name.
COLUMNS = ('ratios', 'elements', 'parameters', 'in units', 'in width units',
           'max difference')


def line(row: Row) -> str:
    """One row for a terminal."""
    lines = [
        f'{len(modules)} fixed ({modules[0]}): {reason[:160]}'
        for reason, modules in list(row.fixed.items())[:8]
    ]
    if row.problem:
        lines.insert(0, f'PROBLEM {row.problem[:600]}')
    return '\n    '.join([
        f'{row.name:27} {row.share:6.1%} {row.width_share:6.1%} '
        f'{_difference(row):>8} {row.elements:7,} {row.seconds:5.0f} s  '
        f'{_units(row)}', *lines
    ])


def _units(row: Row) -> str:
    return ', '.join(f'{row.units[k]} {k}' for k in KINDS if k in row.units)


def _difference(row: Row, name: str = 'difference') -> str:
    value = getattr(row, name)
    return '–' if value is None else f'{value:.1e}'


def markdown(rows: List[Row]) -> str:
    """The page of the documentation."""
    many = sum(row.equal and row.share > .8 for row in rows)
    few = ', '.join(f'{row.name} ({row.share:.1%})' for row in rows
                    if row.equal and row.share <= .8)
    few = few and f' Less is in units of {few}; the reasons stand below.'
    return page(
        'Coverage', '--markdown docs/en/coverage.md', versions(),
        f'{sum(row.equal for row in rows)} of the {len(rows)} backbones that '
        'mmpretrain registers are searched and exported with equal outputs; '
        f'{many} of them have more than 80 % of their parameters inside '
        f'units.{few}', _EXPLANATION,
        table(('backbone', *COLUMNS, 'in train mode'),
              [(*cells(row), _difference(row, 'train_difference'))
               for row in rows]), 'Not in the table: ' +
        '; '.join(f'{name}, {reason}'
                  for name, reason in NO_NETWORK.items()) + '.',
        '## What stays, and why', '\n'.join(stays(rows)))


def page(title: str, options: str, made_with: str, *parts: str) -> str:
    """A page of the documentation, from its title and what makes it on."""
    today = datetime.date.today().isoformat()
    return '\n\n'.join([
        f'# {title}', f'Made by `python tools/zoo {options}` on {today} '
        f'with {made_with}.', *parts
    ]) + '\n'


def cells(row: Row) -> List[str]:
    """Name, ratios, elements, parameters, share, width share, difference."""
    precision = f' ({row.precision})' if row.precision != 'float32' else ''
    return [
        row.name,
        _units(row) or '–', f'{row.elements:,}', f'{row.params / 1e6:.2f} M',
        f'{row.share:.1%}', f'{row.width_share:.1%}',
        _difference(row) + precision
    ]


def stays(rows: Iterable[Row], output: bool = False) -> List[str]:
    """A list of what stays in each network, or of what went wrong.

    Args:
        rows (Iterable[Row]): The rows.
        output (bool): Whether to name output layers too. Defaults to False.

    Returns:
        list[str]: Lines; rows in which nothing stays have none.
    """
    text = []
    for row in rows:
        lines = [plain(row.problem)] if row.problem else reasons(row, output)
        if lines:
            text += [f'- **{row.name}**'] + [f'  - {line}' for line in lines]
    return text


_EXPLANATION = '''Every row is the smallest form of the backbone with a linear
classifier behind it and random weights, also where initialisation leaves
zeros. All ratios are drawn at random at once; the subnet is exported, built
again from the manifest without tracing, compared with the masked supernet
(largest difference over largest output; in float64 where float32 differs by
more than 1e-5, since a sharp softmax amplifies rounding) and trained for one
step. "In train mode" is the same difference between both as they train, on two
samples in float64; dropout draws alike. The MACs that
torch.utils.flop_counter counts on the subnet are those of the closed form,
else the export refuses. "In units" is the share of the parameters that some
subnet lacks, "in width units" the same without removing blocks.'''

#: Why the last layer stays; goes without saying.
OUTPUT = 'output of the network'


def reasons(row: Row, output: bool = False) -> List[str]:
    """Why modules stay, each reason once with the modules that have it.

    Numbers in paths, shapes and differences are left out, so that the same
    reason in twelve blocks is one line.

    Args:
        row (Row): What one network showed.
        output (bool): Whether to name output layers too. Defaults to False.
    """
    found: Dict[str, List[str]] = {}
    for reason, modules in row.fixed.items():
        if output or reason != OUTPUT:
            found.setdefault(general(reason), []).extend(modules)
    return [
        f'{plain(reason)} ({_shown(modules)}; '
        f'{len(modules)} module{"s" * (len(modules) > 1)})'
        for reason, modules in found.items()
    ]


def _shown(modules: List[str]) -> str:
    patterns = list(dict.fromkeys(general(module) for module in modules))
    return ', '.join(f'`{pattern}`' for pattern in patterns[:3]) + ' …' * (
        len(patterns) > 3)


def versions(*more: str) -> str:
    """Names and versions of what a row depends on."""
    return ', '.join(f'{name} {version(name)}'
                     for name in ('torch', 'mmengine', 'mmpretrain', 'mmrazor',
                                  *more))
