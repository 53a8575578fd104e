# Copyright (c) dms_razor contributors. All rights reserved.
"""Searches that are broken at random moments and resumed until they end.

Four ways: the process is killed, its disk is full, the worker that loads its
data vanishes, or one of its two ranks dies.
"""
import hashlib
import json
import multiprocessing
import os
import random
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import mmpretrain.models  # noqa: F401
import sklearn.datasets  # noqa: F401

from dms_razor.compat import load_checkpoint
from dms_razor.subnet import Manifest, SubnetError, read_weights
from dms_razor.subnet.files import write_text

TOOLS = Path(__file__).resolve().parents[1]
HOW = ('kill', 'disk', 'worker', 'rank')
#: Seconds in which what is broken has to end by itself.
MOST_SECONDS = 120.
CONFIG = '''
custom_imports = dict(
    imports=['dms_razor.openmmlab'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(
    type='mmrazor.DMS',
    target=.5,
    input_shape=(1, 8, 8),
    search=dict(iters=24, width_only_iters=4),
    architecture=dict(
        type='ImageClassifier',
        backbone=dict(
            type='ResNet_CIFAR', depth=18, in_channels=1, stem_channels=4,
            base_channels=4, num_stages=2, strides=(1, 2), dilations=(1, 1),
            out_indices=(1, )),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead', num_classes=10, in_channels=8,
            loss=dict(type='CrossEntropyLoss'))))
data_preprocessor = dict(mean=[127.5], std=[127.5], num_classes=10)
train_dataloader = dict(
    batch_size={batch}, num_workers={workers},
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='DigitsDataset', indices=64, pipeline=[dict(type='PackInputs')]))
train_cfg = dict(by_epoch=False, max_iters=28)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=.9))
custom_hooks = [
    dict(type='mmrazor.DMSHook'),
    dict(type='mmrazor.ExportSubnetHook', picture=False, budgets=('80%', )),
]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=4),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=1,
        max_keep_ckpts={keep}))
randomness = dict(seed=0, deterministic=True)
'''


@dataclass
class Row:
    """What came of the faults of searches that keep so many checkpoints."""
    keep: int
    how: str = 'kill'
    kills: int = 0
    searches: int = 0
    writing: int = 0
    faults: List[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.faults

    def cells(self) -> Dict[str, object]:
        return {
            'fault': self.how,
            'max_keep_ckpts': self.keep,
            'times': self.kills,
            'of these in a write': self.writing,
            'searches ended': self.searches,
            'otherwise': '; '.join(self.faults) or 0
        }


def run(times: int,
        keep: int,
        seed: int = 0,
        how: str = 'kill',
        out: Optional[Path] = None) -> Row:
    """Break searches ``times`` times, as many as that takes.

    Args:
        times (int): How often.
        keep (int): Checkpoints that a search keeps.
        seed (int): Of the moments.
        how (str): One of :data:`HOW`.
        out (Path, optional): What came of it so far is noted there, and gone
            on from.
    """
    name = f'{how} {keep} {seed}'
    noted: Dict[str, Any] = {}
    if out is not None and out.exists():
        noted = json.loads(out.read_text())
    row = Row(**noted.get(name, dict(keep=keep, how=how)))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / 'search.py'
        config.write_text(config_of(keep, how))
        started = time.monotonic()
        plain = Path(folder) / 'plain'
        start(config, plain, how).wait()
        lasts, expected = time.monotonic() - started, digest(plain)
        while row.kills < times and not row.faults:
            source = random.Random(f'{name} {row.searches}')
            work_dir = Path(folder) / f'search_{row.searches}'
            _one(config, work_dir, source, lasts, times, row)
            if not row.faults and digest(work_dir) != expected:
                row.faults.append(f'search {row.searches} ended otherwise')
            row.searches += 1
            if out is not None:
                write_text(out, json.dumps({**noted, name: asdict(row)}))
    return row


def config_of(keep: int, how: str) -> str:
    """The text of a search's config."""
    settings = dict(
        keep=keep,
        batch=2 if how == 'rank' else 4,
        workers=int(how == 'worker'))
    text = CONFIG
    for name, value in settings.items():
        text = text.replace('{' + name + '}', str(value))
    return text


def _one(config: Path, work_dir: Path, source: random.Random, lasts: float,
         times: int, row: Row) -> None:
    """One search, broken and resumed until it comes to its end."""
    while True:
        process = start(config, work_dir, row.how)
        try:
            wait = lasts * source.uniform(0., 1.)
            code = process.wait(wait if row.kills < times else None)
        except subprocess.TimeoutExpired:
            if not _break(process, row.how, source):
                code = process.wait()  # it had come to its end
            else:
                code = _end_of(process, row)
                row.kills += bool(code)  # a disk may suffice
                row.writing += any('.tmp-' in path.name or '.old-' in path.name
                                   for path in work_dir.glob('.*'))
                _look(work_dir, row)
                if code and not row.faults:
                    continue
        if code and not row.faults:
            log = (work_dir / 'log.txt').read_text()[-300:]
            row.faults.append(f'ended with {code}: {log}')
        return


def _end_of(process: Any, row: Row) -> int:
    """How a broken search ends, which it has to do by itself."""
    try:
        return process.wait(MOST_SECONDS)
    except subprocess.TimeoutExpired:
        row.faults.append(f'still there {MOST_SECONDS:.0f} s after the fault')
        for pid in (*_below(process.pid), process.pid):
            _kill(pid)
        return process.wait()


def _break(process: Any, how: str, source: random.Random) -> bool:
    """Break a search; False if there is nothing left of it to break."""
    if how == 'kill':
        return _kill(process.pid)
    if how == 'disk':  # no further file can grow beyond so many bytes
        limit = source.choice([0, 1000, 20_000, 50_000])
        try:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE,
                             (limit, limit))
        except ProcessLookupError:
            return False
        return True
    # Workers of a data loader are forks, and ranks bear the tool's name;
    # what looks at the machine meanwhile is none of them.
    same = _command(process.pid)
    below = [
        pid for pid in _below(process.pid)
        if (_command(pid) == same if how == 'worker' else 'train.py' in
            _command(pid) and 'torch.distributed.run' not in _command(pid))
    ]
    return bool(below) and _kill(source.choice(sorted(below)))


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _below(pid: int) -> List[int]:
    """Processes that a process, or one of these, has started."""
    found: List[int] = []
    for path in Path(f'/proc/{pid}/task').glob('*/children'):
        try:
            for child in map(int, path.read_text().split()):
                found += [child, *_below(child)]
        except OSError:
            pass  # it has ended
    return found


def _command(pid: int) -> str:
    try:
        return Path(f'/proc/{pid}/cmdline').read_text()
    except OSError:
        return ''


class Forked:
    """A search in a fork of this process, which has imported everything.

    Imports take longer than a short search, and nothing of it is written in
    them.

    Args:
        arguments (list): What ``tools/train.py`` is given.
        log (Path): File of its output.
    """

    def __init__(self, arguments: List[Any], log: Path) -> None:
        context = multiprocessing.get_context('fork')
        self.process = context.Process(
            target=_train, args=(list(map(str, arguments)), log))
        self.process.start()
        self.pid = self.process.pid

    def wait(self, timeout: Optional[float] = None) -> int:
        """The exit status, negative for a signal; as Popen.wait."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired('train.py', timeout)
        return self.process.exitcode


def _train(arguments: List[str], log: Path) -> None:
    """Run the tool as a program, with what is here already."""
    with log.open('w') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.path.insert(0, str(TOOLS))
    sys.argv = ['train.py', *arguments]
    runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')


def start(config: Path, work_dir: Path, how: str) -> Any:
    """A search, resumed if it was begun; its output goes into a file."""
    work_dir.mkdir(exist_ok=True)
    os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
    log, rest = work_dir / 'log.txt', ['--work-dir', work_dir, '--resume']
    if how != 'rank':
        return Forked([config, *rest], log)
    with log.open('w') as file:
        return subprocess.Popen(
            ['bash', TOOLS / 'dist_train.sh', config, '2', *rest],
            env=dict(os.environ, PYTHON=sys.executable),
            stdout=file,
            stderr=subprocess.STDOUT)


def _look(work_dir: Path, row: Row) -> None:
    """Whatever bears its own name after a kill can be read."""
    for path in work_dir.glob('*.pth'):
        try:
            load_checkpoint(str(path), map_location='cpu')
        except RuntimeError as error:
            row.faults.append(str(error)[:200])
    for path in work_dir.glob('subnet*'):
        try:
            Manifest.load(path)
            read_weights(path / 'subnet.pth')
        except SubnetError as error:
            row.faults.append(str(error)[:200])


def digest(work_dir: Path) -> str:
    """Of all that the searches of a folder have exported."""
    found = hashlib.sha256()
    for path in sorted(work_dir.glob('subnet*/subnet.json')):
        found.update(path.read_bytes())
        for name, value in read_weights(path.with_name('subnet.pth')).items():
            found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()
