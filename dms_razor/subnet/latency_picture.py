# Copyright (c) dms_razor contributors. All rights reserved.
"""Predicted against measured time, and where the time goes, in one picture.

On the left the subnets that the table was checked with, and the one that was
exported; what lies on the line was predicted exactly. On the right the layers
that take longest: their share of the time in supernet and subnet, beside their
share of the MACs, which is what a search under MACs would have seen.
"""
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

from .picture import FILLED, GONE, OUTLINE, short

MOST = 12
"""Layers that are shown by themselves."""
BARS = (('time, supernet', OUTLINE, ''), ('time, subnet', FILLED, ''),
        ('MACs, supernet', OUTLINE, '///'), ('MACs, subnet', FILLED, '///'))


def draw_latency(report: Dict[str, Any], path: Union[str, Path]) -> None:
    """Draw what a table predicts, and what was measured.

    Args:
        report (dict): The content of a report.json with a latency.
        path (str | Path): Picture to write; the suffix decides its format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    names, shares = shares_of(report)
    figure = Figure(
        figsize=(11, max(3.6, .8 + .42 * len(names))), layout='constrained')
    FigureCanvasAgg(figure)  # leaves the user's pyplot alone
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    _draw_points(left, report['latency'])
    height = .8 / len(BARS)
    for number, (label, color, hatch) in enumerate(BARS):
        right.barh(
            [place + height * (number - 1.5) for place in range(len(names))],
            [100 * share[number] for share in shares],
            height,
            label=label,
            facecolor='none' if hatch else color,
            edgecolor=color,
            hatch=hatch)
    right.set_yticks(
        range(len(names)), [short(name, 30) for name in names], fontsize=8)
    right.invert_yaxis()
    right.set_xlabel('share (%)')
    # Above the axes: bars may reach any corner inside.
    right.legend(
        frameon=False,
        fontsize=8,
        ncol=4,
        loc='lower left',
        bbox_to_anchor=(0, 1))
    for axes in (left, right):
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=120)


def _draw_points(axes: Any, timed: Dict[str, Any]) -> None:
    """Predicted against measured, and what was asked for at most."""
    points = timed['points']
    measured, predicted = (
        list(points.get(name, ())) for name in ('measured', 'predicted'))
    axes.scatter(
        measured, predicted, s=16, color=OUTLINE, label='not in the fit')
    tried = [
        each for each in timed['tried'] or [dict(timed, kept=True)]
        if each['measured'] is not None
    ]
    for each in tried:
        axes.scatter([each['measured']], [each['predicted']],
                     s=50,
                     marker='o' if each['kept'] else 'x',
                     color=FILLED,
                     label='exported' if each['kept'] else 'tried')
    most = 1.08 * max(measured + predicted + [timed['limit']] +
                      [each['measured'] for each in tried])
    axes.plot([0, most], [0, most], color=OUTLINE, linewidth=.8)
    axes.axhline(
        timed['limit'],
        color=GONE,
        linewidth=.8,
        linestyle='--',
        label='asked for at most')
    axes.set_xlim(0, most)
    axes.set_ylim(0, most)
    axes.set_xlabel('measured (ms)')
    axes.set_ylabel('predicted (ms)')
    axes.legend(frameon=False, fontsize=8)


def shares_of(
        report: Dict[str, Any]) -> Tuple[List[str], List[Tuple[float, ...]]]:
    """The layers that take longest, and their shares as in :data:`BARS`.

    The rest is the last one, with everything that is no measured layer.

    Args:
        report (dict): As for :func:`draw_latency`.
    """
    times = report['latency']['layers']
    macs = {layer['name']: layer['macs'] for layer in report['layers']}
    wholes = [sum(pair[i] for pair in times.values()) for i in (0, 1)
              ] + [sum(pair[i] for pair in macs.values()) for i in (0, 1)]
    longest = sorted((name for name in times if name),
                     key=lambda name: -max(times[name][0] / wholes[0], times[
                         name][1] / wholes[1]))[:MOST]
    names = [name for name in times if name in longest]
    found = [
        tuple(amount / (whole or 1.) for amount, whole in zip(
            [*times[name], *macs.get(name, (0, 0))], wholes)) for name in names
    ]
    rest = tuple(
        max(0., 1 - sum(share[i] for share in found)) if wholes[i] else 0.
        for i in range(4))
    return [*names, 'everything else'], [*found, rest]
