# Copyright (c) dms_razor contributors. All rights reserved.
"""report.md and report.json: what was asked, searched and counted."""
import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence

from ..core.target import format_amount
from .layers import Layer
from .manifest import Manifest


@dataclass
class Report:
    """What an export has to say about a subnet.

    Attributes:
        manifest (Manifest): The subnet and its costs.
        layers (list[Layer]): Its layers beside those of the supernet.
        counter (str): The library that counted the MACs.
        full_width (list[dict]): ``{'module', 'reason'}`` of what was not
            searched.
        notes (list[str]): Anything else the reader must know.
    """
    manifest: Manifest
    layers: List[Layer]
    counter: str
    full_width: List[Dict[str, str]] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)

    def to_dict(self) -> Dict[str, Any]:
        """The report as plain data.

        Returns:
            dict: ``asked`` (``metric``, ``target``, ``fraction``), ``macs``
            and ``params`` (``supernet``, ``searched``, ``counted``),
            ``counter``, ``units`` (name, kind, kept and total per group),
            ``layers``, ``removed``, ``full_width`` and ``notes``.
        """
        manifest = self.manifest
        costs = dict(macs=manifest.macs, params=manifest.params)
        target = manifest.target
        whole = costs[manifest.metric]['supernet']
        return dict(
            asked=dict(
                metric=manifest.metric,
                target=target,
                fraction=None if target is None else target / whole),
            **costs,
            counter=self.counter,
            units=[{
                key: unit[key]
                for key in ('name', 'kind', 'kept', 'total', 'groups', 'step')
            } for unit in manifest.units],
            layers=[layer.to_dict() for layer in self.layers],
            removed=manifest.removed,
            full_width=self.full_width,
            notes=self.notes)

    def to_json(self) -> str:
        """The content of report.json."""
        return json.dumps(self.to_dict(), indent=1) + '\n'

    def to_markdown(self) -> str:
        """The content of report.md."""
        sections = [
            '# Searched subnet',
            self._costs(), *[f'{note}' for note in self.notes], '## Layers',
            self._layers(), '## Removed blocks',
            self._removed(), '## At full width',
            self._full_width()
        ]
        return '\n\n'.join(sections) + '\n'

    def _costs(self) -> str:
        manifest = self.manifest
        rows = []
        for metric, label in (('macs', 'MACs'), ('params', 'parameters')):
            cost = getattr(manifest, metric)
            limited = metric == manifest.metric and manifest.target
            asked = f'at most {manifest.target:,.0f}' if limited else '-'
            rows.append((label, f'{cost["supernet"]:,}', asked,
                         f'{cost["searched"]:,}', f'{cost["counted"]:,}',
                         f'{cost["counted"] / cost["supernet"]:.2%}'))
        shape = first_shape(manifest.inputs)
        share = ''
        if 'samples' in manifest.macs:
            share = f'each of the {manifest.macs["samples"]} samples of '
        return table(
            ('', 'supernet', 'asked', 'searched', 'counted', 'share'),
            rows) + ('\n\nSearched: the closed form that the search '
                     f'reckons with. Counted: by {self.counter} on the '
                     'exported network, convolutions, linear layers and '
                     f'matrix products, for {share}an input of {shape}.')

    def _layers(self) -> str:
        rows = []
        for layer in self.layers:
            after = layer.removed is None
            rows.append(
                (f'`{layer.name}`', layer.type,
                 change(*layer.inputs) if after else str(layer.inputs[0]),
                 change(*layer.outputs)
                 if after else f'{layer.outputs[0]} ⇒ removed',
                 ' ⇒ '.join(format_amount(macs) for macs in layer.macs)))
        return table(('layer', 'type', 'in', 'out', 'MACs'), rows)

    def _removed(self) -> str:
        stages = [
            unit for unit in self.manifest.units if unit['kind'] == 'depth'
        ]
        rows = [(f'`{stage["name"]}`', f'{stage["total"]} ⇒ {stage["kept"]}',
                 ', '.join(f'`{path}`' for path in stage['members']
                           if path in self.manifest.removed) or 'none')
                for stage in stages]
        if not rows:
            return 'No blocks were searched.'
        return table(('stage', 'removable blocks', 'removed'), rows)

    def _full_width(self) -> str:
        rows = [(f'`{item["module"]}`', item['reason'])
                for item in self.full_width]
        return table(('module', 'reason'), rows) if rows else 'Nothing.'


def change(before: int, after: int) -> str:
    """Write a width's change: ``512 ⇒ 301``."""
    return f'{before} ⇒ {after}'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table.

    Args:
        head (Sequence[str]): Titles of the columns.
        rows (Sequence[Sequence[str]]): Cells; a ``|`` in them is escaped.

    Returns:
        str: The table, one line per row.
    """
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(
        '| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |'
        for line in lines)


def first_shape(inputs: Any) -> str:
    """Write the shape of the first tensor of described inputs: ``1×3×32``."""
    if isinstance(inputs, list):
        return first_shape(inputs[0]) if inputs else 'no tensor'
    if 'named' in inputs:
        return first_shape(list(inputs['named'].values()))
    return '×'.join(map(str, inputs.get('shape', []))) or 'no tensor'
