# Copyright (c) dms_razor contributors. All rights reserved.
"""Search, narrow evenly, train, compare: shared by quickstarts, benchmarks."""
import argparse
import json
import statistics
import sys
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, TextIO

import torch
from _launch import at_least
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from dms_razor.baselines import narrow
from dms_razor.core.projection import project
from dms_razor.openmmlab.hooks.export import ExportSubnetHook
from dms_razor.search import Search
from dms_razor.subnet import Export, export_subnet

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


def run_parser(description: str, work_dir: str,
               **epochs: Any) -> argparse.ArgumentParser:
    """Where to write, the budget, and how many ``epochs``."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        '--work-dir',
        default=f'work_dirs/{work_dir}',
        help='folder for everything that is written (default: %(default)s)')
    parser.add_argument(
        '--target',
        default='50%',
        help='MACs to search for: a share such as 50%% or a number such as '
        '0.8M (default: %(default)s)')
    parser.add_argument(
        '--epochs', type=at_least(5, 'give at least 5'), **epochs)
    return parser


class SearchError(ValueError):
    """A search cannot start."""


@dataclass
class Network:
    """One line of the table.

    Attributes:
        name (str): What the table calls it.
        config (Path): The config that trains it.
        macs (int): MACs, counted on one image.
        params (int): Parameters.
        removed (int): Blocks of the supernet that it lacks.
        subnet (Path, optional): Its manifest, if it was exported.
        top1 (list[float]): Score of each training, in percent: top-1 or,
            of a detector, mAP.
    """
    name: str
    config: Path
    macs: int
    params: int
    removed: int = 0
    subnet: Optional[Path] = None
    top1: List[float] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, config: Path, folder: Path) -> 'Network':
        """A network that was exported to ``folder``."""
        report = json.loads((folder / 'report.json').read_text())
        return cls(name, config,
                   report['macs']['counted'], report['params']['counted'],
                   len(report['removed']), folder / 'subnet.json')


@dataclass
class Recipe:
    """Three networks to compare: what trains them, on what, and for how long.

    Attributes:
        work_dir (Path): Folder for everything that is written.
        supernet (Path): Config of the plain network.
        search (Path): Config of its search.
        retrain (Path): Config that trains a subnet.
        prepare (callable): Reads one of the configs and fills in what it
            leaves open.
        target (str): Budget of the search.
        val (str): The split that validates.
        test (bool): Whether a test follows a training.
    """
    work_dir: Path
    supernet: Path
    search: Path
    retrain: Path
    prepare: Callable[[Path], Config]
    target: str = '50%'
    val: str = 'val'
    test: bool = False

    def scores(self, metrics: Dict[str, float]) -> Dict[str, float]:
        """Scores in percent, from the metrics of a validation."""
        return {'top-1': metrics['accuracy/top1']}

    def before_search(self, cfg: Config, seed: int) -> None:
        """Fill in what the config of the search alone needs."""

    def config(self,
               path: Path,
               folder: str,
               seed: int,
               subnet: Optional[Path] = None) -> Config:
        """One of the configs, ready to run in a folder of ``work_dir``."""
        cfg = self.prepare(path)
        if subnet is not None:
            cfg.model.subnet = str(subnet)
        cfg.work_dir = str(self.work_dir / folder)
        cfg.experiment_name = '-'.join((self.work_dir / folder).parts[-2:])
        cfg.randomness = dict(seed=seed)
        return cfg


class _Progress(Hook):
    """The search's pre-flight, then a line every few epochs."""

    priority = 'LOW'  # after the search's own hooks

    def __init__(self, search: Search, out: TextIO) -> None:
        self.search, self.out = search, out

    def before_train(self, runner: Runner) -> None:
        say(self.search.preflight().text(), 5, self.out)

    def after_train_epoch(self, runner: Runner) -> None:
        epoch, last = runner.epoch + 1, runner.max_epochs
        if epoch % max(1, last // 5) and epoch != last:
            return
        whole = self.search.resource.supernet(self.search.metric)
        loss = runner.message_hub.get_scalar('train/loss').mean(10)
        say(
            f'epoch {epoch:2}/{last}   MACs asked '
            f'{self.search.current_target / whole:6.1%}   now '
            f'{self.search.current() / whole:6.1%}   loss {loss:.4g}', 5,
            self.out)


def say(text: str, indent: int = 0, out: Optional[TextIO] = None) -> None:
    """Print at once, also into a pipe."""
    lines = (' ' * indent + line for line in text.split('\n'))
    print('\n'.join(lines), flush=True, file=out)


@contextmanager
def logged(work_dir: Path) -> Iterator[None]:
    """What is printed goes to a file: mmengine prints whole configs."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / 'console.log', 'w', encoding='utf-8') as log:
        with redirect_stdout(log), redirect_stderr(log):
            yield


def shorten(cfg: Config, epochs: int, warmup: int) -> Config:
    """Set the length of a training; of a search, a fifth is width-only."""
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    cfg.param_scheduler[0].end = warmup
    cfg.param_scheduler[1].update(begin=warmup, end=epochs)
    if 'architecture' in cfg.model:
        extra = max(1, epochs // 5)
        cfg.model.search.update(epochs=epochs - extra, width_only_epochs=extra)
    return cfg


def search(recipe: Recipe, seed: int = 0, show: bool = False) -> Search:
    """Search; writes ``search/subnet`` and ``uniform/``, the comparison.

    Args:
        recipe (Recipe): What and how.
        seed (int): Of everything that is random.
        show (bool): Whether to print the progress.

    Raises:
        SearchError: If the target cannot be met.
    """
    cfg, out = recipe.config(recipe.search, 'search', seed), sys.stdout
    cfg.model.target = recipe.target
    with logged(recipe.work_dir / 'search'):
        recipe.before_search(cfg, seed)
        try:
            runner = Runner.from_cfg(cfg)
        except ValueError as error:  # of the pre-flight
            raise SearchError(f'the search cannot start: {error}') from error
        if show:
            runner.register_hook(_Progress(runner.model.search, out))
        runner.train()
        narrow_uniformly(runner.model.search, recipe.work_dir / 'uniform')
    return runner.model.search


def even_counts(search: Search) -> Tensor:
    """Kept elements ``[U]``: all blocks, and evenly fewer channels.

    All width ratios are equal, so the projection onto the budget, a common
    shift of the ratios, gives every layer the same share of its channels.
    """
    layout = search.space.layout
    return project(
        layout,
        search.resource,
        torch.zeros_like(search.bank.ratios),
        search.metric,
        search.target,
        ranks=search.bank.ranks,
        depth_kept=layout.size)


def narrow_uniformly(search: Search, out_dir: Path) -> Export:
    """Export the supernet with all its blocks and evenly fewer channels."""
    return export_subnet(
        out_dir,
        search.model,
        search.space,
        search.keep(even_counts(search)),
        target=search.target,
        metric=search.metric)


def cut_evenly(recipe: Recipe, checkpoint: Path, out_dir: str) -> Path:
    """Cut the trained supernet to the widths of :func:`narrow_uniformly`.

    In each layer the channels with the largest weights stay, and BatchNorm
    statistics are taken anew: what a search exports has no less.

    Args:
        recipe (Recipe): What and how.
        checkpoint (Path): Of the supernet's training.
        out_dir (str): Where, below ``work_dir``.

    Returns:
        Path: The manifest of the network.
    """
    cfg = recipe.config(recipe.search, out_dir, 0)
    cfg.model.target, cfg.load_from = recipe.target, str(checkpoint)
    with logged(recipe.work_dir / out_dir):
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
        search = runner.model.search
        narrow(search, 'l1')
        search.bank.set_kept(even_counts(search))
        ExportSubnetHook(picture=False).export(runner, 'subnet')
    return recipe.work_dir / out_dir / 'subnet' / 'subnet.json'


def score_as_cut(recipe: Recipe, subnet: Path) -> Dict[str, float]:
    """Scores of an exported network with the weights it was exported with.

    Args:
        recipe (Recipe): What and how.
        subnet (Path): Its manifest; the weights lie beside it.
    """
    folder = f'as_cut_{subnet.parent.name}'
    cfg = recipe.config(recipe.retrain, folder, 0, subnet)
    cfg.model.checkpoint = str(subnet.with_name('subnet.pth'))
    with logged(recipe.work_dir / folder):
        return recipe.scores(Runner.from_cfg(cfg).val())


def compared(recipe: Recipe,
             whole: Dict[str, float],
             even: str = 'narrowed uniformly') -> List[Network]:
    """The lines of the table, after the search.

    Args:
        recipe (Recipe): What and how.
        whole (dict): MACs and parameters of the supernet.
        even (str): What the evenly narrowed network is called.
    """
    return [
        Network('supernet', recipe.supernet, round(whole['macs']),
                round(whole['params'])),
        Network.of('searched', recipe.retrain,
                   recipe.work_dir / 'search' / 'subnet'),
        Network.of(even, recipe.retrain, recipe.work_dir / 'uniform')
    ]


def train(
        recipe: Recipe,
        network: Network,
        folder: str,
        seed: int = 0,
        look: Callable[[Runner], Any] = lambda runner: None) -> Dict[str, Any]:
    """Train a network from scratch.

    Args:
        recipe (Recipe): What and how.
        network (Network): Which.
        folder (str): Where, below ``work_dir``.
        seed (int): Of everything that is random.
        look (callable): Looks at the trained network.

    Returns:
        dict: Scores by split after the last epoch, ``seconds``, and as
        ``seen`` what ``look`` returns.
    """
    start = time.time()
    cfg = recipe.config(network.config, folder, seed, network.subnet)
    with logged(recipe.work_dir / folder):
        runner = Runner.from_cfg(cfg)
        runner.train()
        if recipe.test:
            runner.test()
        seen = look(runner)
    val, test = ({
        name[len(kind):]: scalar.current()
        for name, scalar in runner.message_hub.log_scalars.items()
        if name.startswith(kind)
    } for kind in ('val/', 'test/'))
    return {
        'test': recipe.scores(test or val),
        recipe.val: recipe.scores(val),
        'seconds': time.time() - start,
        'seen': seen
    }


def quickstart(recipe: Recipe, what: str, seed: int):
    """Search, export and say so; returns the search and the networks."""
    say(f'1/4  Search: {what}, down to {recipe.target} of its MACs')
    found = search(recipe, seed, show=True)
    subnet = recipe.work_dir / 'search' / 'subnet'
    say(f'2/4  Export: {subnet}')
    for file in sorted(subnet.iterdir()):
        say(file.name, 5)
    return found, compared(recipe, found.preflight().supernet)


def train_aloud(recipe: Recipe, network: Network, folder: str, seed: int,
                name: str, **kwargs) -> Dict[str, Any]:
    """:func:`train`, its score called ``name``, with a line on the outcome."""
    found = train(recipe, network, folder, seed, **kwargs)
    tell_training(network, seed, found, name)
    return found


def tell_training(network: Network, seed: int, found: Dict[str, Any],
                  name: str) -> None:
    """Keep the score of a training that is over, and say it."""
    network.top1.append(found['test'][name])
    say(
        f'seed {seed}  {network.name:18} {name} {network.top1[-1]:5.2f} %   '
        f'{found["seconds"]:3.0f} s', 5)


def mean_and_deviation(scores: List[float]) -> str:
    """The mean, and the sample deviation if there are several."""
    mean = f'{statistics.mean(scores):.2f}'
    return mean if len(scores) < 2 else \
        f'{mean} ± {statistics.stdev(scores):.2f}'


def table(networks: List[Network],
          score: str = 'top-1 (%)',
          more: Optional[Dict[str, List[str]]] = None) -> str:
    """The comparison, a Markdown table that also reads in a terminal.

    Args:
        networks (list[Network]): Its lines.
        score (str): What ``top1`` is called.
        more (dict, optional): Further columns, a cell for each network.
    """
    more = more or {}
    rows = [[
        'network', 'MACs', 'parameters', 'blocks removed', score, 'each seed',
        *more
    ]]
    for number, network in enumerate(networks):
        rows.append([
            network.name, f'{network.macs:,}', f'{network.params:,}',
            str(network.removed),
            mean_and_deviation(network.top1),
            ', '.join(f'{value:.2f}' for value in network.top1),
            *(column[number] for column in more.values())
        ])
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ['-' * width for width in widths])
    return '\n'.join(
        '| ' +
        ' | '.join(cell.ljust(width)
                   for cell, width in zip(row, widths)) + ' |' for row in rows)
