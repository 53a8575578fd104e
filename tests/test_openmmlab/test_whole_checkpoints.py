# Copyright (c) dms_razor contributors. All rights reserved.
"""Kills and full disks while a checkpoint is written."""
import os
import subprocess
import sys
from pathlib import Path

import mmengine.runner
import pytest
import torch
from mmengine.fileio import LocalBackend
from toy_runs import run, toy_config, with_validation

from dms_razor.openmmlab.whole_checkpoints import apply, newest_readable


def names(folder):
    return sorted(
        path.name for path in Path(folder).glob('*') if path.is_file())


def save(path, iteration=1, **more):
    torch.save(
        dict(meta=dict(iter=iteration), optimizer={}, **more), str(path))
    os.utime(path, (iteration, iteration))


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    backend = LocalBackend()
    backend.put(b'old', tmp_path / 'deep' / 'a.pth')

    def full(path, data):
        path.open('wb').write(data[:2])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match='No space left'):
        backend.put(b'newer', tmp_path / 'deep' / 'a.pth')
    assert names(tmp_path / 'deep') == ['a.pth']
    assert (tmp_path / 'deep' / 'a.pth').read_bytes() == b'old'


@pytest.mark.parametrize('keep', [1, 2])
def test_the_old_checkpoint_stays_until_the_new_one_is_there(
        tmp_path, monkeypatch, keep):
    seen, replace = [], os.replace

    def looked_at(source, destination):
        seen.append((names(tmp_path), Path(destination).name))
        replace(source, destination)

    monkeypatch.setattr(os, 'replace', looked_at)
    cfg = toy_config(tmp_path, max_iters=4)
    cfg.model.search = dict()
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=keep)
    run(cfg)
    monkeypatch.undo()
    at = [(folder, name) for folder, name in seen if name.startswith('iter_')]
    assert [name for _, name in at] == [f'iter_{i}.pth' for i in (1, 2, 3, 4)]
    for number, (folder, _) in enumerate(at):
        assert {
            f'iter_{i}.pth'
            for i in range(max(1, number + 1 - keep), number + 1)
        } <= set(folder)
    left = [name for name in names(tmp_path) if name.endswith('.pth')]
    assert left == [f'iter_{i}.pth' for i in range(5 - keep, 5)]


def test_the_best_checkpoint_too(tmp_path, monkeypatch):
    cfg = with_validation(toy_config(tmp_path, max_iters=2), interval=1)
    cfg.model.search = dict()
    cfg.default_hooks.checkpoint.update(
        interval=1, max_keep_ckpts=1, save_best='accuracy/top1')
    scores, seen, replace = iter((1., 2.)), [], os.replace
    monkeypatch.setattr('mmengine.evaluator.Evaluator.evaluate',
                        lambda self, size: {'accuracy/top1': next(scores)})

    def looked_at(source, destination):
        seen.append((Path(destination).name, names(tmp_path)))
        replace(source, destination)

    monkeypatch.setattr(os, 'replace', looked_at)
    run(cfg)
    monkeypatch.undo()
    best = 'best_accuracy_top1_iter_{}.pth'
    assert best.format(1) in dict(seen)[best.format(2)]
    assert [n for n in names(tmp_path)
            if n.endswith('.pth')] == [best.format(2), 'iter_2.pth']


@pytest.mark.parametrize('last', [None, '', '\xff', 'elsewhere/iter_3.pth'])
def test_the_newest_that_can_be_read(tmp_path, last, monkeypatch):
    told = []
    monkeypatch.setattr('dms_razor.openmmlab.whole_checkpoints.print_log',
                        lambda text, *_: told.append(text))
    assert newest_readable(str(tmp_path)) is None
    for iteration in (1, 2, 3):
        save(tmp_path / f'iter_{iteration}.pth', iteration)
    torch.save(dict(meta=dict(iter=9)), tmp_path / 'best_top1_iter_9.pth')
    torch.save(dict(meta=dict(iter=9)), tmp_path / 'published.pth')
    (tmp_path / '.iter_4.tmp-0-1-2.pth').write_bytes(b'half')
    if last is not None:
        (tmp_path / 'last_checkpoint').write_bytes(last.encode('latin1'))
    assert newest_readable(str(tmp_path)) == str(tmp_path / 'iter_3.pth')
    data = (tmp_path / 'iter_3.pth').read_bytes()
    for half in (data[:len(data) // 2], b''):
        (tmp_path / 'iter_3.pth').write_bytes(half)
        assert newest_readable(str(tmp_path)) == str(tmp_path / 'iter_2.pth')
        assert 'iter_3.pth cannot be read' in told[-1]
    for iteration in (1, 2):
        (tmp_path / f'iter_{iteration}.pth').write_bytes(b'')
    with pytest.raises(
            RuntimeError,
            match='No checkpoint in .* can be read.*'
            'start anew, delete it'):
        newest_readable(str(tmp_path))


def test_the_one_that_is_named_goes_first(tmp_path):
    for iteration in (1, 2, 3):
        save(tmp_path / f'iter_{iteration}.pth', iteration)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    assert newest_readable(str(tmp_path)) == str(tmp_path / 'iter_2.pth')
    for named in ('s3://bucket/iter_7.pth', str(tmp_path)):
        (tmp_path / 'last_checkpoint').write_text(named)
        assert newest_readable(str(tmp_path)) == named


def test_runners_find_it_and_applying_twice_is_once():
    apply()
    hook = mmengine.hooks.CheckpointHook
    assert not hasattr(hook._save_checkpoint_with_step.__wrapped__,
                       '__wrapped__')
    assert mmengine.runner.runner.find_latest_checkpoint is newest_readable
    found = subprocess.run([
        sys.executable, '-c',
        'import dms_razor.openmmlab, mmengine._strategy.base as base\n'
        'from mmengine.runner import find_latest_checkpoint as f\n'
        'print(f.__name__)'
    ],
                           capture_output=True,
                           text=True)
    assert found.stdout.strip() == 'newest_readable', found.stderr
