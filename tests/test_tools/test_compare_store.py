# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/compare: files are whole, and made by one process at a time."""
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tools.compare.store import Busy, Store, whole_file, write_text

HOLD = '''
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tools.compare.store import Store
with Store(Path(sys.argv[2])).claim('a'):
    print('held', flush=True)
    time.sleep(60)
'''


@pytest.fixture
def holder(repo, tmp_path):
    """A process that holds the claim 'a' of a store in ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD,
         str(repo), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True)
    assert process.stdout.readline() == 'held\n'
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_live_claim_is_respected(holder, tmp_path):
    with pytest.raises(Busy, match=f'a is made by process {holder.pid}'):
        with Store(tmp_path).claim('a'):
            pass
    with pytest.raises(Busy):
        Store(tmp_path).made_once('a', dict)
    with Store(tmp_path).claim('b'):
        pass


def test_a_dead_claim_is_taken_over(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Store(tmp_path).claim('a'):
        text = (tmp_path / 'locks' / 'a.lock').read_text()
        assert text == str(os.getpid())


def test_a_claim_is_given_back(tmp_path):
    store = Store(tmp_path)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), store.claim('a'):
            1 / 0


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / 'deep' / 'a.txt'
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b'half')
        1 / 0
    assert not list(path.parent.iterdir())
    write_text(path, 'é')
    assert path.read_bytes() == 'é'.encode()
    assert list(path.parent.iterdir()) == [path]


def test_made_once(tmp_path):
    store, made = Store(tmp_path), []

    def make():
        made.append(time.time())
        return dict(weights=torch.ones(2), top1=3.5)

    first, again = (store.made_once('nets/s0', make) for _ in range(2))
    assert len(made) == 1 and again['top1'] == first['top1'] == 3.5
    assert torch.equal(again['weights'], torch.ones(2))


def test_a_broken_run_is_named(tmp_path):
    write_text(tmp_path / 'runs' / 'a.json', '{"row"')
    with pytest.raises(ValueError, match='a.json is no JSON .*delete it'):
        Store(tmp_path).runs()
