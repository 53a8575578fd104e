# Copyright (c) dms_razor contributors. All rights reserved.
"""report.md and report.json: what was asked, searched and counted."""
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from torch import nn

from ..core.budget import format_amount
from ..core.decision import Decision
from ..core.resource import METRICS
from ..counting import Count
from .manifest import Manifest
from .slicing import inside
from .summary import EXPLAINED, PRODUCTS, products, summarise
from .timed import HEAD, Timed, rows, told, where

WIDTHS = (('in_channels', 'out_channels'), ('in_features', 'out_features'))
"""Attributes of standard layers that give their input and output width."""


@dataclass
class Layer:
    """One convolution, linear layer or other module with a matrix.

    Each pair is (supernet, subnet); in a removed block the subnet's numbers
    are 0.

    Attributes:
        name (str): Path of the module.
        type (str): Its class.
        inputs (tuple[int, int]): Channels it reads.
        outputs (tuple[int, int]): Channels it produces.
        macs (tuple[int, int]): Multiply-accumulates of one forward pass.
        params (tuple[int, int]): Its own parameters.
        removed (str, optional): The removed block that it lies in.
    """
    name: str
    type: str
    inputs: Tuple[int, int]
    outputs: Tuple[int, int]
    macs: Tuple[int, int]
    params: Tuple[int, int]
    removed: Optional[str] = None


def compare_layers(supernet: nn.Module, subnet: nn.Module, removed: List[str],
                   before: Count, after: Count) -> List[Layer]:
    """List the layers of a supernet and what became of them.

    Args:
        supernet (nn.Module): The supernet, plain.
        subnet (nn.Module): The subnet.
        removed (list[str]): Paths of the removed blocks.
        before (Count): MACs of the supernet.
        after (Count): MACs of the subnet.

    Returns:
        list[Layer]: In the order of the network's modules.
    """
    rest = dict(subnet.named_modules())
    layers = []
    for name, module in supernet.named_modules():
        macs = [count.by_module.get(name, 0) for count in (before, after)]
        if is_layer(module, macs[0]):
            gone = next((path for path in removed if inside(name, [path])),
                        None)
            pair = module, None if gone else rest[name]
            layers.append(
                Layer(name,
                      type(module).__name__, *zip(*map(width, pair)),
                      tuple(macs), tuple(map(own_params, pair)), gone))
    return layers


def is_layer(module: nn.Module, macs: int) -> bool:
    """Say whether a module multiplies channels by a matrix of its own.

    True for convolutions and linear layers, used or not, and for other
    modules with ``macs`` of their own and a matrix or kernel; False for
    norms, scales and position embeddings.
    """
    return (macs > 0 or any(hasattr(module, name) for name, _ in WIDTHS)) \
        and any(
        parameter.dim() > 1 for parameter in module.parameters(recurse=False))


def width(module: Optional[nn.Module]) -> Tuple[int, int]:
    """Input and output channels of a layer; None is one that is gone."""
    if module is None:
        return 0, 0
    for names in WIDTHS:
        if all(isinstance(getattr(module, name, None), int) for name in names):
            return getattr(module, names[0]), getattr(module, names[1])
    matrix = next(
        parameter for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1)
    return matrix.shape[1], matrix.shape[0]


def own_params(module: Optional[nn.Module]) -> int:
    """Count the parameters that a module owns itself, 0 for None."""
    own = [] if module is None else module.parameters(recurse=False)
    return sum(parameter.numel() for parameter in own)


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
        decision (Decision, optional): Who decided the structure.
        even (float, optional): Share of the widths that the even cut keeps.
        scores (dict): What is known of its accuracy, by name.
        latency (Timed, optional): Under a latency, predicted and measured.
    """
    manifest: Manifest
    layers: List[Layer]
    counter: str
    full_width: List[Dict[str, str]] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    decision: Optional[Decision] = None
    even: Optional[float] = None
    scores: Dict[str, Any] = field(default_factory=dict)
    latency: Optional[Timed] = None

    def cost(self, metric: str) -> float:
        """What the subnet costs, counted where it can be."""
        cost = self.manifest.costs[metric]
        return cost.get('counted', cost['searched'])

    def to_dict(self) -> Dict[str, Any]:
        """The report as plain data.

        Returns:
            dict: ``network``, its class, ``asked`` (``metric``, ``target``,
            ``fraction`` and, of several, ``limits``), ``macs`` and
            ``params`` (``supernet``, ``searched``, ``counted``),
            ``others`` (the same of other metrics, if there are any),
            ``counter``, ``units`` (name, kind, kept and total per group,
            and ``gone`` if all that it is part of lies in removed blocks),
            ``layers``, ``removed``, ``full_width``, ``notes``, ``even``,
            ``scores`` and, of a search, ``decision``; under a latency also
            ``latency``, see :class:`.timed.Timed`.
        """
        manifest = self.manifest
        target = manifest.target
        return dict(
            network=manifest.model['type'],
            asked=dict(
                metric=manifest.metric,
                target=target,
                fraction=None if target is None else target /
                manifest.costs[manifest.metric]['supernet'],
                **(dict(limits=manifest.limits) if manifest.limits else {})),
            macs=manifest.macs,
            params=manifest.params,
            **(dict(others=manifest.others) if manifest.others else {}),
            counter=self.counter,
            units=[_unit(unit, manifest.removed) for unit in manifest.units],
            layers=[asdict(layer) for layer in self.layers],
            removed=manifest.removed,
            full_width=self.full_width,
            notes=self.notes,
            even=self.even,
            scores=self.scores,
            **(dict(latency=self.latency.to_dict()) if self.latency else {}),
            **(dict(
                decision=self.decision.to_dict()) if self.decision else {}))

    def summary(self) -> str:
        """What came out, in a sentence or two."""
        return summarise(self.to_dict())

    def to_json(self) -> str:
        """The content of report.json."""
        return json.dumps(self.to_dict(), indent=1) + '\n'

    def to_markdown(self) -> str:
        """The content of report.md."""
        return '\n\n'.join([
            '# Searched subnet',
            self.summary(),
            self._costs(), *self._timed(), *self._known(), *self.notes,
            *self._decided(), '## Layers',
            self._layers(), '## Removed blocks',
            self._removed(), '## At full width',
            table(
                ('module', 'reason'), [(f'`{item["module"]}`', item['reason'])
                                       for item in self.full_width])
            if self.full_width else 'Nothing.'
        ]) + '\n'

    def _costs(self) -> str:
        manifest = self.manifest
        rows, limits = [], manifest.limits or {
            manifest.metric: manifest.target
        }
        for metric, cost in manifest.costs.items():
            limit = limits.get(metric)
            asked = '-' if not limit else 'at most ' + (
                f'{limit:,.0f}' if limit >= 1000 else f'{limit:,.4g}')
            found = cost.get('counted', cost['searched'])
            rows.append(
                (METRICS.find(metric).label, amount(cost['supernet']), asked,
                 amount(cost['searched']),
                 amount(found) if 'counted' in cost else '-',
                 f'{found / cost["supernet"]:.2%}'))
        share = (f'each of the {manifest.macs["samples"]} samples of '
                 if 'samples' in manifest.macs else '')
        return table(
            ('', 'supernet', 'asked', 'searched', 'counted', 'share'),
            rows) + ('\n\nSearched: the closed form that the search '
                     f'reckons with. Counted: by {self.counter} on the '
                     'exported network, convolutions, linear layers and '
                     f'matrix products, for {share}an input of '
                     f'{first_shape(manifest.inputs)}.')

    def _timed(self) -> List[str]:
        if self.latency is None:
            return []
        timed = self.latency.to_dict()
        return [told(timed), table(HEAD, rows(timed)), where(timed)]

    def _known(self) -> List[str]:
        rows = [(name, str(score)) for name, score in self.scores.items()]
        return [table(('', 'score'), rows)] if rows else []

    def _decided(self) -> List[str]:
        if self.decision is None:
            return []
        return [
            '## Who decided',
            self.decision.text(), *self.decision.doubts(), EXPLAINED
        ]

    def _layers(self) -> str:
        return table(
            ('layer', 'type', 'in', 'out', 'MACs'),
            [(f'`{layer.name}`', layer.type,
              str(layer.inputs[0]) if layer.removed else change(*layer.inputs),
              change(layer.outputs[0],
                     'removed' if layer.removed else layer.outputs[1]),
              ' ⇒ '.join(map(format_amount, layer.macs)))
             for layer in self.layers] + self._products())

    def _products(self) -> List[Tuple[str, ...]]:
        """The row that makes the layers add up to the whole, if it needs one.
        """
        rest = products(self.to_dict())
        return [(PRODUCTS, '', '', '',
                 ' ⇒ '.join(map(format_amount, rest)))] if any(rest) else []

    def _removed(self) -> str:
        rows = [(f'`{unit["name"]}`', f'{unit["total"]} ⇒ {unit["kept"]}',
                 ', '.join(f'`{path}`' for path in unit['members']
                           if path in self.manifest.removed) or 'none')
                for unit in self.manifest.units if unit['kind'] == 'depth']
        return table(('stage', 'removable blocks',
                      'removed'), rows) if rows else 'No blocks were searched.'


def _unit(unit: Dict[str, Any], removed: List[str]) -> Dict[str, Any]:
    """A unit of a manifest; widths of removed blocks are nowhere any more."""
    gone = unit['kind'] != 'depth' and bool(unit['members']) and all(
        inside(member, removed) for member in unit['members'])
    return {
        **{
            key: unit[key]
            for key in ('name', 'kind', 'kept', 'total', 'groups', 'step')
        },
        **(dict(gone=True) if gone else {})
    }


def amount(value: float) -> str:
    """Write a cost: whole numbers in full, others in four digits."""
    return f'{value:,}' if isinstance(value, int) else f'{value:,.4g}'


def change(before: int, after: Union[int, str]) -> str:
    """Write a width's change: ``512 ⇒ 301``, ``512 ⇒ removed``."""
    return f'{before} ⇒ {after}'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table; a ``|`` in its cells is escaped."""
    return '\n'.join(
        '| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |'
        for line in (head, ['---'] * len(head), *rows))


def first_shape(inputs: Any) -> str:
    """Write the shape of the first tensor of described inputs: ``1×3×32``."""
    if isinstance(inputs, list):
        return first_shape(inputs[0]) if inputs else 'no tensor'
    if 'named' in inputs:
        return first_shape(list(inputs['named'].values()))
    return '×'.join(map(str, inputs.get('shape', []))) or 'no tensor'
