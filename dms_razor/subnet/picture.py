# Copyright (c) dms_razor contributors. All rights reserved.
"""The structure of supernet and subnet in one picture (paper, Figure 4).

One bar per layer, in network order: its outline is the supernet's width, the
filled part what the subnet keeps. Removed blocks are hatched over their whole
extent. Stages are set apart and named. Deep networks take several rows.
"""
import re
from itertools import groupby
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple, Union

from ..core.budget import format_amount
from ..core.resource import METRICS

FILLED, OUTLINE, GONE = '#2a6f97', '#8d99a6', '#c1121f'
STYLES = (dict(facecolor='none', edgecolor=OUTLINE,
               linewidth=.8), dict(color=FILLED))
ROW = 90
"""Layers in one row."""
LEGEND = ('supernet', 'subnet', 'removed block')


def draw_structure(report: Dict[str, Any], path: Union[str, Path]) -> None:
    """Draw supernet and subnet, layer by layer.

    Args:
        report (dict): The content of a report.json.
        path (str | Path): Picture to write; the suffix decides its format.

    Raises:
        ValueError: The report lists no layers.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    layers = report['layers']
    if not layers:
        raise ValueError('The report lists no layers, so there is nothing to '
                         'draw. Pass the report.json of an export.')
    rows = -(-len(layers) // ROW)
    length = -(-len(layers) // rows)
    figure = Figure(
        figsize=(max(9., 3 + .14 * length), .8 + 3.8 * rows),
        layout='constrained')
    FigureCanvasAgg(figure)  # leaves the user's pyplot alone
    stages = stages_of([layer['name'] for layer in layers], [
        unit['name'].partition('[')[0]
        for unit in report['units'] if unit['kind'] == 'depth'
    ])
    for row, axes in enumerate(figure.subplots(rows, squeeze=False)[:, 0]):
        part = slice(row * length, (row + 1) * length)
        for which, style in enumerate(STYLES):
            axes.bar(
                range(len(layers[part])),
                [layer['outputs'][which] for layer in layers[part]],
                width=.86,
                label=LEGEND[which],
                **style)
        for first, last, block in spans(
            [layer['removed'] for layer in layers[part]]):
            if block is not None:
                axes.axvspan(
                    first - .5,
                    last + .5,
                    facecolor=GONE + '14',  # 8 % opaque
                    edgecolor=GONE + '59',  # 35 %
                    hatch='///',
                    linewidth=0,
                    label=LEGEND[2])
        _draw_stages(axes, stages[part])
        axes.set_xlim(-.7, length - .3)
        axes.set_ylabel('output channels')
        axes.spines[['top', 'right']].set_visible(False)
    _draw_title(figure, report)
    figure.savefig(path, dpi=120)


def _draw_stages(axes, stages: List[str]) -> None:
    """Set the stages apart and name them below."""
    found = spans(stages)
    for first, _, _ in found[1:]:
        axes.axvline(first - .5, color=OUTLINE, linewidth=.6, zorder=0)
    axes.set_xticks([(first + last) / 2 for first, last, _ in found],
                    [short(name) for _, _, name in found],
                    rotation=45,
                    ha='right',
                    fontsize=8)
    axes.tick_params(axis='x', length=0)


def _draw_title(figure, report: Dict[str, Any]) -> None:
    """Write the costs and the legend above the first row."""
    found = {**report, **report.get('others', {})}
    costs = [
        '{} {} ⇒ {}'.format(
            metric.label,
            *(format_amount(found[name][which])
              for which in ('supernet', 'counted')))
        for name, metric in METRICS.items()
        if 'counted' in found.get(name, ())
    ]
    blocks = [unit for unit in report['units'] if unit['kind'] == 'depth']
    if blocks:
        costs.append('removable blocks {} ⇒ {}'.format(
            sum(unit['total'] for unit in blocks),
            sum(unit['kept'] for unit in blocks)))
    top = figure.axes[0]
    top.set_title(', '.join(costs), fontsize=10, loc='left', pad=24)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels())
    }
    shown = [label for label in LEGEND if label in handles]
    top.legend([handles[label] for label in shown],
               shown,
               loc='lower left',
               bbox_to_anchor=(0, 1),
               ncols=3,
               frameon=False,
               fontsize=8,
               borderaxespad=.1)


def short(stage: str, most: int = 22) -> str:
    """Shorten the name of a stage to its last parts, for its label."""
    stage = stage.removeprefix('backbone.')
    while len(stage) > most and '.' in stage:
        stage = stage.partition('.')[2]
    return stage


def stages_of(layers: Sequence[str], searched: Sequence[str]) -> List[str]:
    """Name the stage that each layer is drawn in.

    Args:
        layers (Sequence[str]): Paths of all layers.
        searched (Sequence[str]): Paths of the stages with removable blocks.

    Returns:
        list[str]: Per layer the searched stage around it; elsewhere its path
        up to the first number (``layer1.0.conv1`` is in ``layer1``), that
        number included where stages are numbered too: ``layers.4.1.conv`` is
        in ``layers.4``, and then ``layers.0.conv`` in ``layers.0``.
    """
    numbered = {
        found[1]
        for found in (re.match(r'(.*?)\.\d+\.\d+(\.|$)', layer)
                      for layer in layers) if found
    }

    def stage_of(layer: str) -> str:
        found = re.match(r'(.*?)\.\d+', layer) or [layer, layer]
        path = found[0] if found[1] in numbered else found[1]
        return next((s for s in searched if layer.startswith(s + '.')), path)

    return [stage_of(layer) for layer in layers]


def spans(values: List[Any]) -> List[Tuple[int, int, Any]]:
    """First and last place and value of each run of equal neighbours."""
    runs = (list(run)
            for _, run in groupby(enumerate(values), lambda pair: pair[1]))
    return [(run[0][0], run[-1][0], run[0][1]) for run in runs]
