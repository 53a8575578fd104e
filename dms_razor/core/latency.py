# Copyright (c) dms_razor contributors. All rights reserved.
"""Milliseconds on a device as a metric, from a table of measurements.

A table holds what the parts of one network take at a grid of widths, as
``tools/measure_latency.py`` measured it (paper, equation 9, with a function of
each part of its own). A network takes::

    base + scale·Σ part(width in, width out)·(masks of its blocks)
         + rest·(MACs of no measured part) + traffic·(bytes of activations)

The four coefficients are fitted, none below 0, to some whole subnets: what a
part takes alone is not all of what it takes among the others.
"""
import hashlib
import json
from pathlib import Path
from typing import (Any, Dict, Iterable, List, Mapping, Optional, Set, Tuple,
                    Union)

import torch
from torch import Tensor

from .layout import Layout
from .plain_json import loads
from .quadratics import Quadratics
from .resource import METRICS, Cost, Metric, ResourceModel
from .surfaces import Surfaces
from .table_file import MOST_BYTES, Unsound, check_table, check_version
from .tables import compile_tables

FORMAT = 'dms_razor.latency'
COMMAND = ('python tools/measure_latency.py CONFIG --out FILE.json (of a '
           'network in Python, in the place of CONFIG: --model '
           'MODULE:FUNCTION --input 1 3 224 224)')
#: What a part's time is between the widths that were measured.
GRID_CURVE = 'grid'
CURVES = {GRID_CURVE: Surfaces, 'quadratic': Quadratics}
#: A median error above which a table is told to be poor.
POOR = .15
REMEASURE = (
    'Measure again on a machine that does nothing else, with more rounds and '
    'larger batches where a network takes less than a millisecond; or limit '
    'MACs, and measure what comes out')
COEFFICIENTS = ('base', 'scale', 'rest', 'traffic')


class LatencyError(ValueError):
    """A table of latencies that cannot be used, or that is missing."""


def checksum(content: Mapping[str, Any]) -> str:
    """Of everything in a table but the checksum itself."""
    text = json.dumps(
        {k: content[k]
         for k in sorted(content) if k != 'checksum'},
        sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_table(path: Union[str, Path]) -> Dict[str, Any]:
    """A table from its file.

    Raises:
        LatencyError: It is not there, damaged, unfinished, of a later format
            or something else.
    """
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise ValueError(f'it has more than {MOST_BYTES:,} bytes')
        content = loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise LatencyError(f'there is no table of latencies {str(path)!r}; '
                           f'make one: {COMMAND}') from error
    except (OSError, ValueError) as error:
        raise LatencyError(
            f'{str(path)!r} cannot be read as a table of latencies ({error}): '
            f'it is damaged or something else. Make it again: {COMMAND}'
        ) from error
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise LatencyError(f'{str(path)!r} is no table of latencies: its '
                           f'format is not {FORMAT!r}. Make one: {COMMAND}')
    try:
        check_version(content)
    except Unsound as error:
        raise LatencyError(f'{str(path)!r}, {error}') from None
    if not content.get('coefficients'):
        raise LatencyError(
            f'{str(path)!r} was not finished: run the same command once more, '
            'it goes on where it stopped')
    if content.get('curve', GRID_CURVE) not in CURVES:
        raise LatencyError(
            f'{str(path)!r} has curve={content["curve"]!r}, which this version'
            f' does not know; it knows {", ".join(CURVES)}')
    if content.get('checksum') != checksum(content):
        raise LatencyError(
            f'{str(path)!r} does not match its checksum: it was edited or '
            f'damaged. Take the file as it was written, or: {COMMAND}')
    try:
        check_table(content, COEFFICIENTS)
    except Unsound as error:
        raise LatencyError(
            f'{str(path)!r} is no sound table of latencies, {error}: it was '
            f'edited. Make it again: {COMMAND}') from None
    return content


def layers_of(resource: ResourceModel) -> Dict[str, List[float]]:
    """What tells networks apart: MACs and widths of each product."""
    return {
        f'{number} {cost.name or "(itself)"}':
        [cost.coef, *(full(resource, axis) for axis in cost.axes)]
        for number, cost in enumerate(resource.costs_of('macs'))
    }


def full(resource: ResourceModel, axis: int) -> float:
    """Width of an axis when nothing is pruned."""
    one = [Cost('', '', 'macs', 1., (axis, ))]
    layout = resource.layout.to('cpu')
    tables = compile_tables(resource.axes, one, layout.U, False)
    return float(
        tables.value(layout.size.double(),
                     torch.ones(len(tables.used)).double()))


class Latency:
    """What :class:`.tables.Tables` are, for measured milliseconds.

    Args:
        resource (ResourceModel): Costs of the network.
        table (Mapping): The table; its coefficients may be missing.
        device (torch.device): Where the figures are asked for.
    """

    def __init__(self, resource: ResourceModel, table: Mapping[str, Any],
                 device: torch.device) -> None:
        costs = resource.costs_of('macs')
        names = list(layers_of(resource))
        measured = [
            n for n, name in enumerate(names) if name in table['parts']
        ]
        widths = [costs[n].axes for n in measured]
        shares = [
            Cost('', '', 'macs', 1 / full(resource, axes[side]),
                 (axes[side], )) if side < len(axes) else Cost(
                     '', '', 'macs', 1.) for side in (0, 1) for axes in widths
        ]
        masks = [
            Cost('', '', 'macs', 1., (), costs[n].blocks) for n in measured
        ]
        rest = [cost for n, cost in enumerate(costs) if n not in measured]
        traffic = [c for c in resource.costs if c.metric == 'traffic']
        self.table = table
        self._names = [costs[n].name for n in measured]
        self._number = len(measured), len(rest), len(traffic)
        rows = [*shares, *masks, *rest, *traffic]
        with device:
            self._tables = compile_tables(resource.axes, rows,
                                          resource.layout.U, False)
            self._surfaces = CURVES[table.get('curve', GRID_CURVE)](
                table['grid'],
                torch.tensor([table['parts'][names[n]] for n in measured],
                             dtype=torch.float64).view(
                                 -1, *[len(table['grid'])] * 2))
            found = table.get('coefficients') or dict.fromkeys(COEFFICIENTS, 0)
            self._coefficients = torch.tensor(
                [found[name] for name in COEFFICIENTS], dtype=torch.float64)
        self.used = self._tables.used
        self.work = self._tables.work + 16 * len(measured)

    def features(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        """What the coefficients are multiplied with, float64 ``[..., 4]``.

        Args:
            counts (Tensor): float64 ``[..., U]``.
            used_masks (Tensor): The masks that occur, float64 ``[..., K]``.
        """
        times, rest, traffic = self._rows(counts, used_masks)
        sums = [x.sum(-1) for x in (times, rest, traffic)]
        return torch.stack([torch.ones_like(sums[0]), *sums], -1)

    def _rows(self, counts: Tensor, used_masks: Tensor) -> Tuple[Tensor, ...]:
        """Time of each part, and amounts of the rest and of the traffic."""
        parts, rest, traffic = self._number
        first, second, masks, rest, traffic = self._tables.rows(
            counts, used_masks).split([parts] * 3 + [rest, traffic], -1)
        return self._surfaces(first, second) * masks, rest, traffic

    def by_layer(self, counts: Tensor, used_masks: Tensor) -> Dict[str, float]:
        """Milliseconds of each part in its network, and of ``''``, the rest.

        Args:
            counts (Tensor): float64 ``[U]``.
            used_masks (Tensor): The masks that occur, float64 ``[K]``.
        """
        times, _, _ = self._rows(counts, used_masks)
        scaled = (times * self._coefficients[1]).tolist()
        found = dict.fromkeys(self._names, 0.)
        for name, ms in zip(self._names, scaled):
            found[name] += ms
        whole = float(self.value(counts, used_masks))
        return {**found, '': whole - sum(scaled)}

    def value(self, counts: Tensor, used_masks: Tensor) -> Tensor:
        """Milliseconds, float64 ``[...]``."""
        return self.features(counts, used_masks) @ self._coefficients


def latency_of(resource: ResourceModel, path: Union[None, str, Path],
               metrics: Iterable[str]) -> ResourceModel:
    """The resource of a search under latency.

    Args:
        resource (ResourceModel): Of the network.
        path (str | Path, optional): Its table.
        metrics (Iterable[str]): What the search limits.

    Raises:
        LatencyError: See :meth:`dms_razor.space.Space.limiting`.
    """
    if METRICS['latency'] is not BUILT_IN:
        return resource  # somebody's own metric of this name
    if path is None:
        raise LatencyError('a budget in latency needs latency_table=, '
                           'measurements of this network on the device; make '
                           f'them with: {COMMAND}')
    if 'latency' not in metrics:
        raise LatencyError(
            'latency_table= has no effect: no budget is in latency. Give '
            "metric='latency', or constraints with one")
    return with_latency(resource, read_table(path), str(path))


def needed(metrics: Iterable[str], latency_table: Union[None, str,
                                                        Path]) -> Set[str]:
    """What a trace has to know for a search that limits these metrics."""
    by_time = latency_table is not None or 'latency' in metrics
    return {*metrics, *(['traffic'] if by_time else [])}


def with_latency(resource: ResourceModel, table: Mapping[str, Any],
                 origin: str) -> ResourceModel:
    """The resource with latency by a table that was read.

    Raises:
        LatencyError: The table is another network's.
    """
    own = layers_of(resource)
    differ = [
        name for name in {
            **own,
            **table['layers']
        } if own.get(name) != table['layers'].get(name)
    ]
    if differ:
        raise LatencyError(
            f'{origin!r} was measured for another network or another input '
            f'size: {len(differ)} of its layers differ, the first is '
            f'"{differ[0].partition(" ")[2]}". Measure this one: {COMMAND}')
    return resource.plus('latency',
                         lambda model, device: Latency(model, table, device))


def poor_fit(resource: ResourceModel, table: Mapping[str, Any]) -> str:
    """What speaks against a table as far as it knows; '' if nothing does.

    It holds whole subnets as they were measured. Where the sum of the parts is
    far from them, a search follows the sum and not the device.

    Args:
        resource (ResourceModel): With latency by this table.
        table (Mapping): The table.
    """
    if METRICS['latency'] is not BUILT_IN:
        return ''  # somebody's own metric of this name
    fit, held_out = table.get('fit', {}), table.get('held_out', {})
    said = []
    for known, where in ((fit, 'fitted to'), (held_out, 'checked with')):
        error = known.get('median_error')
        if isinstance(error, (int, float)) and error > POOR:
            most = known.get('largest_error', known.get('error_95'))
            worst = f', {most:.0%} at most' \
                if isinstance(most, (int, float)) else ''
            said.append(f'it is off by {error:.0%} (median{worst}) from the '
                        f'subnets that it was {where}')
    measured = (fit.get('measured') or [0.])[0]  # of the whole network
    predicted = resource.supernet('latency')
    if measured and abs(predicted / measured - 1) > POOR:
        said.append(f'it gives the whole network {predicted:.4g} ms, which '
                    f'took {measured:.4g} ms')
    return f'the table of latencies is poor: {"; ".join(said)}. {REMEASURE}' \
        if said else ''


def latency_table(resource: ResourceModel) -> Optional[Latency]:
    """The table that a network's latency is reckoned with; None without."""
    if 'latency' not in resource.metrics or METRICS['latency'] is not BUILT_IN:
        return None
    return resource.tables('latency', torch.device('cpu'))


def scaled(resource: ResourceModel, factor: float) -> ResourceModel:
    """The resource with a table on which everything takes longer.

    Args:
        resource (ResourceModel): With a table.
        factor (float): How much longer.
    """
    table = latency_table(resource).table
    table = dict(
        table,
        coefficients={
            name: factor * value
            for name, value in table['coefficients'].items()
        })
    return resource.plus('latency',
                         lambda model, device: Latency(model, table, device))


def _not_here(layout: Layout, counts: Tensor, masks: Tensor) -> Tensor:
    raise LatencyError(f'latency needs latency_table=; make it: {COMMAND}')


BUILT_IN: Optional[Metric] = Metric(
    'latency', 'ms', value=_not_here, per_sample=False, on_demand=True)
METRICS.register('latency')(BUILT_IN)
