# Copyright (c) dms_razor contributors. All rights reserved.
"""The fault laboratory sees faults, and finds none."""
import json
import subprocess
import sys

import pytest
import torch

from dms_razor.openmmlab.hooks import search as hook
from tools.faults import files, kills, resumes


def test_files_of_all_kinds_are_refused_or_read():
    rows = files.run(100)
    assert [row.read for row in rows] == [10] * len(rows) == [10] * 10
    assert all(row.holds for row in rows), [row.cells() for row in rows]
    assert sum(row.refused for row in rows) > 60


def test_what_was_found_is_noted_and_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'CHUNK', 2)
    out, read = tmp_path / 'files.json', files._read
    whole = files.run(40, out=out)
    noted = json.loads(out.read_text())['rows']
    seen = []
    monkeypatch.setattr(files, '_read',
                        lambda *args: seen.append(args[4]) or read(*args))
    again = files.run(40, out=out)
    assert not seen and [r.read for r in again] == [4] * 10
    assert [r.refused for r in again] == [r.refused for r in whole]
    # as if it had been ended after the first two of each kind
    for row in noted.values():
        row['read'] = row['refused'] = 2
    out.write_text(json.dumps(dict(seed=0, rows=noted)))
    assert [r.read for r in files.run(40, out=out)] == [4] * 10
    assert seen == [2] * 10
    with pytest.raises(ValueError, match='name another file'):
        files.run(40, seed=1, out=out)


def test_what_takes_too_long_or_too_much_is_ended(monkeypatch):
    monkeypatch.setattr(files, 'MOST_SECONDS', .2)
    monkeypatch.setattr(files, '_ROOM', 2**28)

    def endless(_):
        while True:
            pass

    source = kills.random.Random(0)
    rows = [
        files._read('x', lambda s: None, read, KeyError, 1, source)
        for read in (endless, lambda _: bytearray(2**30))
    ]
    assert [r.faults[0].partition(':')[0]
            for r in rows] == ['TimeoutError', 'MemoryError']


def test_code_in_a_checkpoint_would_be_seen(tmp_path):
    """With Python's own unpickler some of it runs."""
    source = kills.random.Random(0)
    for number in range(40):
        data = files.with_code(source, tmp_path)
        if b'touch' in data:
            break
    (tmp_path / 'a.pth').write_bytes(data)
    torch.load(tmp_path / 'a.pth', weights_only=False)
    assert (tmp_path / 'owned').exists()


def test_a_foreign_error_and_a_slow_file_are_faults(monkeypatch):

    def broken(model, weights):
        raise KeyError('stem')

    monkeypatch.setattr(files, 'load_weights', broken)
    rows = {row.kind: row for row in files.run(10)}
    assert rows['state dict'].faults == ["KeyError: 'stem'"]
    assert not rows['state dict'].holds
    assert rows['weights, bytes'].holds
    rows['weights, bytes'].seconds = 6.
    assert not rows['weights, bytes'].holds


def test_what_a_kill_leaves_is_looked_at(tmp_path):
    row = kills.Row(1)
    torch.save(dict(a=torch.ones(1)), tmp_path / 'iter_1.pth')
    kills._look(tmp_path, row)
    assert row.holds
    (tmp_path / 'iter_2.pth').write_bytes(b'half')
    (tmp_path / 'subnet').mkdir()
    kills._look(tmp_path, row)
    assert len(row.faults) == 2 and not row.holds


def child(code):
    return subprocess.Popen([sys.executable, '-c', code])


SLEEP = 'import time; time.sleep(60)'


def test_a_search_that_is_killed_is_started_again(tmp_path, monkeypatch):
    """The second start ends at once, the first never does."""
    codes = iter([SLEEP, ''])
    monkeypatch.setattr(kills, 'start', lambda *_: child(next(codes)))
    row = kills.Row(1)
    kills._one(tmp_path, tmp_path, kills.random.Random(0), .01, 1, row)
    assert (row.kills, row.writing, row.faults) == (1, 0, [])


def test_a_fault_that_does_not_end_the_search_is_one(tmp_path, monkeypatch):
    """One of its processes is gone, and it waits for ever."""
    monkeypatch.setattr(kills, 'MOST_SECONDS', .2)
    monkeypatch.setattr(kills, '_break', lambda *_: True)
    monkeypatch.setattr(kills, 'start', lambda *_: child(SLEEP))
    row = kills.Row(1, 'rank')
    kills._one(tmp_path, tmp_path, kills.random.Random(0), .01, 1, row)
    assert row.faults == ['still there 0 s after the fault']


def test_a_full_disk_and_a_process_of_a_process(tmp_path):
    source = kills.random.Random(0)
    process = child(
        'import time\nwhile True:\n time.sleep(.01)\n'
        f' open({str(tmp_path / "a")!r}, "wb").write(b"x" * 100_000)')
    assert kills._break(process, 'disk', source)
    assert process.wait(20) == 1 and (tmp_path / 'a').stat().st_size < 10**5
    process = subprocess.Popen([
        sys.executable, '-c', 'import subprocess, sys\nsys.exit(subprocess.'
        f'call([sys.executable, "-c", {SLEEP!r}, "train.py"]) == -9)'
    ])
    while not kills._break(process, 'rank', source):
        assert process.poll() is None
    assert process.wait(20) == 1


def test_rows_of_kills_are_noted(tmp_path, monkeypatch):

    def one(config, work_dir, source, lasts, times, row):
        row.kills += 1

    monkeypatch.setattr(kills, '_one', one)
    monkeypatch.setattr(kills, 'start', lambda *_: child(''))
    monkeypatch.setattr(kills, 'digest', lambda folder: 'the same')
    out = tmp_path / 'kills.json'
    assert kills.run(2, 1, out=out).searches == 2
    assert kills.run(3, 1, out=out).searches == 3
    assert kills.run(1, 3, how='disk', out=out).searches == 1
    assert len(json.loads(out.read_text())) == 2


@pytest.mark.parametrize('kind', resumes.KINDS)
def test_searches_end_alike_from_two_of_their_checkpoints(kind):
    """The tool tries five."""
    row = resumes.run(kind, slice(1, 5, 2))
    assert len(row.points) == 2 and row.holds, row.cells()


def test_a_search_that_ends_otherwise_is_a_fault(monkeypatch):
    """Without the generators' states images are mixed otherwise."""
    monkeypatch.setattr(hook, 'restore_before_next_batch', lambda *_: None)
    assert not resumes.run('iteration loop', slice(2, 3)).holds
