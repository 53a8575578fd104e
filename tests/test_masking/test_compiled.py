# Copyright (c) dms_razor contributors. All rights reserved.
"""Loops and threads, and what is without them."""
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from dms_razor.masking import compiled, compiled_norms, norms, together


def marked(threads, count=11):
    """Which thread does which of so many things."""
    kinds = compiled.pointer(compiled.types.int64)

    @compiled.loop
    def mark(given):
        first, last = compiled.own_part(given[1])
        found = compiled.carray(kinds(given[0]), (given[1], ))
        for one in range(first, last):
            found[one] += 1 + compiled.own_number()

    found = np.zeros(count, np.int64)
    compiled.compiled(mark, 2)(threads, found.ctypes.data, count)
    return found.tolist()


@pytest.mark.parametrize('threads', (1, 2, 3))
def test_threads_share_the_work(threads):
    found = marked(threads)
    if compiled.OPENMP is None:
        assert found == [1] * 11
    else:
        assert found == sorted(found) and set(found) == {
            *range(1, threads + 1)
        }


@pytest.mark.skipif(compiled.OPENMP is None, reason='no threads of GNU')
def test_one_thread_where_there_is_no_openmp_of_gnu(monkeypatch):
    monkeypatch.setattr(compiled, 'OPENMP', None)
    assert marked(3) == [1] * 11
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert compiled.worth_it()
        torch.set_num_threads(4)
        assert not compiled.worth_it()
        flat = torch.ones(3)
        assert together.kernels_for(flat) is None
        assert not together.usable(flat)
    finally:
        torch.set_num_threads(before)


def test_what_loops_can_read():

    class Own(torch.Tensor):
        pass

    good = torch.ones(3), torch.ones(3).double(), nn.Parameter(torch.ones(2))
    assert compiled.readable(*good, None)
    for bad in (torch.ones(3).half(), torch.ones(3).bfloat16(),
                torch.ones(3).as_subclass(Own), torch.ones(2).to_sparse(),
                torch.ones(3, device='meta')):
        assert not compiled.readable(good[0], bad)


def test_small_work_is_not_worth_compiling(monkeypatch):
    x, mask = torch.ones(2, 4), torch.ones(4)
    assert norms._rows_of(x, mask) is norms.written_norms
    monkeypatch.setattr(compiled_norms, 'LEAST', 0)
    assert norms._rows_of(x, mask) is compiled_norms
    assert norms._rows_of(x, mask.double()) is norms.written_norms


WITHOUT = '''
import sys, warnings
BEFORE
import torch
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter('always')
    from dms_razor.masking import norms, together
assert norms.compiled_norms is None and together.compiled_weights is None
print(list({str(x.message) for x in told if 'Numba' in str(x.message)}))
'''


@pytest.mark.parametrize('before, told', (
    ("sys.modules['numba'] = None", []),
    ("sys.path.insert(0, {folder!r})", ['Numba is installed and cannot be']),
))
def test_without_numba(before, told, tmp_path):
    """Not installed, or stopped by a folder that bears a package's name."""
    (tmp_path / 'coverage').mkdir()
    code = WITHOUT.replace('BEFORE', before.format(folder=str(tmp_path)))
    found = subprocess.run([sys.executable, '-c', code],
                           capture_output=True,
                           text=True)
    assert found.returncode == 0, found.stderr
    said = eval(found.stdout)
    assert len(said) == len(told)
    for one, begin in zip(said, told):
        assert one.startswith(begin)
