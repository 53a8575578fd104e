# Copyright (c) dms_razor contributors. All rights reserved.
"""Measure what the parts of a network take on this device.

    python tools/measure_latency.py my_search.py --out latency.json
    python tools/measure_latency.py --model my_package:build --out latency.json
        --input 1 3 224 224 --backend onnxruntime --threads 2

Writes the table that `latency_table='latency.json'` and `metric='latency'`
need. Stopped and started again, it goes on where it was. A table belongs to
the network, its input size and the units of its search; measure anew when one
of them changes.
"""
import argparse
import importlib
import sys
from pathlib import Path
from typing import Tuple

import torch
from _launch import at_least, read_config
from torch import nn

from dms_razor.openmmlab.from_config import space_of_config
from dms_razor.space import Space
from dms_razor.timing.bench import Here
from dms_razor.timing.clock import BACKENDS, Setting, TimingError
from dms_razor.timing.measure import GRID, measure
from dms_razor.trace import trace


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config', nargs='?', help='config of a search or of a model')
    parser.add_argument(
        '--model',
        metavar='MODULE:FUNCTION',
        help='instead of a config: what builds the network')
    parser.add_argument(
        '--input',
        type=int,
        nargs='+',
        metavar='SIZE',
        help='with --model: shape of its input')
    parser.add_argument('--out', required=True, help='file of the table')
    parser.add_argument('--backend', choices=BACKENDS, default='onnxruntime')
    parser.add_argument(
        '--threads', type=at_least(1, 'at least 1 thread'), default=1)
    parser.add_argument(
        '--rounds',
        type=at_least(3, 'at least 3 figures'),
        default=9,
        help='figures of which a time is taken')
    parser.add_argument(
        '--held-out',
        type=at_least(0, 'a number of subnets'),
        default=0,
        help='measure so many subnets more, to see how good the table is')
    args = parser.parse_args()
    args.cfg_options = None
    if (args.config is None) == (args.model is None):
        parser.error('give either a config or --model MODULE:FUNCTION')
    if (args.model is None) != (args.input is None):
        parser.error('--model and --input belong together')
    return args


def network(args: argparse.Namespace) -> Tuple[nn.Module, Space]:
    """The network that is measured, and its space."""
    if args.config is not None:
        return space_of_config(read_config(args))
    module, _, name = args.model.partition(':')
    sys.path.insert(0, str(Path.cwd()))
    model = getattr(importlib.import_module(module), name)()
    return model, trace(model, torch.zeros(args.input))


def tell(done: int, of: int) -> None:
    """The bar: one line that is written over."""
    print(
        f'\r{done:,} of {of:,} parts at their widths',
        end='\n' * (done == of),
        flush=True,
        file=sys.stderr)


def main() -> None:
    args = parse_args()
    try:
        model, space = network(args)
        table = measure(
            model,
            space,
            Here(Setting(args.backend, args.threads), args.rounds),
            args.out,
            grid=GRID,
            held_out=args.held_out,
            progress=tell)
    except (TimingError, ValueError, RuntimeError, ImportError, AttributeError,
            OSError) as error:
        sys.exit(f'{type(error).__name__}: {error}')
    fit = table['fit']
    print(f'{args.out}: the whole network takes {fit["measured"][0]:.3g} ms; '
          f'{len(fit["measured"])} subnets, each predicted without itself, '
          f'are off by {fit["median_error"]:.1%} (median), at most '
          f'{fit["largest_error"]:.1%}')
    if 'held_out' in table:
        other = table['held_out']
        print(f'{len(other["measured"])} further subnets: Spearman '
              f'{other["spearman"]:.3f}, off by {other["median_error"]:.1%} '
              f'(median), {other["error_95"]:.1%} (95th percentile)')


if __name__ == '__main__':
    main()
