# Copyright (c) dms_razor contributors. All rights reserved.
"""Search, export, retrain and compare on handwritten digits, in minutes.

The README's first command. Each step is an mmengine run of a config of
configs/quickstart/, as tools/train.py would start it; what a run logs goes
into its own folder, and this script says what happens.
"""
import argparse
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Optional, TextIO

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import torch
from _comparison import Network, table
from _steps import logged, narrow_uniformly, say
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from dms_razor.search import Search
from dms_razor.subnet.structure import structure_table

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'quickstart'
SUPERNET = CONFIGS / 'resnet34_digits.py'
SEARCH = CONFIGS / 'dms-resnet34-50p_digits.py'
RETRAIN = CONFIGS / 'dms-resnet34-50p_digits_retrain.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--work-dir',
        default='work_dirs/quickstart',
        help='folder for everything that is written (default: %(default)s)')
    parser.add_argument(
        '--target',
        default='50%',
        help='MACs to search for: a share such as 50%% or a number such as '
        '0.8M (default: %(default)s)')
    parser.add_argument(
        '--seeds',
        type=int,
        default=3,
        help='trainings of each network in the table (default: %(default)s)')
    parser.add_argument(
        '--epochs',
        type=int,
        help='epochs of the search and of each training, at least 5 '
        '(default: those of the configs, 15)')
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error('--seeds: train each network at least once')
    if args.epochs is not None and args.epochs < 5:
        parser.error('--epochs: give at least 5')
    return args


class Progress(Hook):
    """The search's pre-flight, then a line every few epochs."""

    priority = 'LOW'  # after the search's own hooks

    def __init__(self, search: Search, every: int, out: TextIO) -> None:
        self.search, self.every, self.out = search, every, out

    def before_train(self, runner: Runner) -> None:
        with redirect_stdout(self.out):
            say(self.search.preflight().text(), 5)

    def after_train_epoch(self, runner: Runner) -> None:
        epoch, last = runner.epoch + 1, runner.max_epochs
        if epoch % self.every and epoch != last:
            return
        whole = self.search.resource.supernet('macs')
        loss = runner.message_hub.get_scalar('train/loss').mean(10)
        with redirect_stdout(self.out):
            say(
                f'epoch {epoch:2}/{last}   MACs asked '
                f'{self.search.current_target / whole:6.1%}   now '
                f'{self.search.current() / whole:6.1%}   loss {loss:.3f}', 5)


def load(path: Path, work_dir: Path, seed: int,
         args: argparse.Namespace) -> Config:
    """A config of this quickstart, ready to run in ``work_dir``."""
    cfg = Config.fromfile(path)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = '-'.join(work_dir.parts[-2:])
    cfg.randomness = dict(seed=seed)
    if args.epochs is not None:
        warmup = max(1, args.epochs // 5)
        cfg.train_cfg.update(max_epochs=args.epochs, val_interval=args.epochs)
        cfg.param_scheduler[0].end = warmup
        cfg.param_scheduler[1].update(begin=warmup, end=args.epochs)
    return cfg


def search_subnet(args: argparse.Namespace, work_dir: Path,
                  out: TextIO) -> Search:
    """Run the search; its hook exports to ``work_dir/subnet``."""
    cfg = load(SEARCH, work_dir, 0, args)
    cfg.model.target = args.target
    if args.epochs is not None:
        extra = args.epochs // 5
        cfg.model.search.update(
            epochs=args.epochs - extra, width_only_epochs=extra)
    with logged(work_dir):
        runner = Runner.from_cfg(cfg)
        search = runner.model.search
        every = max(1, runner.max_epochs // 5)
        runner.register_hook(Progress(search, every, out))
        runner.train()
    say(structure_table(search.structure()), 5)
    return search


def train(path: Path, work_dir: Path, seed: int, args: argparse.Namespace,
          subnet: Optional[Path]) -> float:
    """Train one network from scratch and return its top-1."""
    cfg = load(path, work_dir, seed, args)
    if subnet is not None:
        cfg.model.subnet = str(subnet)
    with logged(work_dir):
        runner = Runner.from_cfg(cfg)
        runner.train()
    return runner.message_hub.get_scalar('val/accuracy/top1').current()


def main() -> None:
    args = parse_args()
    start = time.time()
    torch.set_num_threads(1)  # layers this small gain nothing from more
    work_dir = Path(args.work_dir)
    out = sys.stdout

    say(f'1/4  Search: ResNet-34 on handwritten digits, down to {args.target}'
        ' of its MACs')
    search = search_subnet(args, work_dir / 'search', out)
    subnet = work_dir / 'search' / 'subnet'
    say(f'2/4  Export: {subnet}')
    for file in sorted(subnet.iterdir()):
        say(file.name, 5)
    narrow_uniformly(search, work_dir / 'uniform')
    whole = search.preflight().supernet
    networks = [
        Network('supernet', SUPERNET, round(whole['macs']),
                round(whole['params'])),
        Network.of('searched', RETRAIN, subnet),
        Network.of('narrowed uniformly', RETRAIN, work_dir / 'uniform')
    ]

    say('3/4  Train: three networks from scratch, the same recipe, '
        f'{args.seeds} seed{"s" * (args.seeds > 1)}')
    for seed in range(args.seeds):
        for network in networks:
            began = time.time()
            folder = work_dir / f'{network.name.replace(" ", "_")}-{seed}'
            network.top1.append(
                train(network.config, folder, seed, args, network.subnet))
            say(
                f'seed {seed}  {network.name:18} top-1 '
                f'{network.top1[-1]:5.2f} %   {time.time() - began:3.0f} s', 5)

    text = table(networks)
    (work_dir / 'table.md').write_text(text + '\n', encoding='utf-8')
    say('4/4  Result: 596 test images, mean ± standard deviation over seeds')
    say(text)
    say()
    say(f'Picture   {subnet / "structure.png"}\n'
        f'Report    {subnet / "report.md"}\n'
        f'Table     {work_dir / "table.md"}\n'
        f'Took      {time.time() - start:.0f} s')
    say()
    say('Each training above had the same epochs; the search took as many '
        'once more. Digits are\neasy, so the three lie close together. Next: '
        'train the searched network in a run of\nits own, or see what a '
        'search of ResNet-50 can reach (docs/en/search_config.md):\n\n'
        f'    python tools/train.py {subnet / "retrain.py"}\n'
        '    python tools/show_space.py configs/resnet/'
        'dms-resnet50-1g_8xb32-10e_in1k.py')


if __name__ == '__main__':
    main()
