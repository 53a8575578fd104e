# Copyright (c) dms_razor contributors. All rights reserved.
"""What is done to a file: other entries, other tensors, other bytes."""
import copy
import io
import os
import random
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator, Tuple

import torch

REMOVED = object()
VALUES = (REMOVED, None, True, False, -1, 0, 1, 2**40, 10**30, .5, 1e300, '',
          'stem', 'os', [], {}, [0], [1, -1], [2**40, 2**40], [[]], {
              '': {}
          }, dict(shape=[2**20, 2**20], dtype='float32'))


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


class _Call:
    """What pickle writes as a call, to be made when the file is read."""

    def __init__(self, what: Callable, *args: Any) -> None:
        self.call = what, args

    def __reduce__(self) -> Tuple:
        return self.call


def with_code(source: random.Random, folder: Path) -> bytes:
    """A checkpoint that calls something when it is unpickled.

    Args:
        source (random.Random): Of what.
        folder (Path): Where a file appears if it was called.
    """
    mark = str(folder / 'owned')
    storage = torch.zeros(1).untyped_storage()
    what, *args = source.choice([
        (os.system, f'touch {mark}'),
        (subprocess.call, ['touch', mark]),
        (eval, f'open({mark!r}, "w")'),
        (exec, f'open({mark!r}, "w")'),
        (open, mark, 'w'),
        (os.mkdir, mark),
        (getattr, 'text', 'upper'),
        (__import__, 'antigravity'),
        (bytearray, 10**source.randrange(8, 13)),
        (bytes, 10**source.randrange(8, 13)),
        (list, range(10**8)),
        (torch.zeros, 10**source.randrange(8, 13)),
        (torch.UntypedStorage, 10**source.randrange(8, 13)),
        (torch.load, mark),
        (torch.hub.load, 'a/b', 'c'),
        (torch._utils._rebuild_tensor_v2, storage, 0,
         (2**source.randrange(1, 40), ) * 2, (1, 1), False, {}),
    ])
    called = _Call(what, *args)
    place = source.choice([
        dict(state_dict=dict(a=called), meta={}),
        dict(state_dict={}, meta=dict(iter=1, a=[called])), called, {
            called: 1
        }
    ])
    file, new = io.BytesIO(), source.random() < .7
    torch.save(place, file, _use_new_zipfile_serialization=new)
    return file.getvalue()
