# Copyright (c) dms_razor contributors. All rights reserved.
"""Search, export, retrain and compare on handwritten digits, in minutes.

The README's first command. Each step is an mmengine run of a config of
configs/quickstart/, as tools/train.py would start it; what a run logs goes
into its own folder, and this script says what happens.
"""
import argparse
import copy
import json
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import List, Optional

import torch
from _launch import at_least
from _processes import Processes, cores
from _steps import (CONFIGS, Network, Recipe, cut_evenly, mean_and_deviation,
                    quickstart, run_parser, say, score_as_cut, shorten, table,
                    tell_training, train)
from mmengine.config import Config

from dms_razor.subnet.files import write_text
from dms_razor.subnet.page import write_page
from dms_razor.subnet.structure import exported, structure_table

SUPERNET, SEARCH, RETRAIN = (
    CONFIGS / 'quickstart' / f'{name}.py'
    for name in ('resnet34_digits', 'dms-resnet34-50p_digits',
                 'dms-resnet34-50p_digits_retrain'))


def parse_args() -> argparse.Namespace:
    parser = run_parser(
        __doc__,
        'quickstart',
        help='epochs of the search and of each training, at least 5 '
        '(default: those of the configs, 15)')
    parser.add_argument(
        '--seeds',
        type=at_least(1, 'train each network at least once'),
        default=3,
        help='trainings of each network in the table (default: %(default)s)')
    parser.add_argument(
        '--processes',
        type=at_least(1, 'this one counts'),
        default=cores(),
        help='trainings at a time, with one thread each; 1 trains in this '
        'process (default: one a core, here %(default)s)')
    return parser.parse_args()


@lru_cache(maxsize=None)
def read(path: Path) -> Config:
    """A config, read once; logs show it unformatted, which is faster."""
    return Config.fromfile(path, format_python_code=False)


def load(path: Path, epochs: Optional[int]) -> Config:
    """A config of this quickstart, of this length."""
    cfg = copy.deepcopy(read(path))
    return cfg if epochs is None else shorten(cfg, epochs, epochs // 5)


def cut_and_score(recipe: Recipe, seed: int) -> float:
    """Top-1 of the supernet of this seed, trained and then cut evenly."""
    last, = (recipe.work_dir / f'supernet-{seed}').glob('epoch_*.pth')
    subnet = cut_evenly(recipe, last, f'cut-{seed}')
    return score_as_cut(recipe, subnet)['top-1']


def train_all(recipe: Recipe, networks: List[Network], seeds: int,
              processes: Processes) -> List[str]:
    """Train each network with each seed.

    Returns:
        list[str]: Cells: top-1 of both small networks before any training.
        The supernet of each training is cut evenly; the search was one.
    """
    found = processes.submit(score_as_cut, recipe, networks[1].subnet)
    trainings = [(seed, network,
                  processes.submit(train, recipe, network,
                                   f'{network.name.replace(" ", "_")}-{seed}',
                                   seed)) for seed in range(seeds)
                 for network in networks]
    cut = []
    for seed, network, training in trainings:
        tell_training(network, seed, training.result(), 'top-1')
        if network is networks[0]:
            cut.append(processes.submit(cut_and_score, recipe, seed))
    return [
        '', f'{found.result()["top-1"]:.2f}',
        mean_and_deviation([one.result() for one in cut])
    ]


def main() -> None:
    args = parse_args()
    start = time.time()
    torch.set_num_threads(1)  # layers this small gain nothing from more
    recipe = Recipe(
        Path(args.work_dir), SUPERNET, SEARCH, RETRAIN,
        partial(load, epochs=args.epochs), args.target)
    with Processes(args.processes, '_steps') as processes:
        _, networks = quickstart(recipe, 'ResNet-34 on handwritten digits', 0)
        report = json.loads(
            networks[1].subnet.with_name('report.json').read_text())
        say(structure_table(exported(report)), 5)
        say('3/4  Train: three networks from scratch, the same recipe, '
            f'{args.seeds} seed{"s" * (args.seeds > 1)}')
        cut = train_all(recipe, networks, args.seeds, processes)
    subnet = recipe.work_dir / 'search' / 'subnet'
    text = table(networks, more={'as cut (%)': cut})
    write_text(recipe.work_dir / 'table.md', text + '\n')
    page = write_page(
        subnet, {
            f'{network.name}, top-1 (%)': mean_and_deviation(network.top1)
            for network in networks
        })
    say('4/4  Result: 596 test images, mean ± standard deviation over seeds\n'
        f'{text}\n\n'
        f'Picture   {subnet / "structure.png"}\n'
        f'Page      {page}\n'
        f'Report    {subnet / "report.md"}\n'
        f'Table     {recipe.work_dir / "table.md"}\n'
        f'Took      {time.time() - start:.0f} s\n\n'
        '"As cut" is without any training of the small network: the search '
        'ends with one that works,\nwhile the trained supernet, cut evenly '
        'with its largest weights kept, does not. After as\nmany epochs from '
        'scratch the three lie close together: digits are easy. Next: train '
        'the\nsearched network in a run of its own, or see what a search of '
        'ResNet-50 can reach\n(docs/en/search_config.md):\n\n'
        f'    python tools/train.py {subnet / "retrain.py"}\n'
        '    python tools/show_space.py configs/resnet/'
        'dms-resnet50-1g_8xb32-10e_in1k.py')


if __name__ == '__main__':
    main()
