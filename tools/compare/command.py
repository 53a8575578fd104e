# Copyright (c) dms_razor contributors. All rights reserved.
"""The command line: plan the runs, make those that are missing, draw."""
import argparse
import json
import re
import time
import traceback
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import torch

from dms_razor.core.budget import TargetError, format_amount
from tools.compare.data import load_images
from tools.compare.experiment import Experiment, ExperimentError, load, shipped
from tools.compare.methods.job import cost_of
from tools.compare.pictures import draw
from tools.compare.results import changed, write_results
from tools.compare.runs import Bench, Run
from tools.compare.store import Busy, Store, write_text
from tools.compare.training import Machine

#: Seconds until something that another process makes is looked for again.
WAIT = 5.


def parse_seeds(text: str) -> List[int]:
    """'0-3,8' is [0, 1, 2, 3, 8].

    Raises:
        ValueError: It cannot be read.
    """
    seeds: List[int] = []
    for part in text.split(','):
        match = re.fullmatch(r'(\d+)(?:-(\d+))?', part.strip())
        if match is None:
            raise ValueError(f'seeds "{text}" cannot be read: write 0-9 or '
                             '0,1,5')
        first, last = int(match[1]), int(match[2] or match[1])
        seeds += range(first, last + 1)
    return seeds


def parse_args(arguments: Sequence[str], doc: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='tools/compare',
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'experiment', help=f'a file, or one of {", ".join(shipped())}')
    parser.add_argument('--data', help='image folder, "digits" or "generated"')
    parser.add_argument(
        '--out', type=Path, help='default: work_dirs/compare/EXPERIMENT')
    parser.add_argument(
        '--seeds', default='0', help='e.g. 0-9 or 0,1,5; default: 0')
    parser.add_argument('--rows', help='some rows alone, e.g. dms,even')
    parser.add_argument(
        '--threads', type=int, default=1, help="PyTorch's; default: 1")
    parser.add_argument(
        '--amp', action='store_true', help='run networks in bfloat16')
    parser.add_argument(
        '--device',
        default='cpu',
        help='where networks and images are, e.g. cuda; default: cpu')
    parser.add_argument(
        '--judge',
        type=Path,
        help='the file in which the experiment looks networks up')
    parser.add_argument(
        '--dry-run', action='store_true', help='list the runs, make none')
    parser.add_argument(
        '--table-only',
        action='store_true',
        help='write tables and pictures from what is finished')
    args = parser.parse_args(arguments)
    try:
        args.seeds = parse_seeds(args.seeds)
    except ValueError as error:
        parser.error(str(error))
    if args.device != 'cpu':
        try:
            torch.empty(1, device=args.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            parser.error(f'--device {args.device} cannot be used: {reason}')
    # A comma with a space behind it is part of a name.
    args.rows = re.split(r',(?! )', args.rows) if args.rows else []
    return args


def main(arguments: Sequence[str], doc: str = '') -> Optional[str]:
    """Run the command; returns what was wrong, or None."""
    args = parse_args(arguments, doc)
    try:
        name, experiment = load(args.experiment)
        store = Store(args.out or Path('work_dirs/compare') / name)
        if args.table_only:
            return tables(name, experiment, store)
        torch.set_num_threads(args.threads)
        images = load_images(args.data, experiment.data,
                             store.folder.parent / 'images')
        bench = Bench(experiment, images, store,
                      Machine(args.threads, args.amp, args.device), args.judge)
        plan = bench.plan(args.seeds, args.rows)
        refuse_changed(bench)
        describe(bench, plan)
        if args.dry_run:
            return None
        failed = make_all(bench, plan)
    except (ExperimentError, TargetError) as error:
        return f'{args.experiment}: {error}'
    nothing = tables(name, experiment, store)
    return failed or nothing


def tables(name: str, experiment: Experiment, store: Store) -> Optional[str]:
    """Write tables and pictures; returns what was wrong, or None."""
    runs = write_results(name, experiment, store)
    if not runs:
        return f'{store.folder} has no finished run'
    draw(experiment, runs, store.folder)
    return None


def refuse_changed(bench: Bench) -> None:
    """Runs of two different experiments make no table.

    Raises:
        ExperimentError: It names runs that other settings made.
    """
    other = changed(bench.store.runs(), bench)
    if other:
        shown = ', '.join(other[:5]) + (', …' if len(other) > 5 else '')
        raise ExperimentError(
            f'{len(other)} finished runs in {bench.store.folder} were made '
            f'with other settings or data ({shown}): choose another --out, '
            'or delete their files in runs/ to make them again')


def describe(bench: Bench, plan: List[Run]) -> None:
    """Say what is going to be done."""
    images, metric = bench.images, bench.experiment.metric
    print(f'Images    {images.name}, {len(images.train[1]):,} to train and '
          f'{len(images.test[1]):,} to test, {images.classes} classes, '
          f'{images.settings.size} pixels')
    whole = cost_of(bench.experiment.network, images, metric)
    print(f'Supernet  {format_amount(whole)} {metric}')
    for label, amount in bench.amounts.items():
        print(f'Budget    {label}: {format_amount(amount)} {metric}, '
              f'{amount / whole:.1%}')
    done = [run for run in plan if bench.store.run_file(run.name).exists()]
    print(f'Runs      {len(plan)}, of which {len(done)} are finished')
    for run in plan:
        state = 'finished' if run in done else 'to do'
        print(f'  {run.row}, {run.budget}, seed {run.seed}: {state}')
    print(end='', flush=True)


def make_all(bench: Bench, plan: List[Run]) -> Optional[str]:
    """Make every run that is missing; returns what failed, or None.

    A run that fails does not keep the others from being made. What another
    process is making is waited for.
    """
    failed: Dict[str, List[str]] = {}
    waiting, told = list(plan), 0.
    while waiting:
        busy: List[Run] = []
        reason = ''
        for run in waiting:
            try:
                make(bench, run)
            except Busy as error:
                busy.append(run)
                reason = str(error)
            except Exception as error:
                if not isinstance(error, (ExperimentError, TargetError)):
                    traceback.print_exc()
                reason = f'{type(error).__name__}: {error}'
                failed.setdefault(reason, []).append(run.name)
                print(f'{run.name} failed: {reason}', flush=True)
        if len(busy) == len(waiting):
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f'waiting for {len(busy)} runs: {reason}', flush=True)
            time.sleep(WAIT)
        waiting = busy
    return '\n'.join(f'{len(names)} runs failed ({", ".join(names)}): {reason}'
                     for reason, names in failed.items()) or None


def make(bench: Bench, run: Run) -> None:
    """Make a run, unless it is finished.

    Raises:
        Busy: Another process makes it, or something it needs.
    """
    path = bench.store.run_file(run.name)
    if path.exists():
        return
    with bench.store.claim(run.name):
        if path.exists():
            return
        record = bench.run(run)
        write_text(path, json.dumps(record, sort_keys=True))
    print(
        f'{run.row} {run.budget} seed {run.seed}: top-1 '
        f'{record["top1"]:.2f} %, {100 * record["share_of_budget"]:.1f} % of '
        f'the budget, {record["search_seconds"]:.0f} s search and '
        f'{record["train_seconds"]:.0f} s training',
        flush=True)
