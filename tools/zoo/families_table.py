# Copyright (c) dms_razor contributors. All rights reserved.
"""How the coverage of other packages is written down."""
import datetime
from collections import Counter
from importlib.metadata import version
from statistics import median
from typing import Dict, List, Mapping, Optional

from dms_razor.subnet.report import table
from .record import STATUSES, Record
from .text import KINDS, general, plain

#: Below this share of its parameters in units a network is explained.
FEW = .6


def versions(*packages: str) -> Dict[str, str]:
    """The date, and names and versions of what a row depends on."""
    return dict(
        date=datetime.date.today().isoformat(),
        **{name: version(name)
           for name in packages})


def line(row: Record) -> str:
    """One row for a terminal."""
    seconds = sum(row.seconds.values())
    text = f'{row.family} {row.name:26} {row.status:10} {row.share:6.1%} ' \
        f'{_error(row.eval_error):>8} {_error(row.train_error):>8} ' \
        f'{seconds:5.0f} s  {_units(row)}'
    if row.problem:
        text += f'\n    [{row.stage}] {row.problem[:600]}'
    return text


def _units(row: Record) -> str:
    return ', '.join(f'{row.units[k]} {k}' for k in KINDS if k in row.units)


def _error(value: Optional[float]) -> str:
    return '–' if value is None else f'{value:.1e}'


def page(rows: List[Record], made_with: Dict[str, str],
         families: Mapping[str, List[str]]) -> str:
    """The page of the documentation.

    Args:
        rows (list[Record]): What there is to show.
        made_with (dict[str, str]): See :func:`versions`.
        families (Mapping[str, list[str]]): Their networks, also those that
            have no row yet.
    """
    made = ', '.join(f'{k} {v}' for k, v in made_with.items() if k != 'date')
    parts = [
        '# Coverage of other packages',
        f'Made by `python tools/zoo --of {" ".join(families)}` on '
        f'{made_with["date"]} with {made}.{_revisions(rows)}', EXPLANATION
    ]
    for family in families:
        own = [row for row in rows if row.family == family]
        parts += [f'## {family}', _summary(own, families[family]), _table(own)]
        problems = [row for row in own if row.status != 'equal']
        if problems:
            parts += ['### What is not equal, and why'] + [
                '\n'.join(
                    f'- **{row.name}** ({row.status}): {plain(row.problem)}'
                    for row in problems)
            ]
        few = [row for row in own if row.units and row.share < FEW]
        if few:
            parts += [
                f'### Less than {FEW:.0%} in units',
                '\n'.join(text for row in few for text in _outside(row))
            ]
    return '\n\n'.join(parts) + '\n'


def _revisions(rows: List[Record]) -> str:
    """Which code made how many rows: a run may go on for a day."""
    made = Counter(row.revision for row in rows)
    if set(made) <= {''}:
        return ''
    return ' Rows by commit: ' + ', '.join(
        f'{commit or "unknown"} {number}'
        for commit, number in made.most_common()) + '.'


def _summary(rows: List[Record], names: List[str]) -> str:
    """How many of each status, and the shares in units."""
    missing = sorted({*names} - {row.name for row in rows}, key=names.index)
    tried = [row for row in rows if row.status != 'not covered']
    counts = {status: sum(row.status == status for row in rows)
              for status in STATUSES}  # yapf: disable
    shares = [row.share for row in tried if row.units]
    text = ', '.join(f'{number} {status}' for status, number in counts.items()
                     if number)
    if missing:
        # Those that take long come last: shares of the others would flatter.
        return f'**Not complete**: {len(rows)} of {len(names)} networks ' \
            f'have a row, {text}. They are no fair sample, so no shares are ' \
            f'given. Without a row: {", ".join(missing)}.'
    equal = counts['equal'] / max(1, len(tried))
    return f'{len(rows)} networks: {text} ({equal:.1%} of those that run ' \
        f'here are equal). Median share of parameters in units: ' \
        f'{median(shares) if shares else 0:.1%}.'


def _table(rows: List[Record]) -> str:
    columns = ('network', 'variant', 'status', 'ratios', 'parameters',
               'in units', 'eval', 'train', 'reload', 'MACs', 'traced in',
               'commit')
    return table(
        columns,
        [(row.name, row.variant or '–', row.status, _units(row)
          or '–', f'{row.params / 1e6:.2f} M', f'{row.share:.1%}',
          _in(row.eval_error, row.precision),
          _in(row.train_error, row.train_precision), _error(row.reload_error),
          f'{row.macs["supernet"][1]:,}' if row.macs else '–', _seconds(row),
          row.revision or '–') for row in rows])


def _seconds(row: Record) -> str:
    return f'{row.seconds["trace"]:.1f} s' if 'trace' in row.seconds else '–'


def _in(error: Optional[float], precision: str) -> str:
    return _error(error) + (' (float32)' if precision == 'float32' else '')


def _outside(row: Record) -> List[str]:
    """What of a network is in no unit, the largest parts first."""
    total = max(1, row.params)
    return [f'- **{row.name}** ({row.share:.1%})'] + [
        f'  - {number / total:.1%}: {plain(general(reason))} '
        f'({", ".join(f"`{m}`" for m in modules[:3])})'
        for reason, number, modules in row.outside[:5]
    ]


EXPLANATION = '''Every network is a small variant with random weights, on the
smallest image it takes, in processes of its own. It is traced, and two random
subnets are compared: the supernet under hard masks with the network that is
cut out, on four samples that tracing has not seen. "eval" and "train" are the
largest difference over the largest entry of a slice along any axis, in float64
where the network can compute in it; in train mode random numbers are drawn
alike, dropout included. The subnet is exported, built again from its folder by
a process that has seen nothing of the search, and compared once more in
float32 ("reload"). The MACs that torch.utils.flop_counter counts on supernet
and subnet must be those of the closed form; the column has the supernet's.
Then the network is searched for a step. "In units" is the share of the
parameters that some subnet lacks. "Traced in" is the time of the processor
that recording and proof took, on a machine that did other things beside.'''
