# Copyright (c) dms_razor contributors. All rights reserved.
"""report.html: the report as one page that needs nothing but itself.

Style and picture are in the file, it runs no script and asks for nothing from
outside, so that it can be mailed, or kept beside the weights.
"""
import base64
import json
from html import escape
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Union

from ..core.budget import format_amount
from ..core.decision import Decision
from ..core.plain_json import loads
from ..core.resource import METRICS
from ..errors import SubnetError
from .files import write_text
from .summary import (EXPLAINED, PRODUCTS, decided, doubts, kept_of, limits_of,
                      products, share, summarise)
from .timed import HEAD, rows, told, where

STYLE = '''
:root { --ink: #1b2733; --soft: #5a6b7b; --line: #d5dde4; --bar: #2a6f97;
  --even: #c1121f; --paper: #fff; --shade: #f3f6f8; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0;
  background: var(--paper); overflow-wrap: anywhere; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.lead { font-size: 1.1rem; }
.doubt { border-left: 4px solid var(--even); padding: .3rem .8rem;
  background: var(--shade); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: right; padding: .25rem .6rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.text td, .text th { text-align: left; white-space: normal; }
pre { background: var(--shade); padding: .7rem; overflow-x: auto; }
img { max-width: 100%; height: auto; }
.unit { display: grid; grid-template-columns: minmax(6rem, 18rem) 1fr 7rem;
  gap: .6rem; align-items: center; font-size: .85rem; }
.unit b { font-weight: normal; }
.unit span:last-child { text-align: right; }
.track { position: relative; height: 1rem; background: var(--shade); }
.fill { position: absolute; inset: 0 auto 0 0; background: var(--bar); }
.even { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px;
  background: var(--even); }
.soft { color: var(--soft); font-size: .9rem; }
@media (max-width: 30rem) {
  .unit { grid-template-columns: 1fr 5.5rem; }
  .unit { row-gap: 0; margin-top: .4rem; }
  .unit b { grid-column: 1 / -1; }
}
'''
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
NAMES = {
    'subnet.json': 'the manifest: what builds the subnet again',
    'subnet.pth': 'the weights of the search, tensors only',
    'retrain.py': 'a config that trains it',
    'base.py': 'what that config inherits',
    'report.md': 'this report as text',
    'report.json': 'this report as data',
    'structure.png': 'widths of supernet and subnet, layer by layer',
    'latency.png': 'predicted and measured time, and where it goes'
}
"""What each file of an export is."""


def write_page(folder: Union[str, Path],
               scores: Optional[Dict[str, Any]] = None) -> Path:
    """Write report.html of an export anew, from what lies in its folder.

    Args:
        folder (str | Path): An export.
        scores (dict, optional): What has been found out of the network since,
            such as ``{'top-1 (%)': 76.1}``; kept in report.json.

    Returns:
        Path: The page.

    Raises:
        SubnetError: The folder holds no report.json of an export.
    """
    folder = Path(folder)
    try:
        report = loads((folder / 'report.json').read_text(encoding='utf-8'))
        report['asked'], report['units']
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SubnetError(
            f'{str(folder)!r} has no report.json of an export ({error}): name '
            'the folder that search.export or a search\'s run wrote'
        ) from error
    if scores:
        report['scores'] = {**report.get('scores', {}), **scores}
        write_text(folder / 'report.json', json.dumps(report, indent=1) + '\n')
    write_text(folder / 'report.html', page_of(report, folder))
    return folder / 'report.html'


def page_of(report: Dict[str, Any], folder: Path) -> str:
    """The page.

    Args:
        report (dict): The content of a report.json.
        folder (Path): Whose files are listed, and whose picture is shown.
    """
    files = {
        path.name: path.stat().st_size
        for path in sorted(folder.iterdir()) if path.name in NAMES
    }
    parts = [
        f'<h1>{escape(_title(report))}</h1>',
        fragment(report), *_section('Latency', _latency(report, folder)),
        *_section('Accuracy', _scores(report)), *_section(
            'Layers',
            _picture(folder / 'structure.png',
                     'Output channels of supernet and subnet, layer by layer')
            + _layers(report)),
        *_section('Removed blocks', _listed(report['removed'])),
        *_section('At full width', _full_width(report)),
        *_section('Files', _files(files)), *_section('What next', _next(files))
    ]
    body = '\n'.join(parts)
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n'
            '<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, '
            'initial-scale=1">\n'
            f'<title>{escape(_title(report))}</title>\n'
            f'<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n'
            '</main>\n</body>\n</html>\n')


def fragment(report: Dict[str, Any]) -> str:
    """Summary, costs, who decided and the structure, for a notebook too."""
    return '\n'.join([
        f'<p class="lead">{escape(summarise(report))}</p>',
        _costs(report), *(f'<p>{escape(note)}</p>'
                          for note in report['notes']),
        *_section('Who decided', _decided(report)),
        *_section('Structure', _structure(report))
    ])


def _title(report: Dict[str, Any]) -> str:
    return f'Searched subnet of {report.get("network", "a network")}'


def _section(title: str, content: str) -> Iterable[str]:
    return (f'<h2>{title}</h2>', content) if content else ()


def _table(head: Sequence[str],
           rows: Iterable[Sequence[str]],
           kind: str = '') -> str:
    """A table that scrolls in itself where it is too wide."""
    lines = [''.join(f'<th>{escape(cell)}</th>' for cell in head)]
    lines += [
        ''.join(f'<td>{escape(str(cell))}</td>' for cell in row)
        for row in rows
    ]
    rows = '\n'.join(f'<tr>{line}</tr>' for line in lines)
    return f'<div class="scroll {kind}"><table>\n{rows}\n</table></div>'


def _costs(report: Dict[str, Any]) -> str:
    limits, rows = limits_of(report), []
    found = {**report, **report.get('others', {})}
    for name in dict.fromkeys(['macs', 'params', *report.get('others', {})]):
        cost = found[name]
        now = cost.get('counted', cost['searched'])
        target = limits.get(name)
        rows.append(
            (METRICS[name].label if name in METRICS else name,
             format_amount(cost['supernet'], name),
             '' if target is None else '≤ ' + format_amount(target, name),
             format_amount(now, name), share(now, cost['supernet'])))
    return _table(('', 'supernet', 'asked', 'subnet', 'share'), rows)


def _decided(report: Dict[str, Any]) -> str:
    known = report.get('decision')
    if not known:
        return f'<p class="doubt">{escape(decided(report))}</p>'
    return ''.join(f'<p class="doubt">{escape(doubt)}</p>' for doubt in doubts(
        report)) + f'<p>{escape(Decision(**known).text())}</p>' + \
        f'<p class="soft">{EXPLAINED}</p>'


def _structure(report: Dict[str, Any]) -> str:
    """A bar for each unit, the least kept first; the even cut is a line."""
    units = sorted(
        report['units'], key=lambda unit: kept_of(unit) / unit['total'])
    even = report.get('even')
    line = '' if even is None else \
        f'<span class="even" style="left:{even:.1%}"></span>'
    rows = [
        f'<div class="unit"><b>{escape(unit["name"])}</b>'
        f'<span class="track"><span class="fill" '
        f'style="width:{kept_of(unit) / unit["total"]:.1%}"></span>'
        f'{"" if unit["kind"] == "depth" else line}</span>'
        f'<span>{_kept(unit)}</span></div>' for unit in units
    ]
    told = '' if even is None else \
        f' The red line is the even cut: {share(even, 1)} of every width.'
    return (f'<p class="soft">What each unit keeps, the least first.{told}'
            f'</p>\n' + '\n'.join(rows)) if rows else ''


def _kept(unit: Dict[str, Any]) -> str:
    """``9 of 16`` channels of one group; blocks and heads are named."""
    if unit.get('gone'):
        return 'removed'
    step, kind = unit['step'], unit['kind']
    text = f'{unit["kept"] * step} of {unit["total"] * step}'
    return text if kind == 'width' else \
        f'{text} {dict(depth="blocks", qk="q/k").get(kind, kind)}'


def _scores(report: Dict[str, Any]) -> str:
    if not report.get('scores'):
        return ('<p class="soft">Not known here. Evaluate the network and '
                'write the page anew: <code>dms-razor report FOLDER --score '
                '"top-1 (%)=76.1"</code></p>')
    return _table(('', 'score'), report['scores'].items())


def _latency(report: Dict[str, Any], folder: Path) -> str:
    timed = report.get('latency')
    if not timed:
        return ''
    kind = ' class="doubt"' if timed['tried'] else ''
    return (f'<p{kind}>{escape(told(timed))}</p>\n'
            f'{_table(HEAD, rows(timed))}\n'
            f'<p class="soft">{escape(where(timed))}</p>\n' + _picture(
                folder / 'latency.png', 'Predicted and measured time, and the '
                'share of time and of MACs of each layer'))


def _picture(picture: Path, text: str) -> str:
    if not picture.exists():
        return ''
    data = base64.b64encode(picture.read_bytes()).decode()
    return (f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>\n')


def _layers(report: Dict[str, Any]) -> str:
    rows = [(layer['name'], layer['type'], str(layer['inputs'][0])
             if layer['removed'] else _change(layer['inputs']),
             'removed' if layer['removed'] else _change(layer['outputs']),
             *map(format_amount, layer['macs']),
             share(*reversed(layer['macs'])) if layer['macs'][0] else '')
            for layer in report['layers']]
    rest = products(report)
    if any(rest):
        rows.append((PRODUCTS, '', '', '', *map(format_amount, rest),
                     share(*reversed(rest)) if rest[0] else ''))
    return _table(
        ('layer', 'type', 'in', 'out', 'MACs', 'of the subnet', 'share'), rows)


def _change(pair: Sequence[int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f'{pair[0]} ⇒ {pair[1]}'


def _listed(names: List[str]) -> str:
    return ', '.join(f'<code>{escape(name)}</code>' for name in names)


def _full_width(report: Dict[str, Any]) -> str:
    rows = [(item['module'], item['reason']) for item in report['full_width']]
    return _table(('module', 'reason'), rows, 'text') if rows else ''


def _files(files: Dict[str, int]) -> str:
    return _table(('file', 'bytes', ''), [(name, f'{size:,}', NAMES[name])
                                          for name, size in files.items()])


def _next(files: Dict[str, int]) -> str:
    """How to train, build and deploy it, as far as the files allow."""
    build = ('from dms_razor.subnet import build_subnet\n\n'
             "model = build_subnet(YourNetwork(), 'subnet.json', "
             "'subnet.pth')")
    steps = [('Build it in Python, from the network that was searched', build)]
    if 'retrain.py' in files:
        steps += [('Train it', 'mim train dms_razor retrain.py'),
                  ('Deploy it, with the trained weights',
                   'dms-razor export . --format onnx --checkpoint '
                   'work_dirs/retrain/epoch_N.pth')]
    else:
        steps.append(
            ('Train it in your own loop, then deploy it; images is a batch '
             'of yours', 'from dms_razor.subnet import write_portable\n\n'
             "write_portable(model, images, 'subnet.onnx')\n"
             "write_portable(model, images, 'subnet.pt', 'torchscript')"))
    return '\n'.join(f'<p>{escape(what)}:</p>\n<pre>{escape(code)}</pre>'
                     for what, code in steps)
