# Copyright (c) dms_razor contributors. All rights reserved.
"""A table of latencies: parts of one network, and some whole subnets of it."""
import itertools
import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.latency import (COEFFICIENTS, FORMAT, Latency, LatencyError,
                            checksum, layers_of)
from ..core.layout import Unit
from ..network import as_arguments, run_model
from ..space import Space
from ..subnet.files import write_text
from ..subnet.slicing import plain_copy, slice_model
from .clock import Setting, interleaved, runner, threads
from .parts import COPIES, Part, parts_of

GRID = (.125, .25, .5, .75, 1.)
SAVE_EVERY = 20  # points; a run that is killed loses no more


def measure(
    model: nn.Module,
    space: Space,
    setting: Setting,
    path: Union[str, Path],
    forward: Optional[Callable] = None,
    *,
    grid: Sequence[float] = GRID,
    rounds: int = 9,
    whole: int = 9,
    held_out: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None
) -> Dict[str, Any]:
    """Measure what a network's parts take, and write the table.

    A file that an interrupted run has left is gone on with.

    Args:
        model (nn.Module): The supernet, not masked.
        space (Space): Its space.
        setting (Setting): Backend and threads.
        path (str | Path): File of the table.
        forward (callable, optional): ``forward(model, *inputs)``.
        grid (Sequence[float]): Shares of widths, ascending, the last 1.
        rounds (int): Figures of which a time is the median.
        whole (int): Whole subnets to which the sum is fitted; 3 to 10.
        held_out (int): Further whole subnets that are measured to see how good
            the table is, and take no part in the fit.
        progress (callable): Told how many points are done, and of how many.

    Raises:
        LatencyError: The file is another network's or setting's.
        TimingError: The backend cannot run something.
    """
    inputs, forward = as_arguments(space.example_inputs, forward or run_model)
    plain = plain_copy(model).eval()
    parts = parts_of(plain, space, inputs, forward)
    table = _begun(
        Path(path),
        dict(
            format=FORMAT,
            version=1,
            layers=layers_of(space.resource),
            setting=setting.describe(),
            input=[list(x.shape) for x in inputs if isinstance(x, Tensor)],
            grid=list(grid)))
    with threads(setting):
        _measure_parts(table, parts, setting, path, rounds, progress)
        fitted = spread_subnets(space, whole)
        others = spread_subnets(space, held_out + 1, seed=1)[1:]
        times = measure_whole(plain, space, fitted + others, setting, inputs,
                              forward, rounds)
    _fit(table, space, fitted, times[:whole])
    if others:
        table['held_out'] = _compare(table, space, others, times[whole:])
    table['checksum'] = checksum(table)
    write_text(path, json.dumps(table, indent=1) + '\n')
    return table


def _begun(path: Path, head: Dict[str, Any]) -> Dict[str, Any]:
    """What an interrupted run has left, or a new table."""
    head = json.loads(json.dumps(head))
    if not path.exists():
        return dict(head, points={})
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise LatencyError(f'{str(path)!r} is there and is no table ({error});'
                           ' name another file or remove it') from error
    differ = [name for name in head if found.get(name) != head[name]]
    if differ:
        raise LatencyError(
            f'{str(path)!r} is a table of something else, its '
            f'{" and ".join(differ)} differ; name another file or remove it')
    return {**found, 'coefficients': None}


def _measure_parts(table: Dict[str, Any], parts: Dict[str, Part],
                   setting: Setting, path: Union[str, Path], rounds: int,
                   progress: Callable[[int, int], None]) -> None:
    """Fill in the points that are missing, and save now and then."""
    points = table['points']
    todo = [(part, point) for part in dict.fromkeys(parts.values())
            for point in part.points(table['grid'])]
    nothing, = interleaved(
        [runner(nn.Identity(), [torch.zeros(1)], setting, run_model)], rounds)
    for number, (part, point) in enumerate(todo):
        known = points.setdefault(part.key, {})
        name = f'{point[0]:g} {point[1]:g}'
        if name not in known:
            module, x = part.build(*point)
            found, = interleaved([runner(module, [x], setting, run_model)],
                                 rounds)
            known[name] = [
                max(0., found['ms'] - nothing['ms']) / COPIES, found['spread']
            ]
            if number % SAVE_EVERY == 0:
                write_text(path, json.dumps(table, indent=1) + '\n')
        progress(number + 1, len(todo))
    table['parts'] = {
        name: _values(points, part, table['grid'])
        for name, part in parts.items()
    }
    write_text(path, json.dumps(table, indent=1) + '\n')


def _values(points: Dict[str, Any], part: Part,
            grid: Sequence[float]) -> List[List[float]]:
    """Milliseconds ``[n, n]``, also where a width does not move."""
    known, asked = points[part.key], set(part.points(grid))

    def at(first: float, second: float) -> float:
        first = first if part.moves[0] else 1.
        second = second if part.moves[1] and not part.depthwise else 1.
        assert (first, second) in asked
        return known[f'{first:g} {second:g}'][0]

    return [[at(first, second) for second in grid] for first in grid]


def spread_subnets(space: Space, number: int, seed: int = 0) -> List[Tensor]:
    """Selections from a small network to the whole, of units that differ."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.ones(space.layout.E).bool()]
    for i in range(number - 1):
        middle = .3 + .65 * i / max(1, number - 2)

        def kept(unit: Unit) -> int:
            share = middle + .3 * (
                float(torch.rand((), generator=generator)) - .5)
            return min(
                unit.allowed, key=lambda count: abs(count - share * unit.size))

        chosen.append(space.draw(kept, generator))
    return chosen


def measure_whole(plain: nn.Module, space: Space, chosen: Sequence[Tensor],
                  setting: Setting, inputs: Tuple, forward: Callable,
                  rounds: int) -> List[Dict[str, float]]:
    """Time and spread of whole subnets, taking turns.

    Args:
        plain (nn.Module): The supernet, in eval mode.
        space (Space): Its space.
        chosen (Sequence[Tensor]): Selections, bool ``[E]``.
        setting, inputs, forward, rounds: As for :func:`.clock.runner` and
            :func:`.clock.interleaved`.
    """
    return interleaved([
        runner(
            slice_model(plain_copy(plain), space, selection).eval(), inputs,
            setting, forward) for selection in chosen
    ], rounds)


def _fit(table: Dict[str, Any], space: Space, chosen: Sequence[Tensor],
         times: Sequence[Dict[str, float]]) -> None:
    """Fit the sum to whole subnets, and say how far off it is.

    The error is that of each subnet by a fit to all the others.
    """
    latency = Latency(space.resource, table, torch.device('cpu'))
    rows = torch.stack([
        latency.features(
            space.counts(selection), selection[latency.used].double())
        for selection in chosen
    ])
    found = torch.tensor([each['ms'] for each in times]).double()
    table['coefficients'] = dict(
        zip(COEFFICIENTS,
            not_negative(rows, found).tolist()))
    every = torch.arange(len(rows))
    errors = [
        abs(
            float(rows[i] @ not_negative(rows[every != i], found[every != i]))
            / float(found[i]) - 1) for i in every
    ]
    table['fit'] = dict(
        measured=found.tolist(),
        spread=[each['spread'] for each in times],
        macs=[space.cost(selection, 'macs') for selection in chosen],
        median_error=float(torch.tensor(errors).median()),
        largest_error=max(errors))


def _compare(table: Dict[str, Any], space: Space, chosen: Sequence[Tensor],
             times: Sequence[Dict[str, float]]) -> Dict[str, Any]:
    """Predicted and measured time of subnets outside of the fit."""
    latency = Latency(space.resource, table, torch.device('cpu'))
    predicted = torch.stack([
        latency.value(
            space.counts(selection), selection[latency.used].double())
        for selection in chosen
    ])
    found = torch.tensor([each['ms'] for each in times]).double()
    errors = (predicted / found - 1).abs()
    return dict(
        predicted=predicted.tolist(),
        measured=found.tolist(),
        spread=[each['spread'] for each in times],
        macs=[space.cost(selection, 'macs') for selection in chosen],
        spearman=spearman(predicted, found),
        median_error=float(errors.median()),
        error_95=float(errors.quantile(.95)))


def spearman(first: Tensor, second: Tensor) -> float:
    """Correlation of the ranks of two rows of numbers, without ties."""
    a, b = (x.argsort().argsort().double() for x in (first, second))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (a.norm() * b.norm()))


def not_negative(rows: Tensor, values: Tensor) -> Tensor:
    """The x of least squares of ``(rows @ x − values) / values``, x ≥ 0.

    Few columns: every set of them is tried.

    Args:
        rows (Tensor): float64 ``[N, n]``.
        values (Tensor): Positive, float64 ``[N]``.
    """
    scale = rows.abs().amax(0)
    a, best = rows / scale.clamp(min=1e-300) / values[:, None], None
    for size in range(1, rows.shape[1] + 1):
        for columns in itertools.combinations(range(rows.shape[1]), size):
            x = torch.zeros(rows.shape[1]).double()
            x[list(columns)] = torch.linalg.lstsq(
                a[:, columns], torch.ones(len(a), 1).double(),
                driver='gelsd').solution[:, 0]
            off = float((a @ x - 1).square().sum())
            if bool((x >= 0).all()) and (best is None or off < best[0]):
                best = off, x
    return best[1] / scale.clamp(min=1e-300)
