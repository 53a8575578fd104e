# Copyright (c) dms_razor contributors. All rights reserved.
"""Pictures of a comparison, with matplotlib."""
import statistics
from pathlib import Path
from typing import Any, Dict, List, Sequence, Set, Tuple

import torch
from torch import Tensor

from dms_razor.core.layout import Layout, Unit
from dms_razor.core.selectors import SELECTORS, Selector
from tools.compare.experiment import Experiment, slug
from tools.compare.results import grouped, mean_spread

Run = Dict[str, Any]
#: Colours come ten at a time; after ten rows the marker changes.
MARKERS = 'osd^'


def draw(experiment: Experiment, runs: List[Run], folder: Path) -> List[Path]:
    """Draw everything that the runs are enough for.

    Returns:
        list[Path]: The pictures; none without matplotlib, which is said.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print('There are no pictures: matplotlib is not installed.')
        return []
    groups = grouped(experiment, runs)
    pictures = [folder / 'accuracy_macs.png', folder / 'accuracy_cost.png']
    draw_accuracy(groups, pictures[0], 'macs', 'MACs of one image (millions)',
                  1e6)
    draw_accuracy(groups, pictures[1], 'search_cpu_seconds',
                  'search (seconds of a processor)')
    for (label, row), group in groups.items():
        first = min(group, key=lambda run: run['seed'])
        if first['trace']:
            name = f'structure_{slug(row)}_{slug(label)}.png'
            pictures.append(folder / name)
            draw_structure(first, pictures[-1])
    names = used_selectors(experiment, {row for _, row in groups})
    if names:
        pictures.append(folder / 'masks.png')
        draw_masks(names, pictures[-1])
    for path in pictures:
        print(f'Picture   {path}')
    return pictures


def _canvas(path: Path, rows: int = 1, columns: int = 1, size=(6.4, 4.2)):
    """A figure that leaves the user's pyplot alone, and what saves it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=size, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)

    def save() -> None:
        figure.savefig(path, dpi=120)

    return axes, save


def draw_accuracy(groups: Dict[Tuple[str, str], List[Run]],
                  path: Path,
                  key: str,
                  label: str,
                  unit: float = 1.) -> None:
    """Top-1 over a field of the runs: a line a row, a point a budget."""
    axes, save = _canvas(path, size=(8.4, 4.2))
    axes = axes[0, 0]
    for number, row in enumerate(dict.fromkeys(row for _, row in groups)):
        points = sorted((statistics.fmean(run[key] for run in group) / unit,
                         *mean_spread([run['top1'] for run in group]))
                        for (_, name), group in groups.items() if name == row)
        axes.errorbar([point[0] for point in points],
                      [point[1] for point in points],
                      [point[2] or 0. for point in points],
                      color=f'C{number % 10}',
                      marker=MARKERS[number // 10 % len(MARKERS)],
                      capsize=3,
                      label=row)
    axes.set(xlabel=label, ylabel='top-1 (%), mean ± deviation over seeds')
    axes.grid(alpha=.3)
    axes.figure.legend(loc='outside right upper')
    save()


def draw_structure(run: Run, path: Path) -> None:
    """Cost, widths and blocks over a search, and masks of its widest unit."""
    axes, save = _canvas(path, 2, 2, (10., 8.))
    cost, widths, depth, masks = axes.flat
    trace = run['trace']
    steps = [point['step'] for point in trace]
    for key in ('target', 'soft', 'hard'):
        cost.plot(steps, [point[key] / 1e6 for point in trace], label=key)
    cost.set(xlabel='step', ylabel='cost of the network (millions)')
    cost.legend()
    for number, unit in enumerate(run['structure']):
        kept = [point['kept'][number] for point in trace]
        if unit['kind'] == 'depth':
            depth.step(steps, kept, where='post', label=unit['name'])
        else:
            widths.plot(steps, [1 - p['ratios'][number] for p in trace])
    widths.set(
        xlabel='step',
        ylabel='share of each width that stays',
        ylim=(-.02, 1.02))
    depth.set(xlabel='step', ylabel='removable blocks that stay')
    depth.yaxis.get_major_locator().set_params(integer=True)
    if depth.get_legend_handles_labels()[0]:
        depth.legend(fontsize='small')
    for number in range(0, len(trace), max(1, len(trace) // 5)):
        values = trace[number]['masks']
        masks.plot([(i + .5) / len(values) for i in range(len(values))],
                   values,
                   label=f'step {steps[number]}')
    masks.set(
        xlabel=f"elements of {trace[0]['widest']}, by mask",
        ylabel='mask',
        ylim=(-.05, 1.05))
    masks.legend(fontsize='small')
    cost.set_title(f"{run['row']}, {run['budget']}, seed {run['seed']}")
    save()


def used_selectors(experiment: Experiment, rows: Set[str]) -> List[str]:
    """Selectors with one number a unit with which these rows were searched.

    The masks of others have no curve over the rank; what they were is in the
    picture of each search.
    """
    names = [
        row.search.get('selector') or 'dms' for row in experiment.rows
        if row.method == 'dms' and row.name in rows
    ]
    return [
        name for name in dict.fromkeys(names)
        if isinstance(name, str) and len(_one_unit(name).numbers) == 1
    ]


def _one_unit(name: str, size: int = 100) -> Selector:
    """A selector over one unit, of which half stays.

    Importances are evenly spread, for selectors that look at them.
    """
    layout = Layout([Unit('width', 'width', size)])
    selector = SELECTORS.find(name)(layout)
    selector.score((torch.arange(size).double() + .5) / size)
    selector.set_kept(torch.tensor([size // 2]), torch.tensor([True]))
    return selector


def mask_curve(name: str, size: int = 100) -> Tuple[Tensor, Tensor]:
    """Masks of one unit that keeps half, and their slopes (paper, Figure 2).

    Args:
        name (str): A selector with one number a unit.
        size (int): Elements of the unit. Defaults to 100.

    Returns:
        tuple[Tensor, Tensor]: Masks m and dm/da, both ``[E]``, the least
        important element first.
    """
    selector = _one_unit(name, size)
    numbers = selector.numbers.clone().requires_grad_()
    masks = selector.soft(numbers, torch.arange(size))
    slopes = [
        torch.autograd.grad(mask, numbers, retain_graph=True)[0]
        for mask in masks
    ]
    return masks.detach(), torch.cat(slopes)


def draw_masks(names: Sequence[str], path: Path) -> None:
    """The masks of selectors and their slopes, over the normalised rank."""
    axes, save = _canvas(path, 1, 2, (10., 4.2))
    for name in names:
        masks, slopes = mask_curve(name)
        ranks = (torch.arange(len(masks)) + .5) / len(masks)
        axes[0, 0].plot(ranks, masks, label=name)
        axes[0, 1].plot(ranks, slopes, label=name)
    axes[0, 0].set(xlabel='normalised rank', ylabel='mask')
    axes[0, 1].set(xlabel='normalised rank', ylabel='slope of the mask')
    axes[0, 0].legend()
    save()
