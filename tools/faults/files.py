# Copyright (c) dms_razor contributors. All rights reserved.
"""Files whose structure or bytes are wrong: refused, or as good as new."""
import json
import random
import resource
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import (Any, Callable, Dict, Iterable, Iterator, List, Optional,
                    Tuple)

import torch
from torch import nn

from dms_razor import Search
from dms_razor.compat import load_checkpoint
from dms_razor.core.latency import (FORMAT, LatencyError, checksum, layers_of,
                                    read_table, with_latency)
from dms_razor.subnet import Manifest, SubnetError, build_subnet, load_weights
from dms_razor.subnet.files import write_text
from dms_razor.subnet.manifest import checksum as manifest_checksum
from .mutations import VALUES, damaged, mutated, spoilt, with_code

#: Of one file: seconds and megabytes beyond which it is a fault.
MOST_SECONDS, MOST_MEGABYTES = 5., 500.
#: Address space beyond what is taken already: no file may end the machine.
_ROOM = 2 * 1024**3
#: Files between two notes of what was read.
CHUNK = 250


@dataclass
class Row:
    """What came of one kind of file."""
    kind: str
    read: int = 0
    refused: int = 0
    seconds: float = 0.
    megabytes: float = 0.
    faults: List[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.faults and self.seconds <= MOST_SECONDS and \
            self.megabytes <= MOST_MEGABYTES

    def add(self, other: 'Row') -> None:
        """Count what another run of the same kind has found."""
        self.read += other.read
        self.refused += other.refused
        self.seconds = max(self.seconds, other.seconds)
        self.megabytes = max(self.megabytes, other.megabytes)
        self.faults += other.faults

    def cells(self) -> Dict[str, object]:
        return {
            'file': self.kind,
            'read': f'{self.read:,}',
            'refused': f'{self.refused:,}',
            'slowest, CPU s': f'{self.seconds:.1f}',
            'more memory, MB': f'{self.megabytes:.0f}',
            'other errors': '; '.join(self.faults[:3]) or 0
        }


def network() -> nn.Module:
    """What is searched and exported: two blocks and a head."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 4))


def run(times: int, seed: int = 0, out: Optional[Path] = None) -> List[Row]:
    """Read ``times`` files, as many of each kind.

    Args:
        times (int): Files in all.
        seed (int): Of what is wrong in them.
        out (Path, optional): What was found so far is noted there; a run with
            the same seed goes on from it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'inside'
        folder.mkdir()
        search = Search(network(), torch.zeros(1, 3, 8, 8), total_steps=9)
        search.export(folder / 'subnet', picture=False)
        kinds = _kinds(folder, search)
        before = _written(folder)
        rows = _noted(out, seed, kinds)
        for start in range(0, times // len(kinds), CHUNK):
            for kind, row in rows.items():
                number = min(CHUNK, times // len(kinds) - start)
                if row.read < start + number:
                    source = random.Random(f'{seed} {kind} {start}')
                    row.add(_read(kind, *kinds[kind], number, source))
            if out is not None:
                found = {kind: asdict(row) for kind, row in rows.items()}
                write_text(out, json.dumps(dict(seed=seed, rows=found)))
        if _written(folder) - before:
            next(iter(rows.values())).faults.append('something was written')
    return list(rows.values())


def _noted(out: Optional[Path], seed: int, kinds: Iterable[str]) -> \
        Dict[str, Row]:
    """What an earlier run has found, of each kind."""
    found: Dict[str, Any] = dict(seed=seed, rows={})
    if out is not None and out.exists():
        found = json.loads(out.read_text())
        if found['seed'] != seed:
            raise ValueError(f'{out} holds a run with seed {found["seed"]}; '
                             f'name another file than for seed {seed}')
    return {
        kind: Row(**found['rows'].get(kind, dict(kind=kind)))
        for kind in kinds
    }


def _kinds(folder: Path, search: Search) -> Dict[str, Tuple]:
    """How each kind of file is made, how it is read, and the own errors."""
    path = folder / 'fuzzed.pth'
    content = json.loads((folder / 'subnet' / 'subnet.json').read_text())
    text = (folder / 'subnet' / 'subnet.json').read_bytes()
    weights = (folder / 'subnet' / 'subnet.pth').read_bytes()
    torch.save(dict(state_dict={}, meta=dict(iter=1, a=[1.])), path)
    checkpoint = path.read_bytes()
    torch.save(dict(a=torch.zeros(3), b='text'), path,
               _use_new_zipfile_serialization=False)  # yapf: disable
    old, state = path.read_bytes(), search.state_dict()
    tensors = load_checkpoint(str(folder / 'subnet' / 'subnet.pth'))

    def manifest(text: Any) -> None:
        path.with_suffix('.json').write_bytes(text)
        build_subnet(network(), Manifest.load(path.with_suffix('.json')))

    def loaded(data: bytes) -> None:
        path.write_bytes(data)
        load_checkpoint(str(path))

    built = build_subnet(network(), folder / 'subnet')
    return {
        'manifest, structure':
        (lambda s: sealed(mutated(content, s, VALUES), manifest_checksum),
         manifest, SubnetError),
        'manifest, bytes': (lambda s: damaged(text, s), manifest, SubnetError),
        'state dict':
        (lambda s: mutated(tensors, s, VALUES + tuple(spoilt(tensors, s))),
         lambda x: load_weights(built, x), SubnetError),
        'weights, bytes':
        (lambda s: damaged(weights, s), loaded, RuntimeError),
        'checkpoint, bytes': (lambda s: damaged(checkpoint, s), loaded,
                              RuntimeError),
        'checkpoint with code': (lambda s: with_code(s, folder.parent), loaded,
                                 RuntimeError),
        'old checkpoint, bytes': (lambda s: damaged(old, s), loaded,
                                  RuntimeError),
        'state of a search':
        (lambda s: mutated(state, s, VALUES + tuple(spoilt(state, s))),
         search.load_state_dict, ValueError),
        **_tables(path.with_suffix('.json'), search)
    }


def _tables(path: Path, search: Search) -> Dict[str, Tuple]:
    """The kinds of :func:`_kinds` that are tables of latencies."""
    resource, grid = search.space.resource, [.5, 1.]
    content = dict(
        format=FORMAT,
        version=1,
        layers=layers_of(resource),
        grid=grid,
        parts={name: [[1., 2.], [1., 3.]]
               for name in layers_of(resource)},
        coefficients=dict(base=.1, scale=1., rest=0., traffic=0.),
        setting=dict(
            backend='torch', threads=1, device='cpu', precision='fp32',
            processor='', versions=dict(torch='2')),
        input=[[1, 3, 8, 8]],
        steps={'conv': {'8': 1., '9': 2.}})  # yapf: disable

    def table(text: bytes) -> None:
        path.write_bytes(text)
        timed = with_latency(resource, read_table(path), str(path))
        timed.supernet('latency'), timed.minimum('latency')

    text = sealed(content, checksum)
    table(text)
    return {
        'latency table, structure':
        (lambda s: sealed(mutated(content, s, VALUES), checksum), table,
         LatencyError),
        'latency table, bytes':
        (lambda s: damaged(text, s), table, LatencyError)
    }


def _read(kind: str, make: Callable, read: Callable, errors: type, times: int,
          source: random.Random) -> Row:
    row, before = Row(kind), _peak()
    for _ in range(times):
        made, started = make(source), time.process_time()
        row.read += 1
        try:
            with _bounded():
                read(made)
        except errors as error:
            row.refused += 1
            if isinstance(error.__cause__, (MemoryError, TimeoutError)):
                row.faults.append(f'{error}'[:120])
        except Exception as error:
            row.faults.append(f'{type(error).__name__}: {error}'[:120])
        row.seconds = max(row.seconds, time.process_time() - started)
    row.megabytes = _peak() - before
    return row


@contextmanager
def _bounded() -> Iterator[None]:
    """Ends what takes too long, or more memory than a machine may have."""

    def ended(*_: Any) -> None:
        raise TimeoutError(f'more than {MOST_SECONDS} s')

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    most = pages * resource.getpagesize() + _ROOM
    before = signal.signal(signal.SIGPROF, ended)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _peak() -> float:
    """Most memory that this process ever took, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _written(folder: Path) -> set:
    return {path
            for path in folder.parent.glob('*')} | {
                path
                for path in folder.rglob('*')
                if not path.name.startswith('fuzzed')
            }


def sealed(content: Dict, checksum: Callable) -> bytes:
    """With a checksum that is right, as whoever edits a file can make it."""
    content = {k: v for k, v in content.items() if k != 'checksum'}
    return json.dumps(dict(content, checksum=checksum(content))).encode()
