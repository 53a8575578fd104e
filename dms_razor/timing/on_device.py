# Copyright (c) dms_razor contributors. All rights reserved.
"""Measure what the parts in parts.zip take on this device.

    python measure_parts.py --threads 1 --out times.json

Needs Python 3.8, NumPy and ONNX Runtime, nothing else:
``tools/measure_latency.py --write-parts`` puts a copy of this file beside the
parts. Stopped and started again, it goes on where it was. What it writes is
read by ``tools/measure_latency.py --read-parts`` on the other machine.
"""
import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import time
import zipfile
from typing import Any, Callable, Dict, List, Sequence

import numpy as np

PARTS, TIMES = 'dms_razor.parts', 'dms_razor.times'
#: Figures of a whole network, at least: there are few of them, and the fit and
#: its error hang on each.
WHOLE, WHOLE_ROUNDS = 'subnet ', 30
_SHORTEST = 2e-3  # seconds that one figure should take at least


def interleaved(runs: Sequence[Callable[[], Any]],
                rounds: int,
                warmup: int = 2) -> List[Dict[str, float]]:
    """Time and spread of several functions that take turns.

    So a busy machine is equally busy for all. The slower half of the figures
    is clipped. What takes less than some milliseconds is called several times
    for one figure.

    Args:
        runs (Sequence[Callable]): The functions.
        rounds (int): Figures of each.
        warmup (int): Calls before them.

    Returns:
        list[dict]: ``ms``, the median of the faster half, and ``spread``, half
        of its range over it.
    """
    times: List[List[float]] = [[] for _ in runs]
    numbers = []
    for run in runs:
        for _ in range(warmup):
            once = _seconds(run, 1)
        numbers.append(max(1, int(_SHORTEST / max(once, 1e-7))))
    for _ in range(rounds):
        for run, number, found in zip(runs, numbers, times):
            found.append(1e3 * _seconds(run, number))
    return [_summed_up(found) for found in times]


def _seconds(run: Callable[[], Any], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        run()
    return (time.perf_counter() - start) / number


def _summed_up(times: List[float]) -> Dict[str, float]:
    """Median and spread of the faster half: others only ever slow it down."""
    times = sorted(times)[:(len(times) + 1) // 2]
    middle = statistics.median(times)
    return dict(ms=middle, spread=(times[-1] - times[0]) / 2 / middle)


def machine() -> Dict[str, str]:
    """The kind of machine, and its processor by name where that is known."""
    name = platform.processor()
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            name = next((line.partition(':')[2].strip()
                         for line in file if line.startswith('model name')),
                        name)
    except OSError:
        pass  # no Linux
    return dict(
        machine=platform.machine(), processor=name or platform.machine())


def session_of(content: bytes, threads: int, provider: str) -> Any:
    """An ONNX network, ready to run.

    Args:
        content (bytes): The file.
        threads (int): Of the processor.
        provider (str): Execution provider of ONNX Runtime.
    """
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(content, options, providers=[provider])


def feed_of(inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
    """Inputs of described shapes and types: normal, or all 0 if whole."""
    random = np.random.default_rng(0)
    return {
        name: (random.standard_normal(shape).astype(dtype)
               if np.dtype(dtype).kind == 'f' else np.zeros(shape, dtype))
        for name, (shape, dtype) in inputs.items()
    }


def setting_of(threads: int, provider: str, torch: str) -> Dict[str, Any]:
    """With what is measured here, as a table of latencies holds it."""
    import onnxruntime
    device = provider.replace('ExecutionProvider', '').lower()
    return dict(
        backend='onnxruntime',
        threads=threads,
        device=device,
        precision='fp32',
        **machine(),
        versions=dict(torch=torch, onnxruntime=onnxruntime.__version__))


def measure_parts(path: str,
                  out: str,
                  threads: int = 1,
                  rounds: int = 9,
                  provider: str = 'CPUExecutionProvider') -> Dict[str, Any]:
    """Measure everything in a file of parts that ``out`` does not have yet.

    Args:
        path (str): What ``--write-parts`` wrote.
        out (str): File of the times; gone on with if it is there.
        threads, provider: As for :func:`session_of`.
        rounds (int): Figures of which a time is the median.

    Returns:
        dict: What is in ``out`` then.

    Raises:
        ValueError: ``out`` holds times of other parts or another setting.
    """
    with open(path, 'rb') as file:
        checksum = hashlib.sha256(file.read()).hexdigest()
    with zipfile.ZipFile(path) as parts:
        plan = json.loads(parts.read('parts.json'))
        head = dict(
            format=TIMES,
            parts=checksum,
            setting=setting_of(threads, provider, plan['torch']))
        found = dict(head, times={})
        if os.path.exists(out):
            with open(out, encoding='utf-8') as file:
                found = json.load(file)
            if {name: found.get(name) for name in head} != head:
                raise ValueError(f'{out!r} holds times of other parts, another'
                                 ' machine or setting; name another file')
        for number, group in enumerate(plan['groups']):
            if not all(name in found['times'] for name in group):
                runs = [
                    _run(parts, plan['files'][name], threads, provider)
                    for name in group
                ]
                least = group[0].startswith(WHOLE) * WHOLE_ROUNDS
                found['times'].update(
                    zip(group, interleaved(runs, max(rounds, least))))
                _write(out, found)
            print(
                f'\r{number + 1:,} of {len(plan["groups"]):,}',
                end='',
                file=sys.stderr)
    print(file=sys.stderr)
    return found


def _run(parts: zipfile.ZipFile, entry: Dict[str, Any], threads: int,
         provider: str) -> Callable[[], Any]:
    session = session_of(parts.read(entry['file']), threads, provider)
    feed = feed_of(entry['inputs'])
    return lambda: session.run(None, feed)


def _write(out: str, found: Dict[str, Any]) -> None:
    """Whole or not at all: a kill while writing must lose nothing."""
    with open(out + '.part', 'w', encoding='utf-8') as file:
        json.dump(found, file, indent=1)
    os.replace(out + '.part', out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument('--parts', default=os.path.join(here, 'parts.zip'))
    parser.add_argument('--out', default='times.json')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument(
        '--provider',
        default='CPUExecutionProvider',
        help='execution provider of ONNX Runtime')
    args = parser.parse_args()
    try:
        measure_parts(args.parts, args.out, args.threads, args.rounds,
                      args.provider)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'{type(error).__name__}: {error}')
    print(f'{args.out}: take it back to where the parts were written, and: '
          'tools/measure_latency.py … --read-parts times.json')


if __name__ == '__main__':
    main()
