# Copyright (c) dms_razor contributors. All rights reserved.
"""Compare a searched YOLOv8 with its supernet on a data set of your own.

Searches the small YOLOv8 of configs/yolov8/*_coco-format.py for half its MACs,
or half its latency, on any folder in COCO's format, then trains three networks
from scratch with the same recipe, epochs and seeds: the supernet, what was
found, and the supernet narrowed uniformly to the same budget. Writes a table
with mAP and with ONNX Runtime's latency. Run again, it goes on where it was
interrupted.
"""
import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from _detection import CocoFolder, DataError, DetectorRecipe, detector_recipe
from _launch import at_least
from _steps import (Network, Recipe, SearchError, compared, logged, run_parser,
                    say, search, table, train)
from mmengine.registry import MODELS, init_default_scope

from dms_razor.core.latency import LatencyError, read_table
from dms_razor.deploy import RawOutputs, onnx_latency, write_network
from dms_razor.openmmlab.example_input import input_shape_from_config
from dms_razor.openmmlab.from_config import space_of_config
from dms_razor.subnet import load_weights
from dms_razor.subnet.files import write_text
from dms_razor.timing.bench import Here
from dms_razor.timing.clock import Setting, TimingError
from dms_razor.timing.measure import measure

#: Written when the search is through.
SEARCHED = 'supernet.json'


class SettingsError(ValueError):
    """Results of other settings are there."""


def parse_args() -> argparse.Namespace:
    parser = run_parser(
        __doc__,
        'benchmark_detection',
        default=60,
        help='of the search and of each training (default: %(default)s)')
    parser.add_argument(
        'data',
        help='folder with annotations/{train,val}.json in COCO\'s format, the '
        'images in images/ or in train/ and val/; a test.json is used too')
    parser.add_argument('--size', type=int, default=320, help='image side')
    parser.add_argument(
        '--latency-table',
        type=Path,
        help='search under latency, --target 50%% or 8ms, with this table; '
        'it is measured first, by ONNX Runtime on this machine and the first '
        'number of --threads, unless it is there')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument(
        '--threads',
        type=at_least(1, 'give numbers from 1 on'),
        nargs='*',
        default=[1, 2],
        help='of ONNX Runtime; give none to leave latency out')
    args = parser.parse_args()
    if args.size < 32 or args.size % 32:
        parser.error(f'--size {args.size}: YOLOv8 takes multiples of 32')
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        parser.error('--seeds: give different numbers from 0 on')
    return args


def keep_apart(work_dir: Path, asked: Dict[str, Any]) -> None:
    """Refuse a folder whose results were made with other settings.

    They would be taken for those of these settings.

    Args:
        work_dir (Path): Folder of the results.
        asked (dict): All that they depend on.

    Raises:
        SettingsError: If something differs.
    """
    path = work_dir / 'settings.json'
    if path.is_file() and (work_dir / SEARCHED).is_file():
        there = json.loads(path.read_text())
        for name, value in asked.items():
            if there.get(name) != value:
                raise SettingsError(
                    f'{work_dir} holds results with {name} {there.get(name)}, '
                    f'not {value}; name another --work-dir, or delete it')
    work_dir.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asked))


def main() -> None:
    args = parse_args()
    work_dir = Path(args.work_dir)
    try:
        data = CocoFolder(args.data)
        recipe = detector_recipe(
            work_dir,
            data,
            args.target,
            args.size,
            args.epochs,
            'val' if 'val' in data.content else 'test',
            flip=True,
            latency_table=args.latency_table)
        measured = None if args.latency_table is None else measure_table(
            recipe, *args.threads[:1])
        keep_apart(
            work_dir,
            dict(
                data=str(data.root),
                target=args.target,
                size=args.size,
                epochs=args.epochs,
                latency_table=measured,
                seed_of_the_search=args.seeds[0]))
        networks, found = compare(recipe, args.seeds)
    except (DataError, SearchError, SettingsError, TimingError,
            LatencyError) as error:
        sys.exit(f'{type(error).__name__}: {error}')
    more = scores(recipe, found)
    if args.threads:
        times = latency(recipe, networks, args.seeds[0], args.threads)
        for threads in args.threads:
            more[f'{threads} thread{"s" * (threads > 1)} (ms)'] = [
                f'{times[network.name][threads]:.2f}' for network in networks
            ]
    text = table(networks, f'mAP, {recipe.val} (%)', more)
    write_text(work_dir / 'table.md', text + '\n')
    say(text)
    say(f'Also in {work_dir / "table.md"}. Seeds: '
        f'{", ".join(map(str, args.seeds))}; times: medians of ONNX Runtime, '
        f'one image of {args.size} x {args.size}.')


def measure_table(recipe: DetectorRecipe,
                  threads: Optional[int] = None) -> str:
    """Measure what a search under latency needs, unless it is there.

    Args:
        recipe (DetectorRecipe): Of the searches.
        threads (int, optional): Those of the table, by default one thread
            where it is measured, and any where it is there.

    Returns:
        str: The table's checksum.

    Raises:
        LatencyError: There is a file, and it is no table.
        SettingsError: It was measured with another number of threads.
    """
    path = recipe.latency_table
    done = path.is_file() and '"coefficients"' in path.read_text(
        errors='replace')
    if not done:  # a file that is something else is refused
        path.parent.mkdir(parents=True, exist_ok=True)
        say(f'measuring {path}, some minutes; leave the machine idle')
        cfg = recipe.config(recipe.search, 'search', 0)
        with logged(recipe.work_dir / 'search'):
            recipe.before_search(cfg, 0)
            model, space = space_of_config(cfg)
        measure(model, space, Here(Setting('onnxruntime', threads or 1)), path)
    table = read_table(path)
    there = table['setting']['threads']
    if there != (threads or there):
        raise SettingsError(
            f'{path} was measured with {there} threads, and --threads begins '
            f'with {threads}: begin with {there}, or name another table')
    return table['checksum']


def compare(recipe: Recipe,
            seeds: List[int]) -> Tuple[List[Network], List[List[dict]]]:
    """Search and train whatever is not there yet.

    Returns:
        tuple: The networks, and what each seed of each network gave.
    """
    told = recipe.work_dir / SEARCHED
    if not told.is_file():
        say('searching')
        whole = search(recipe, seeds[0]).preflight().supernet
        write_text(told, json.dumps(whole))
    networks = compared(recipe, json.loads(told.read_text()), 'uniform')
    found: List[List[dict]] = [[] for _ in networks]
    for seed in seeds:
        for network, each in zip(networks, found):
            folder = f'{network.name}-{seed}'
            path = recipe.work_dir / folder / 'result.json'
            if not path.is_file():
                say(f'training {network.name}, seed {seed}')
                write_text(path,
                           json.dumps(train(recipe, network, folder, seed)))
            each.append(json.loads(path.read_text()))
            network.top1.append(each[-1][recipe.val]['mAP'])
    return networks, found


def scores(recipe: Recipe, found: List[List[dict]]) -> Dict[str, List[str]]:
    """Further columns: mAP on the test split and at an IoU of 0.5."""
    columns = {f'mAP at 0.5, {recipe.val} (%)': (recipe.val, 'mAP_50')}
    if recipe.test or recipe.val == 'test':
        columns['mAP, test (%)'] = ('test', 'mAP')
        columns['mAP at 0.5, test (%)'] = ('test', 'mAP_50')
    return {
        title: [
            f'{statistics.mean(one[split][name] for one in each):.2f}'
            for each in found
        ]
        for title, (split, name) in columns.items()
    }


def latency(recipe: Recipe, networks: List[Network], seed: int,
            threads: Sequence[int]) -> Dict[str, Dict[int, float]]:
    """Milliseconds of ONNX Runtime by network and number of threads."""
    paths = {}
    for network in networks:
        folder = f'{network.name}-{seed}'
        cfg = recipe.config(network.config, folder, seed, network.subnet)
        init_default_scope(cfg.default_scope)
        model = MODELS.build(cfg.model)
        load_weights(
            model,
            recipe.work_dir / folder / f'epoch_{cfg.train_cfg.max_epochs}.pth')
        images = torch.randn(2, *input_shape_from_config(cfg))
        paths[network.name] = write_network(
            RawOutputs(model, images), images,
            recipe.work_dir / folder / 'network.onnx', 'onnx')
    return onnx_latency(paths, images[:1], threads)


if __name__ == '__main__':
    main()
