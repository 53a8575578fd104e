# Copyright (c) dms_razor contributors. All rights reserved.
"""Files whose structure or bytes are wrong: refused, or as good as new."""
import copy
import json
import random
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from torch import nn

from dms_razor import Search
from dms_razor.compat import load_checkpoint
from dms_razor.subnet import Manifest, SubnetError, build_subnet, load_weights
from dms_razor.subnet.manifest import checksum

REMOVED = object()
VALUES = (REMOVED, None, True, False, -1, 0, 1, 2**40, 10**30, .5, 1e300, '',
          'stem', 'os', [], {}, [0], [1, -1], [2**40, 2**40], [[]], {
              '': {}
          }, dict(shape=[2**20, 2**20], dtype='float32'))


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
        return not self.faults and self.seconds <= 5 and self.megabytes <= 500

    def cells(self) -> Dict[str, object]:
        return {
            'file': self.kind,
            'read': f'{self.read:,}',
            'refused': f'{self.refused:,}',
            'slowest, s': f'{self.seconds:.1f}',
            'more memory, MB': f'{self.megabytes:.0f}',
            'other errors': '; '.join(self.faults[:3]) or 0
        }


def network() -> nn.Module:
    """What is searched and exported: two blocks and a head."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 4))


def run(times: int, seed: int = 0) -> List[Row]:
    """Read ``times`` files, as many of each kind.

    Args:
        times (int): Files in all.
        seed (int): Of what is wrong in them.
    """
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'inside'
        folder.mkdir()
        search = Search(network(), torch.zeros(1, 3, 8, 8), total_steps=9)
        search.export(folder / 'subnet', picture=False)
        kinds = _kinds(folder, search)
        before = _written(folder)
        rows = [
            _read(kind, make, read, errors, times // len(kinds), source)
            for kind, (make, read, errors) in kinds.items()
        ]
        if _written(folder) - before:
            rows[0].faults.append('something was written')
    return rows


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
        (lambda s: sealed(mutated(content, s, VALUES)), manifest, SubnetError),
        'manifest, bytes': (lambda s: damaged(text, s), manifest, SubnetError),
        'state dict':
        (lambda s: mutated(tensors, s, VALUES + tuple(spoilt(tensors, s))),
         lambda x: load_weights(built, x), SubnetError),
        'weights, bytes':
        (lambda s: damaged(weights, s), loaded, RuntimeError),
        'checkpoint, bytes': (lambda s: damaged(checkpoint, s), loaded,
                              RuntimeError),
        'old checkpoint, bytes': (lambda s: damaged(old, s), loaded,
                                  RuntimeError),
        'state of a search':
        (lambda s: mutated(state, s, VALUES + tuple(spoilt(state, s))),
         search.load_state_dict, ValueError),
    }


def _read(kind: str, make: Callable, read: Callable, errors: type, times: int,
          source: random.Random) -> Row:
    row, before = Row(kind), _peak()
    for _ in range(times):
        made, started = make(source), time.monotonic()
        row.read += 1
        try:
            read(made)
        except errors:
            row.refused += 1
        except Exception as error:
            row.faults.append(f'{type(error).__name__}: {error}'[:120])
        row.seconds = max(row.seconds, time.monotonic() - started)
    row.megabytes = _peak() - before
    return row


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


def sealed(content: Dict) -> bytes:
    """With a checksum that is right, as whoever edits a file can make it."""
    content = {k: v for k, v in content.items() if k != 'checksum'}
    return json.dumps(dict(content, checksum=checksum(content))).encode()


def places(part: Any, path: Tuple = ()) -> Iterator[Tuple]:
    """The path of every entry of nested dicts and lists."""
    for name, value in (part.items() if isinstance(part, dict) else
                        enumerate(part) if isinstance(part, list) else ()):
        yield (*path, name)
        yield from places(value, (*path, name))


def mutated(content: Any, source: random.Random, values: Tuple) -> Any:
    """A copy in which one to three entries are others or missing."""
    content = copy.deepcopy(content)
    for _ in range(source.choice([1, 1, 2, 3])):
        everywhere = list(places(content))
        if not everywhere:
            break
        path, value = source.choice(everywhere), source.choice(values)
        part = content
        for name in path[:-1]:
            part = part[name]
        if value is REMOVED:
            del part[path[-1]]
        else:
            part[path[-1]] = copy.deepcopy(value)
    return content


def spoilt(state: Any, source: random.Random) -> Iterator[torch.Tensor]:
    """Tensors of a state as they should not be."""
    value = None
    while not isinstance(value, torch.Tensor):
        value = state
        for name in source.choice(list(places(state))):
            value = value[name]
    yield value.double() * float('nan')
    yield value.to('meta')
    yield value.reshape(-1)[:0]
    yield value.double() - 10
    yield torch.zeros(1).expand(2**40)
    if value.dim():
        yield value.to_sparse()


def damaged(data: bytes, source: random.Random) -> bytes:
    """Bytes of which some are others, some are missing or there twice."""
    found = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 8])):
        at = source.randrange(len(found))
        how = source.randrange(4)
        if how < 2:
            found[at] = source.randrange(256)
        elif how == 2:
            del found[at:at + source.choice([1, 4, 64])]
        else:
            found[at:at] = found[at:at + source.choice([1, 4, 64])]
        if not found:
            break
    return bytes(found[:source.choice([None, None, None, len(found) // 2])])
