# Copyright (c) dms_razor contributors. All rights reserved.
"""Searched under latency, searched under MACs, narrowed evenly: which is best?

    python tools/compare_latency.py scale_down --data FOLDER --seeds 0-2

EXPERIMENT is one of tools/compare, or a file like those; its network, images
and recipes are used. The parts of the network are measured once, with ONNX
Runtime on an otherwise idle machine. Each row fills the same share of the
supernet's latency, as it is measured, and is trained from new weights; in the
end all networks are timed together, taking turns. What is finished is skipped.
"""
import argparse
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402  isort: skip

from dms_razor import Search, baselines  # noqa: E402
from dms_razor.core.projection import project  # noqa: E402
from dms_razor.core.steps import rounded  # noqa: E402
from dms_razor.network import run_model  # noqa: E402
from dms_razor.space import Space  # noqa: E402
from dms_razor.subnet import build_subnet  # noqa: E402
from dms_razor.subnet.slicing import plain_copy, slice_model  # noqa: E402
from dms_razor.timing.bench import Here, Job  # noqa: E402
from dms_razor.timing.clock import Setting  # noqa: E402
from dms_razor.timing.measure import measure  # noqa: E402
from dms_razor.trace import trace  # noqa: E402
from tools.compare.command import parse_seeds  # noqa: E402
from tools.compare.data import Images, load_images  # noqa: E402
from tools.compare.experiment import Experiment, load  # noqa: E402
from tools.compare.results import paired  # noqa: E402
from tools.compare.store import Store, write_text  # noqa: E402

from tools.compare import training  # noqa: E402  isort: skip

#: How often the budget is asked for in other words, and how near it is filled.
ROUNDS, SLACK = 8, .01
#: What widths are multiples of in the rows that say so.
STEP = 8
ROWS = {
    'latency': 'searched under latency',
    'macs': 'searched under MACs',
    'even': 'narrowed evenly',
    'steps': f'searched under latency in steps of {STEP}',
    'rounded': f'searched under latency, rounded to multiples of {STEP}'
}
#: Rows that export what another row has searched.
SHARED = {'rounded': 'latency'}


class Comparison:
    """One experiment's networks at equal latency.

    Args:
        experiment (Experiment): Network, images, recipes.
        images (Images): Its data.
        machine (Machine): How networks are trained.
        folder (Path): Where everything is written.
        target (str): Share of the supernet's latency, e.g. '50%'.
        divisor (int): Widths are multiples of it.
    """

    def __init__(self, experiment: Experiment, images: Images,
                 machine: training.Machine, folder: Path, target: str,
                 divisor: int) -> None:
        self.experiment, self.images = experiment, images
        self.machine = machine
        self.folder, self.target = folder, target
        self.table, self.store = folder / 'latency.json', Store(folder)
        self.units = {'*': dict(divisor=divisor)} if divisor > 1 else None
        self.setting = Setting('onnxruntime', 1)

    def make_table(self) -> None:
        """Measure the parts, unless that is done."""
        if self.table.exists() and '"checksum"' in self.table.read_text():
            return
        network = self.network(0)
        space = trace(network, self.images.example, units=self.units)
        measure(network, space, Here(self.setting), self.table, held_out=20)

    def network(self, seed: int) -> torch.nn.Module:
        """A supernet with new weights."""
        torch.manual_seed(seed)
        return self.experiment.network(classes=self.images.classes)

    def searching(self, network: torch.nn.Module, seed: int,
                  **kwargs: Any) -> Search:
        """A search of it under latency, or whatever ``kwargs`` say."""
        settings = dict(
            metric='latency',
            latency_table=self.table,
            target=self.target,
            seed=seed,
            units=self.units)
        settings.update(kwargs)
        return Search(network, self.images.example, **{
            k: v
            for k, v in settings.items() if v is not None
        })

    def units_of(self, row: str) -> Optional[Dict[str, Any]]:
        """The options of a row's units."""
        return {'*': dict(divisor=STEP)} if row == 'steps' else self.units

    def macs_of_even(self) -> float:
        """Share of the MACs that even narrowing to the latency keeps."""
        search = self.searching(self.network(0), 0)
        baselines.narrow(search, 'uniform')
        space = search.space
        return space.cost(search.keep(), 'macs') / \
            space.resource.supernet('macs')

    def search(self, row: str, seed: int) -> Dict[str, Any]:
        """Weights and state of a search, or of even narrowing."""
        network = self.network(seed)
        settings: Dict[str, Any] = dict(units=self.units_of(row))
        if row == 'macs':
            settings.update(
                metric='macs', target=self.macs_of_even(), latency_table=None)
        search = self.searching(network, seed, **settings)
        if row == 'even':
            baselines.narrow(search, 'uniform', seed=seed)
        else:
            self._search(search, network, seed, f'{row} seed {seed}:')
        return dict(weights=network.state_dict(), search=search.state_dict())

    def fill(self, row: str, seed: int) -> Dict[str, Any]:
        """Export what fills the measured budget.

        The budget is asked of the table in other words until what is measured
        is within it: the prediction of one structure may be some percent off.
        """
        network = self.network(seed)
        made = self.state(SHARED.get(row, row), seed)
        search = self.searching(network, seed, units=self.units_of(row))
        divisor = STEP if row == 'rounded' else 1
        layout = rounded(search.space.layout, divisor)
        network.load_state_dict(made['weights'])
        # The budget is filled under latency, whatever has been searched under.
        search.load_state_dict(made['search'], with_changes=True)
        share = search.target / search.space.resource.supernet('latency')
        asked, best = search.target, None
        for _ in range(ROUNDS):
            selection = search.keep(
                project(
                    layout,
                    search.resource,
                    search.bank.ratios,
                    'latency',
                    asked,
                    ranks=search.bank.ranks,
                    depth_kept=search.bank.frozen_kept))
            off = self._taken(network, search.space, selection) / share
            if off <= 1 + SLACK and (best is None or off > best[0]):
                best = off, asked, selection
            asked /= off
            if abs(off - 1) < SLACK:
                break
        if best is None:
            raise SystemExit(f'{row} seed {seed}: {ROUNDS} rounds found no '
                             'network within the budget; is the machine idle?')
        off, asked, selection = best
        export = search.export(
            self.folder / 'subnets' / f'{row}_s{seed}',
            target=f'{asked!r}ms',  # a number alone would be a share
            measure=False,
            divisor=divisor,
            picture=False)
        space = search.space
        if export.report.cost('macs') != space.cost(selection, 'macs'):
            raise SystemExit(f'{row} seed {seed}: what was measured is not '
                             'what was exported; please report this')
        return dict(
            row=row,
            seed=seed,
            share=share,
            measured=off * share,
            predicted=space.cost(selection, 'latency'),
            macs=space.cost(selection, 'macs') /
            space.resource.supernet('macs'),
            params=space.cost(selection, 'params'),
            structure=[[unit.name,
                        int(n) * unit.step, unit.size * unit.step]
                       for unit, n in zip(space.units, space.counts(selection))
                       ])

    def _taken(self, network: torch.nn.Module, space: Space,
               selection: torch.Tensor) -> float:
        """Measured latency of a subnet over that of the supernet.

        Both take turns: a machine is not equally fast all day.
        """
        subnet = slice_model(plain_copy(network), space, selection)
        times = Here(self.setting, 60)(
            [self._job(lambda: subnet),
             self._job(lambda: self.network(0))])
        return times[0]['ms'] / times[1]['ms']

    def train(self, row: str, seed: int) -> Dict[str, float]:
        """Accuracy of what was found, from new weights."""
        model = self._subnet(row, seed)
        training.new_weights(model, seed, self.experiment.init)
        training.train(model, self.images, self.experiment.train, seed,
                       self.machine, f'{row} seed {seed}: training')
        return dict(
            top1=round(
                training.evaluate(model, self.images, self.machine)[0], 3))

    def state(self, row: str, seed: int) -> Dict[str, Any]:
        """What :meth:`search` has found, once."""
        return self.store.made_once(f'searches/{row}_s{seed}',
                                    lambda: self.search(row, seed))

    def _subnet(self, row: str, seed: int) -> torch.nn.Module:
        folder = self.folder / 'subnets' / f'{row}_s{seed}'
        return build_subnet(self.network(seed), folder / 'subnet.json')

    def _job(self, make: Callable) -> Job:
        return Job('a network', lambda:
                   (make().eval(), [self.images.example], run_model), True)

    def _search(self, search: Search, network: torch.nn.Module, seed: int,
                what: str) -> None:
        number, recipe = len(self.images.train[1]), self.experiment.search
        steps = recipe.length(number)
        extra = round(self.experiment.width_only_epochs * recipe.epoch(number))
        search.set_length(steps, width_only_steps=extra)
        training.train(
            network,
            self.images,
            recipe,
            1000 + seed,
            self.machine,
            f'{what} search',
            steps=steps + extra,
            search=search)

    def timed(self, runs: Sequence[Dict[str, Any]]) -> Dict[str, float]:
        """Milliseconds of the supernet and of all subnets, taking turns."""
        jobs = [self._job(lambda: self.network(0))]
        for run in runs:
            jobs.append(
                self._job(partial(self._subnet, run['row'], run['seed'])))
        times = Here(self.setting, 30)(jobs)
        names = ['supernet', *map(name_of, runs)]
        return {name: time['ms'] for name, time in zip(names, times)}


def name_of(run: Dict[str, Any]) -> str:
    """Of a run's files."""
    return f'{run["row"]}_s{run["seed"]}'


def finished(folder: Path) -> List[Tuple[str, int]]:
    """Rows and seeds that are there already, so that no result loses them."""
    found = []
    for file in sorted((folder / 'trained').glob('*.json')):
        run = folder / 'filled' / file.name
        if run.exists():
            run = json.loads(run.read_text(encoding='utf-8'))
            found.append((run['row'], run['seed']))
    return found


def page(runs: Sequence[Dict[str, Any]], times: Dict[str, float]) -> str:
    """The table, means over seeds."""
    lines = [
        '| network | latency (ms) | of the supernet | MACs kept | top-1 (%) | '
        'seeds | latency search minus it |', '| --- ' * 7 + '|'
    ]
    first = [run for run in runs if run['row'] == 'latency']
    for row, name in ROWS.items():
        group = [run for run in runs if run['row'] == row]
        if not group:
            continue
        ms = statistics.fmean(times[name_of(run)] for run in group)
        top1 = [run['top1'] for run in group]
        spread = f' ± {statistics.stdev(top1):.2f}' if len(top1) > 1 else ''
        minus = None if row == 'latency' else paired(first, group)
        lines.append(
            f'| {name} | {ms:.3f} | {ms / times["supernet"]:.1%} | '
            f'{statistics.fmean(run["macs"] for run in group):.1%} | '
            f'{statistics.fmean(top1):.2f}{spread} | {len(group)} | ' +
            (f'{minus[0]:+.2f} ± {minus[1]:.2f} |' if minus else '|'))
    return '\n'.join(lines)


def kept(file: Path, make: Callable[[], Dict[str, Any]]) -> Dict[str, Any]:
    """What ``make()`` gives, made once."""
    if not file.exists():
        write_text(file, json.dumps(make()))
    return json.loads(file.read_text(encoding='utf-8'))


def main(arguments: Optional[List[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiment')
    parser.add_argument('--data', help='folder of images; else digits')
    parser.add_argument('--seeds', type=parse_seeds, default=[0])
    parser.add_argument('--target', default='50%')
    parser.add_argument(
        '--divisor',
        type=int,
        default=1,
        help='widths of all rows, and of the table, are multiples of it')
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS))
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--out', type=Path)
    parser.add_argument(
        '--until',
        choices=('search', 'fill', 'train'),
        default='train',
        help='filling the budget and timing want an idle machine, searches '
        'and trainings do not')
    args = parser.parse_args(arguments)
    name, experiment = load(args.experiment)
    folder = args.out or Path('work_dirs/compare_latency') / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    images = load_images(args.data, experiment.data, folder.parent / 'images')
    compared = Comparison(experiment, images, training.Machine(1, args.amp),
                          folder, args.target, args.divisor)
    compared.make_table()
    plan = [(row, seed) for seed in args.seeds for row in args.rows]
    for row, seed in plan:
        compared.state(SHARED.get(row, row), seed)
    if args.until == 'search':
        return
    if args.until == 'train':
        plan += [one for one in finished(folder) if one not in plan]
    runs = [
        kept(folder / 'filled' / f'{row}_s{seed}.json',
             partial(compared.fill, row, seed)) for row, seed in plan
    ]
    if args.until == 'fill':
        return
    for run in runs:
        run.update(
            kept(folder / 'trained' / f'{name_of(run)}.json',
                 partial(compared.train, run['row'], run['seed'])))
    times = compared.timed(runs)
    write_text(
        folder / 'results.json',
        json.dumps(
            dict(
                experiment=name,
                target=args.target,
                setting=compared.setting.describe(),
                times=times,
                runs=runs),
            indent=1) + '\n')
    print(page(runs, times))


if __name__ == '__main__':
    main()
