# Copyright (c) dms_razor contributors. All rights reserved.
"""A table of latencies: parts of one network, and some whole subnets of it."""
import hashlib
import json
import math
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.latency import (COEFFICIENTS, FORMAT, GRID_CURVE, Latency,
                            LatencyError, checksum, layers_of)
from ..core.layout import Unit
from ..core.least_squares import not_negative
from ..core.plain_json import loads
from ..core.steps import divisor_of, probed_widths, rounded
from ..core.table_file import VERSION
from ..network import as_arguments, run_model
from ..space import Space
from ..subnet.files import write_text
from ..subnet.slicing import plain_copy, slice_model
from .bench import Job
from .on_device import WHOLE
from .parts import COPIES, Part, parts_of

GRID = (.125, .25, .5, .75, 1.)
SAVE_EVERY = 20  # points; a run that is killed loses no more


def measure(
    model: nn.Module,
    space: Space,
    bench: Any,
    path: Union[str, Path],
    forward: Optional[Callable] = None,
    *,
    grid: Sequence[float] = GRID,
    whole: int = 9,
    held_out: int = 0,
    steps: int = 3,
    curve: str = GRID_CURVE,
    in_steps: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None
) -> Dict[str, Any]:
    """Measure what a network's parts take, and write the table.

    A file that an interrupted run has left is gone on with.

    Args:
        model (nn.Module): The supernet, not masked.
        space (Space): Its space.
        bench (Here | Elsewhere): What times; see :mod:`.bench`.
        path (str | Path): File of the table.
        forward (callable, optional): ``forward(model, *inputs)``.
        grid (Sequence[float]): Shares of widths, ascending, the last 1.
        whole (int): Whole subnets to which the sum is fitted; 3 to 10.
        held_out (int): Further whole subnets that are measured to see how good
            the table is, and take no part in the fit.
        steps (int): Layers, the largest, that are measured at neighbouring
            widths too: see :mod:`dms_razor.core.steps`.
        curve (str): What a part's time is between those shares, a name of
            :data:`dms_razor.core.latency.CURVES`.
        in_steps (bool): Whether the search will keep to the steps in which a
            width pays here, ``divisor='auto'``: no other widths are measured.
        progress (callable): Told how many points are done, and of how many.

    Raises:
        LatencyError: The file is another network's or setting's.
        TimingError: The backend cannot run something.
    """
    table = _begun(Path(path), _head(space, bench, grid))

    def save() -> None:
        write_text(path, json.dumps(table, indent=1) + '\n')

    table['curve'] = curve
    fitted, others, times = gather(table, model, space, bench, forward, whole,
                                   held_out, steps, save, progress, in_steps)
    _fit(table, space, fitted, times[:whole])
    if others:
        table['held_out'] = _compare(table, space, others, times[whole:])
    table['checksum'] = checksum(table)
    save()
    return table


def _head(space: Space, bench: Any, grid: Sequence[float]) -> Dict[str, Any]:
    """Of what network, and with what, the figures of a table are."""
    inputs, _ = as_arguments(space.example_inputs, run_model)
    return dict(
        format=FORMAT,
        version=VERSION,
        layers=layers_of(space.resource),
        setting=bench.describe(),
        input=[list(x.shape) for x in inputs if isinstance(x, Tensor)],
        grid=list(grid))


def gather(
    table: Dict[str, Any],
    model: nn.Module,
    space: Space,
    bench: Any,
    forward: Optional[Callable],
    whole: int,
    held_out: int,
    steps: int,
    save: Callable[[], None],
    progress: Callable[[int, int], None] = lambda done, of: None,
    in_steps: bool = False
) -> Tuple[List[Tensor], List[Tensor], List[Dict[str, float]]]:
    """Have everything timed that a table needs.

    Args:
        table (dict): Its beginning; takes the times of parts and steps.
        save (callable): Called now and then.
        model, space, bench, forward, whole, held_out, steps: As for
            :func:`measure`.
        progress, in_steps: As for :func:`measure`.

    Returns:
        tuple: Whole subnets for the fit, those held out, and times of both.
    """
    inputs, forward = as_arguments(space.example_inputs, forward or run_model)
    plain = plain_copy(model).eval()
    parts = parts_of(plain, space, inputs, forward)
    measure_steps(table, parts, bench, steps, save)
    divisor = divisor_of(table)[0] if in_steps else 1
    parts = {name: part.in_steps(divisor) for name, part in parts.items()}
    measure_parts(table, parts, bench, save, progress)
    fitted = spread_subnets(space, whole, 0, divisor)
    others = spread_subnets(space, held_out + 1, 1, divisor)[1:]
    jobs = whole_jobs(plain, space, fitted + others, inputs, forward)
    return fitted, others, bench(jobs)


def _begun(path: Path, head: Dict[str, Any]) -> Dict[str, Any]:
    """What an interrupted run has left, or a new table."""
    head = json.loads(json.dumps(head))
    if not path.exists():
        return dict(head, points={})
    try:
        found = loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise LatencyError(f'{str(path)!r} is there and is no table ({error});'
                           ' name another file or remove it') from error
    if not isinstance(found, dict):
        raise LatencyError(f'{str(path)!r} is there and is no table; name '
                           'another file or remove it')
    differ = [name for name in head if found.get(name) != head[name]]
    if differ:
        raise LatencyError(
            f'{str(path)!r} is a table of something else, its '
            f'{" and ".join(differ)} differ; name another file or remove it')
    return {**found, 'coefficients': None}


def measure_parts(table: Dict[str, Any], parts: Dict[str, Part], bench: Any,
                  save: Callable[[], None], progress: Callable[[int, int],
                                                               None]) -> None:
    """Fill in the points that are missing, and save now and then."""
    points = table.setdefault('points', {})
    todo = [(part, point) for part in dict.fromkeys(parts.values())
            for point in part.points(table['grid'])]
    for number, (part, point) in enumerate(todo):
        known = points.setdefault(part.key, {})
        name = '{} {}'.format(*point)
        if name not in known:
            several, one = bench(
                [part_job(part, point, copies) for copies in (COPIES, 1)])
            ms = max(0., several['ms'] - one['ms']) / (COPIES - 1)
            known[name] = [ms, max(several['spread'], one['spread'])]
            if number % SAVE_EVERY == 0:
                save()
        progress(number + 1, len(todo))
    table['parts'] = {
        name: _values(points[part.key], part, table['grid']).tolist()
        for name, part in parts.items()
    }
    save()


def part_job(part: Part, point: Tuple[int, int], copies: int) -> Job:
    """Copies of a layer alone, at other widths."""

    def build() -> Tuple:
        module, x = part.build(*point, copies)
        return module, [x], run_model

    return Job('{} at {} {}, {} times'.format(part.key, *point, copies), build)


def measure_steps(table: Dict[str, Any], parts: Dict[str, Part], bench: Any,
                  number: int, save: Callable[[], None]) -> None:
    """The largest layers at neighbouring widths, which take turns."""
    macs: Dict[Part, float] = {}
    for name, part in parts.items():
        moves = part.moves[0] if part.depthwise else part.moves[1]
        if moves and probed_widths(part.widths[1]):
            macs[part] = macs.get(part, 0.) + math.prod(table['layers'][name])
    known = table.setdefault('steps', {})
    order = sorted(macs, key=macs.get, reverse=True)
    deep = [part for part in order if part.depthwise]
    for part in dict.fromkeys([*order[:number], *deep[:number]]):
        if part.key not in known:
            widths = probed_widths(part.widths[1])
            found = bench([
                part_job(part, (w if part.depthwise else part.widths[0], w),
                         COPIES) for w in widths
            ])
            known[part.key] = {
                str(w): each['ms']
                for w, each in zip(widths, found)
            }
            save()


def _values(known: Dict[str, List[float]], part: Part,
            grid: Sequence[float]) -> Tensor:
    """Milliseconds ``[n, n]`` at the shares of the grid.

    The widths that were measured are not quite those shares.
    """
    first = part.across(grid, 0)
    second = [0] if part.depthwise else part.across(grid, 1)
    times = torch.tensor([[known[f'{a} {b or a}'][0] for b in second]
                          for a in first]).double()
    for side, widths in enumerate((first, second)):
        wanted = torch.tensor(grid).double() * part.widths[side]
        times = resampled(times, widths, wanted).T
    return times


def resampled(rows: Tensor, at: Sequence[int], wanted: Tensor) -> Tensor:
    """Rows of a function at other places, on straight lines, none below 0.

    Args:
        rows (Tensor): Its values, ``[n, ...]``.
        at (Sequence[int]): Where they are, n places, ascending.
        wanted (Tensor): Other places, ``[m]``; beyond the ends the lines of
            the ends go on.
    """
    if len(at) == 1:
        return rows.expand(len(wanted), -1)
    places = torch.tensor(at).to(wanted)
    cell = (torch.bucketize(wanted, places, right=True) - 1).clamp(
        0,
        len(at) - 2)
    low, high = places[cell], places[cell + 1]
    share = ((wanted - low) / (high - low))[:, None]
    return (rows[cell] * (1 - share) + rows[cell + 1] * share).clamp(min=0)


def spread_subnets(space: Space,
                   number: int,
                   seed: int = 0,
                   divisor: int = 1) -> List[Tensor]:
    """Selections from a small network to the whole, of units that differ;
    widths are multiples of a number."""
    generator = torch.Generator().manual_seed(seed)
    allowed = {
        unit.name: unit.allowed
        for unit in rounded(space.layout, divisor).units
    }
    chosen = [torch.ones(space.layout.E).bool()]
    for i in range(number - 1):
        middle = .3 + .65 * i / max(1, number - 2)

        def kept(unit: Unit) -> int:
            share = middle + .3 * (
                float(torch.rand((), generator=generator)) - .5)
            return min(
                allowed[unit.name],
                key=lambda count: abs(count - share * unit.size))

        chosen.append(space.draw(kept, generator))
    return chosen


def whole_jobs(plain: nn.Module, space: Space, chosen: Sequence[Tensor],
               inputs: Tuple, forward: Callable) -> List[Job]:
    """Whole subnets to time.

    Args:
        plain (nn.Module): The supernet, in eval mode.
        space (Space): Its space.
        chosen (Sequence[Tensor]): Selections, bool ``[E]``.
        inputs, forward: What they are called with, and how.
    """

    def build(selection: Tensor) -> Tuple:
        subnet = slice_model(plain_copy(plain), space, selection)
        return subnet.eval(), inputs, forward

    def name(selection: Tensor) -> str:
        # of another network nothing may pass for one of this
        text = json.dumps([layers, selection.tolist()])
        return f'{WHOLE}{hashlib.sha256(text.encode()).hexdigest()[:16]}'

    layers = layers_of(space.resource)
    return [
        Job(name(selection), partial(build, selection), True)
        for selection in chosen
    ]


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
