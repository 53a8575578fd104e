# Copyright (c) dms_razor contributors. All rights reserved.
"""The fault laboratory sees faults, and finds none."""
import subprocess
import sys

import torch

from tools.faults import files, kills


def test_files_of_all_kinds_are_refused_or_read():
    rows = files.run(70)
    assert [row.read for row in rows] == [10] * len(rows) == [10] * 7
    assert all(row.holds for row in rows), [row.cells() for row in rows]
    assert sum(row.refused for row in rows) > 40


def test_a_foreign_error_and_a_slow_file_are_faults(monkeypatch):

    def broken(model, weights):
        raise KeyError('stem')

    monkeypatch.setattr(files, 'load_weights', broken)
    rows = {row.kind: row for row in files.run(7)}
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


def test_a_search_that_is_killed_is_started_again(tmp_path, monkeypatch):
    """The second start ends at once, the first never does."""
    codes = iter(['import time; time.sleep(60)', ''])
    monkeypatch.setattr(
        kills, 'start', lambda config, folder: subprocess.Popen(
            [sys.executable, '-c', next(codes)]))
    row = kills.Row(1)
    kills._one(tmp_path, tmp_path, kills.random.Random(0), .01, 1, row)
    assert (row.kills, row.writing, row.faults) == (1, 0, [])
