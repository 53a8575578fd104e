# Copyright (c) dms_razor contributors. All rights reserved.
"""From runs to tables: results.json, results.csv, table.md.

Each run is a dict with the fields that docs/en/compare.md lists.
"""
import csv
import io
import json
import math
import statistics
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from dms_razor.core.budget import format_amount
from dms_razor.subnet.report import table
from tools.compare.experiment import Experiment
from tools.compare.store import Store, write_text

#: Fields of a run that are a number or a word, in the order of the CSV.
FIELDS = ('row', 'budget', 'seed', 'top1', 'top1_before_training', 'loss',
          'macs', 'params', 'amount', 'share_of_budget', 'share_of_supernet',
          'search_seconds', 'search_cpu_seconds', 'search_steps',
          'search_images', 'train_seconds', 'train_cpu_seconds',
          'train_images', 'threads', 'date')
Run = Dict[str, Any]


def write_results(name: str, experiment: Experiment,
                  store: Store) -> List[Run]:
    """Write the three files from all finished runs, and print the table.

    Without the folder of runs, as when only results.json was kept, the runs
    are those of results.json, and only the other files are written.

    Returns:
        list[dict]: The runs.
    """
    path = store.folder / 'results.json'
    if not (store.folder / 'runs').is_dir() and path.exists():
        kept = json.loads(path.read_text())
        runs = [{
            **run, 'settings': kept['settings'][run['row']]
        } for run in kept['runs']]
    else:
        runs = store.runs()
        if runs:
            write_text(path, as_json(name, experiment, runs))
    if not runs:
        return []
    write_text(store.folder / 'results.csv', as_csv(runs))
    text = markdown(name, experiment, runs)
    write_text(store.folder / 'table.md', text)
    print(text)
    return runs


def as_json(name: str, experiment: Experiment, runs: List[Run]) -> str:
    """All runs, one a line; settings once a row, the trace of one seed."""
    settings = {run['row']: run['settings'] for run in runs}
    first: Dict[Tuple[str, str], int] = {}
    for run in runs:
        key = run['row'], run['budget']
        first[key] = min(run['seed'], first.get(key, run['seed']))
    lines = []
    for run in runs:
        kept = {k: v for k, v in run.items() if k != 'settings'}
        if run['seed'] != first[run['row'], run['budget']]:
            kept['trace'] = []
        lines.append(json.dumps(kept, sort_keys=True))
    head = json.dumps(
        dict(
            experiment=name,
            title=experiment.title,
            references=list(experiment.references),
            settings=settings),
        indent=1,
        sort_keys=True)
    return head[:-2] + ',\n "runs": [\n  ' + ',\n  '.join(lines) + '\n ]\n}\n'


def as_csv(runs: List[Run]) -> str:
    """One line a run."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, FIELDS, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows(runs)
    return text.getvalue()


def mean_spread(values: Sequence[float]) -> Tuple[float, Optional[float]]:
    """Mean and sample deviation; no deviation of one value."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


def paired(runs: Iterable[Run],
           others: Iterable[Run]) -> Optional[Tuple[float, float, int]]:
    """Mean difference of top-1 over common seeds, and its standard error.

    Returns:
        tuple, optional: Difference, standard error (nan of one seed), number
        of seeds; None without a common seed.
    """
    by_seed = {run['seed']: run['top1'] for run in others}
    differences = [
        run['top1'] - by_seed[run['seed']] for run in runs
        if run['seed'] in by_seed
    ]
    if not differences:
        return None
    mean, spread = mean_spread(differences)
    error = math.nan if spread is None else spread / len(differences)**.5
    return mean, error, len(differences)


def grouped(experiment: Experiment,
            runs: List[Run]) -> Dict[Tuple[str, str], List[Run]]:
    """Runs by budget and row, in the experiment's order, unknown ones last."""
    order: Dict[Tuple[str, str], List[Run]] = {
        (label, row.name): []
        for label in experiment.labelled
        for row in experiment.rows
    }
    for run in runs:
        order.setdefault((run['budget'], run['row']), []).append(run)
    return {key: group for key, group in order.items() if group}


def markdown(name: str, experiment: Experiment, runs: List[Run]) -> str:
    """The table with its heading."""
    groups = grouped(experiment, runs)
    judged = list(
        dict.fromkeys(key for run in runs for key in run.get('judged', {})))
    before = any('top1_before_training' in run for run in runs)
    head = [
        'budget', 'network', 'MACs', 'parameters', 'of budget',
        *['as cut (%)'] * before, 'top-1 (%)', 'seeds', *judged,
        *[f'minus {row}'
          for row in experiment.references], 'search (s)', 'training (s)'
    ]
    rows = []
    for (label, row), group in groups.items():
        rows.append([
            label, row,
            _amount(group, 'macs'),
            _amount(group, 'params'),
            f"{100 * _mean(group, 'share_of_budget'):.1f} %",
            *[_spread_of(group, 'top1_before_training')] * before,
            _spread([run['top1'] for run in group]),
            str(len(group)), *[
                _spread_of([run.get('judged', {}) for run in group], key)
                for key in judged
            ], *[
                '–' if row == other else _difference(
                    paired(group, groups.get((label, other), [])))
                for other in experiment.references
            ], f"{_mean(group, 'search_seconds'):.0f}",
            f"{_mean(group, 'train_seconds'):.0f}"
        ])
    return '\n\n'.join([
        f'# {experiment.title or name}',
        _made(runs), 'Mean ± sample deviation over seeds; differences are '
        'paired by seed, ± standard error. Seconds are by the clock.',
        table(head, rows)
    ]) + '\n'


def _mean(group: List[Run], key: str) -> float:
    return statistics.fmean(run[key] for run in group)


def _amount(group: List[Run], key: str) -> str:
    return format_amount(round(_mean(group, key)))


def _spread_of(runs: List[Run], key: str) -> str:
    values = [run[key] for run in runs if key in run]
    return _spread(values) if values else '–'


def _spread(values: Sequence[float]) -> str:
    mean, spread = mean_spread(values)
    return f'{mean:.2f}' if spread is None else f'{mean:.2f} ± {spread:.2f}'


def _difference(found: Optional[Tuple[float, float, int]]) -> str:
    if found is None:
        return '–'
    mean, error, _ = found
    return f'{mean:+.2f}' if math.isnan(
        error) else f'{mean:+.2f} ± {error:.2f}'


def _made(runs: List[Run]) -> str:
    """With what, when and on which data the runs were made."""
    versions = {
        f"{tool} {run['versions'][tool]}"
        for run in runs
        for tool in ('dms_razor', 'torch')
    }
    sources = {run['settings']['data']['source'] for run in runs}
    dates = sorted(run['date'][:10] for run in runs)
    amp = ', bfloat16' if any(run['settings']['amp'] for run in runs) else ''
    data = f'on {", ".join(sorted(sources))}, '
    when = dates[0] if dates[0] == dates[-1] else f'{dates[0]} to {dates[-1]}'
    return (f'{len(runs)} runs {data}{", ".join(sorted(versions))}{amp}, '
            f'{when}.')


def changed(runs: List[Run], bench) -> List[str]:
    """Names of finished runs that other settings made.

    Args:
        runs (list): Finished runs.
        bench (Bench): What the experiment says now.
    """
    now = {row.name: bench.settings(row) for row in bench.experiment.rows}
    return [
        f"{run['row']} {run['budget']} seed {run['seed']}" for run in runs
        if run['row'] in now and (json.loads(json.dumps(now[
            run['row']])) != run['settings'] or run['amount'] != round(
                bench.amounts.get(run['budget'], run['amount'])))
    ]
