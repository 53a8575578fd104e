# Copyright (c) dms_razor contributors. All rights reserved.
"""One search, several budgets, one curve.

The ratios of a search say how much of each unit goes at its own budget;
projected onto another one (:func:`dms_razor.core.project`) they give a network
of that budget too. Search for the smallest, then :func:`sweep`.
"""
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

from ..core.budget import format_amount
from ..core.resource import METRICS
from .export import Export
from .files import whole_file, write_text
from .summary import share


@dataclass
class Point:
    """One budget of a sweep.

    Attributes:
        budget (str): As it was asked for.
        folder (str): The export, inside the sweep's folder.
        cost, of (float): What the subnet and the supernet take, in units of
            the sweep's metric.
        macs, params (int): Counted on the subnet.
        scores (dict[str, float]): What was measured on it.
        ms (float, optional): What the subnet takes on the device, where the
            search was under a latency and the export was measured.
    """
    budget: str
    folder: str
    cost: float
    of: float
    macs: int
    params: int
    scores: Dict[str, float] = field(default_factory=dict)
    ms: Optional[float] = None


@dataclass
class Sweep:
    """The subnets of one search, the largest first.

    Attributes:
        metric (str): What the budgets limit.
        points (list[Point]): One a budget.
    """
    metric: str
    points: List[Point] = field(default_factory=list)

    def table(self) -> str:
        """In Markdown, a line a budget."""
        names = list(
            dict.fromkeys(name for point in self.points
                          for name in point.scores))
        timed = any(point.ms for point in self.points)
        head = [
            'budget', METRICS[self.metric].label, 'of the supernet',
            *['measured (ms)'] * timed, 'parameters', *names
        ]
        rows = [[
            point.budget,
            format_amount(point.cost),
            share(point.cost,
                  point.of), *[f'{point.ms:.4g}' if point.ms else ''] * timed,
            format_amount(point.params),
            *(f'{point.scores[name]:.4g}' if name in point.scores else ''
              for name in names)
        ] for point in self.points]
        lines = [head, ['---'] * len(head), *rows]
        return '\n'.join(f'| {" | ".join(line)} |' for line in lines)

    __repr__ = table

    def save(self, folder: Union[str, Path]) -> None:
        """Write sweep.json, sweep.md and, where there is a score and
        matplotlib, sweep.png."""
        folder = Path(folder)
        write_text(folder / 'sweep.json',
                   json.dumps(asdict(self), indent=1) + '\n')
        write_text(folder / 'sweep.md', self.table() + '\n')
        if any(point.scores for point in self.points):
            try:
                draw_sweep(self, folder / 'sweep.png')
            except ImportError:
                pass  # the table says the same


def sweep(search: Any,
          out_dir: Union[str, Path],
          budgets: Sequence[Union[float, str]],
          finish: Optional[Callable[[Export], Dict[str, float]]] = None,
          **export: Any) -> Sweep:
    """Export the subnets of several budgets from one search, train each.

    Table and picture are written anew after each budget.

    Args:
        search (Search): A search that is done, at the smallest of the budgets.
        out_dir (str | Path): Folder for one export a budget and the curve.
        budgets (sequence of float | str): Targets as ``Search`` takes them.
        finish (callable, optional): ``finish(export)`` trains
            ``export.model`` and returns its scores by name, such as
            ``{'top-1 (%)': 76.1}``.
        **export: Arguments of ``Search.export``, such as ``bn_data``.

    Raises:
        TargetError: A budget cannot be read or reached; nothing was written.
        ValueError: There is none, two of them are the same, or the search
            limits several metrics.
    """
    if search.limits is not None:
        raise ValueError(
            f'a sweep is along one metric, and this search limits '
            f'{search.metric} at once: export it at its own limits, '
            'search.export(folder), or sweep a search of one metric')
    amounts = {str(budget): search.budget(budget) for budget in budgets}
    if not amounts or len(set(amounts.values())) < len(budgets):
        raise ValueError(
            f'the budgets of a sweep are {list(budgets)}: give at least one, '
            'and each once')
    for amount in amounts.values():
        search.project(amount)
    found, out_dir = Sweep(search.metric), Path(out_dir)
    for name in sorted(amounts, key=amounts.get, reverse=True):
        folder = re.sub(r'[^\w.+-]', '_', name.replace('%', 'pct'))
        done = search.export(out_dir / folder, amounts[name], **export)
        report = done.report
        found.points.append(
            Point(
                name,
                folder,
                float(report.cost(search.metric)),
                float(search.space.resource.supernet(search.metric)),
                report.cost('macs'),
                report.cost('params'),
                ms=done.manifest.measured.get('measured')))
        if finish is not None:
            found.points[-1].scores = _checked(finish(done), name)
        found.save(out_dir)
    return found


def _checked(scores: Any, budget: str) -> Dict[str, float]:
    """What ``finish`` returned, as numbers."""
    try:
        return {str(name): float(value) for name, value in scores.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'finish(export) returned {scores!r} for the budget {budget}: it '
            "has to return numbers by name, such as {'top-1 (%)': 76.1}"
        ) from error


def draw_sweep(found: Sweep, path: Union[str, Path]) -> None:
    """Draw the scores over the cost, one picture a score.

    Args:
        found (Sweep): A sweep with scores.
        path (str | Path): Picture to write; the suffix decides its format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    names = list(
        dict.fromkeys(name for point in found.points for name in point.scores))
    figure = Figure(figsize=(6.4, 3.4 * len(names) + .4), layout='constrained')
    FigureCanvasAgg(figure)  # leaves the user's pyplot alone
    for axes, name in zip(
            figure.subplots(len(names), squeeze=False)[:, 0], names):
        points = [point for point in found.points if name in point.scores]
        timed = all(point.ms for point in points)
        places = [
            point.ms if timed else 100 * point.cost / point.of
            for point in points
        ]
        scores = [point.scores[name] for point in points]
        axes.plot(places, scores, 'o-', color='#2a6f97')
        for place, score, point in zip(places, scores, points):
            axes.annotate(
                f'{point.budget if timed else format_amount(point.cost)}\n'
                f'{score:.4g}', (place, score),
                xytext=(0, 7),
                textcoords='offset points',
                ha='center',
                fontsize=8)
        axes.margins(.12, .3)
        axes.set_xlabel('latency, measured (ms)' if timed else
                        f'{METRICS[found.metric].label} (% of the supernet)')
        axes.set_ylabel(name)
        axes.spines[['top', 'right']].set_visible(False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
