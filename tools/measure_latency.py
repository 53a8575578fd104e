# Copyright (c) dms_razor contributors. All rights reserved.
"""Measure what the parts of a network take on this device.

    python tools/measure_latency.py my_search.py --out latency.json
    python tools/measure_latency.py --model my_package:build --out latency.json
        --input 1 3 224 224 --backend onnxruntime --threads 2

Writes the table that `latency_table='latency.json'` and `metric='latency'`
need. Stopped and started again, it goes on where it was.

For a device on which only Python, NumPy and ONNX Runtime are:

    python tools/measure_latency.py my_search.py --write-parts parts
    python parts/measure_parts.py --out times.json           # there
    python tools/measure_latency.py my_search.py --read-parts times.json
        --out latency.json

A table belongs to
the network, its input size and the units of its search; measure anew when one
of them changes.
"""
import argparse
import importlib
import sys
from pathlib import Path
from typing import Any, Dict, Tuple, Union

import torch
from _launch import at_least, read_config
from torch import nn

from dms_razor.core.budget import AUTO
from dms_razor.core.latency import CURVES, GRID_CURVE
from dms_razor.core.steps import ADVICE, costly_widths, divisor_of
from dms_razor.openmmlab.from_config import space_of_config
from dms_razor.space import Space
from dms_razor.timing.bench import Here
from dms_razor.timing.clock import BACKENDS, Setting, TimingError
from dms_razor.timing.measure import measure
from dms_razor.timing.remote import Elsewhere, write_parts
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
    parser.add_argument('--out', help='file of the table')
    parser.add_argument(
        '--write-parts',
        metavar='FOLDER',
        help='measure nothing; write what another device has to run')
    parser.add_argument(
        '--read-parts',
        metavar='FILE',
        help='make the table of what another device has found')
    add_settings(parser)
    args = parser.parse_args()
    args.cfg_options = None
    if (args.config is None) == (args.model is None):
        parser.error('give either a config or --model MODULE:FUNCTION')
    if (args.model is None) != (args.input is None):
        parser.error('--model and --input belong together')
    elsewhere = args.write_parts or args.read_parts
    if (args.write_parts is None) == (args.out is None):
        parser.error('give one of --out FILE and --write-parts FOLDER')
    if elsewhere and (args.backend or args.threads or args.rounds
                      or args.write_parts and args.read_parts):
        parser.error('--backend, --threads and --rounds are given where it is '
                     'measured, to measure_parts.py; --write-parts comes '
                     'before --read-parts')
    return args


def add_settings(parser: argparse.ArgumentParser) -> None:
    """With what is measured, and how much."""
    parser.add_argument(
        '--backend', choices=BACKENDS, help='onnxruntime unless given')
    parser.add_argument(
        '--threads',
        type=at_least(1, 'at least 1 thread'),
        help='1 unless given')
    parser.add_argument(
        '--rounds',
        type=at_least(3, 'at least 3 figures'),
        help='figures of which a time is taken, 9 unless given')
    parser.add_argument(
        '--held-out',
        type=at_least(0, 'a number of subnets'),
        default=0,
        help='measure so many subnets more, to see how good the table is')
    parser.add_argument(
        '--in-steps',
        action='store_true',
        help='measure multiples of the steps in which widths pay here, and no '
        "other widths: for searches with divisor='auto'; configs that say so "
        'need not')
    parser.add_argument(
        '--curve',
        choices=CURVES,
        default=GRID_CURVE,
        help="a layer's time between the measured widths: on straight lines, "
        "or the paper's quadratic function")


def bench(args: argparse.Namespace) -> Union[Here, Elsewhere]:
    """Where it is timed."""
    if args.read_parts:
        return Elsewhere(args.read_parts)
    return Here(
        Setting(args.backend or 'onnxruntime', args.threads or 1), args.rounds
        or 9)


def network(args: argparse.Namespace) -> Tuple[nn.Module, Space]:
    """The network that is measured, and its space."""
    if args.config is not None:
        return space_of_config(read_config(args))
    module, _, name = args.model.partition(':')
    sys.path.insert(0, str(Path.cwd()))
    model = getattr(importlib.import_module(module), name)()
    return model, trace(model, torch.zeros(args.input))


def is_in_steps(args: argparse.Namespace) -> bool:
    """Whether a config's search keeps to what the table will show."""
    if args.config is None:
        return False
    units = (read_config(args).model.get('mutator') or {}).get('units') or {}
    return any(options.get('divisor') == AUTO for options in units.values())


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
        settings = dict(held_out=args.held_out, progress=tell)
        if args.write_parts:
            write_parts(model, space, args.write_parts, **settings)
            print(f'{args.write_parts}: take it to the device and run '
                  'measure_parts.py there; it needs NumPy and ONNX Runtime')
            return
        table = measure(
            model,
            space,
            bench(args),
            args.out,
            curve=args.curve,
            in_steps=args.in_steps or is_in_steps(args),
            **settings)
    except (TimingError, ValueError, RuntimeError, ImportError, AttributeError,
            OSError) as error:
        sys.exit(f'{type(error).__name__}: {error}')
    report(args.out, table, space)


def report(out: str, table: Dict[str, Any], space: Space) -> None:
    """Where it was measured, and how good the table is."""
    fit, setting = table['fit'], table['setting']
    print(f'{out}: {setting["backend"]} on {setting["device"]}, '
          f'{setting["processor"]}, threads: {setting["threads"]}')
    if table['steps'] or setting['device'] in ADVICE:
        print('Widths pay in steps of {} ({})'.format(*divisor_of(table)))
        advice = costly_widths(table, space.layout)
        if advice:
            print(f'Note: {advice}')
    print(f'{out}: the whole network takes {fit["measured"][0]:.3g} ms; '
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
