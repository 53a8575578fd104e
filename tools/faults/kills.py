# Copyright (c) dms_razor contributors. All rights reserved.
"""Searches that are killed at random moments and resumed until they end."""
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List

from dms_razor.compat import load_checkpoint
from dms_razor.subnet import Manifest, SubnetError, read_weights

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
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
    batch_size=4, num_workers=0,
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
        type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts={}))
randomness = dict(seed=0, deterministic=True)
'''


@dataclass
class Row:
    """What came of the kills of searches that keep so many checkpoints."""
    keep: int
    kills: int = 0
    searches: int = 0
    writing: int = 0
    faults: List[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.faults

    def cells(self) -> Dict[str, object]:
        return {
            'max_keep_ckpts': self.keep,
            'kills': self.kills,
            'of these in a write': self.writing,
            'searches ended': self.searches,
            'faults': '; '.join(self.faults) or 0
        }


def run(times: int, keep: int, seed: int = 0) -> Row:
    """Kill ``times`` times, in as many searches as that takes."""
    source, row = random.Random(seed), Row(keep)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / 'search.py'
        config.write_text(CONFIG.replace('{}', str(keep)))
        started = time.monotonic()
        plain = Path(folder) / 'plain'
        start(config, plain).wait()
        lasts, expected = time.monotonic() - started, digest(plain)
        while row.kills < times and not row.faults:
            work_dir = Path(folder) / f'search_{row.searches}'
            _one(config, work_dir, source, lasts, times, row)
            if not row.faults and digest(work_dir) != expected:
                row.faults.append(f'search {row.searches} ended otherwise')
            row.searches += 1
    return row


def _one(config: Path, work_dir: Path, source: random.Random, lasts: float,
         times: int, row: Row) -> None:
    """One search, killed and resumed until it comes to its end."""
    while True:
        process = start(config, work_dir)
        try:
            # Most of the time goes into imports: later is more interesting.
            wait = lasts * source.uniform(.3, 1.)
            code = process.wait(wait if row.kills < times else None)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            row.kills += 1
            row.writing += any('.tmp-' in path.name or '.old-' in path.name
                               for path in work_dir.glob('.*'))
            _look(work_dir, row)
            continue
        if code:
            log = (work_dir / 'log.txt').read_text()[-300:]
            row.faults.append(f'ended with {code}: {log}')
        return


def start(config: Path, work_dir: Path) -> subprocess.Popen:
    """A search, resumed if it was begun; its output goes into a file."""
    work_dir.mkdir(exist_ok=True)
    with (work_dir / 'log.txt').open('w') as log:
        return subprocess.Popen([
            sys.executable, TRAIN, config, '--work-dir', work_dir, '--resume'
        ],
                                env=dict(
                                    os.environ, CUDA_VISIBLE_DEVICES='-1'),
                                stdout=log,
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
