# Copyright (c) dms_razor contributors. All rights reserved.
"""Search, export, retrain and compare on handwritten digits, in minutes.

The README's first command. Each step is an mmengine run of a config of
configs/quickstart/, as tools/train.py would start it; what a run logs goes
into its own folder, and this script says what happens.
"""
import argparse
import time
from functools import partial
from pathlib import Path
from typing import Optional

import torch
from _launch import at_least
from _steps import (CONFIGS, Recipe, quickstart, run_parser, say, shorten,
                    table, train_aloud)
from mmengine.config import Config

from dms_razor.subnet.files import write_text
from dms_razor.subnet.structure import structure_table

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
    return parser.parse_args()


def load(path: Path, epochs: Optional[int]) -> Config:
    """A config of this quickstart, of this length."""
    cfg = Config.fromfile(path)
    return cfg if epochs is None else shorten(cfg, epochs, epochs // 5)


def main() -> None:
    args = parse_args()
    start = time.time()
    torch.set_num_threads(1)  # layers this small gain nothing from more
    recipe = Recipe(
        Path(args.work_dir), SUPERNET, SEARCH, RETRAIN,
        partial(load, epochs=args.epochs), args.target)
    search, networks = quickstart(recipe, 'ResNet-34 on handwritten digits', 0)
    say(structure_table(search.structure()), 5)
    say('3/4  Train: three networks from scratch, the same recipe, '
        f'{args.seeds} seed{"s" * (args.seeds > 1)}')
    for seed in range(args.seeds):
        for network in networks:
            folder = f'{network.name.replace(" ", "_")}-{seed}'
            train_aloud(recipe, network, folder, seed, 'top-1')
    text, subnet = table(networks), recipe.work_dir / 'search' / 'subnet'
    write_text(recipe.work_dir / 'table.md', text + '\n')
    say('4/4  Result: 596 test images, mean ± standard deviation over seeds\n'
        f'{text}\n\n'
        f'Picture   {subnet / "structure.png"}\n'
        f'Report    {subnet / "report.md"}\n'
        f'Table     {recipe.work_dir / "table.md"}\n'
        f'Took      {time.time() - start:.0f} s\n\n'
        'Each training above had the same epochs; the search took as many '
        'once more. Digits are\neasy, so the three lie close together. Next: '
        'train the searched network in a run of\nits own, or see what a '
        'search of ResNet-50 can reach (docs/en/search_config.md):\n\n'
        f'    python tools/train.py {subnet / "retrain.py"}\n'
        '    python tools/show_space.py configs/resnet/'
        'dms-resnet50-1g_8xb32-10e_in1k.py')


if __name__ == '__main__':
    main()
