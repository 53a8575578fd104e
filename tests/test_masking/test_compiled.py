# Copyright (c) dms_razor contributors. All rights reserved.
"""Loops and threads, and what is without them."""
import subprocess
import sys

import numpy as np
import pytest
import torch

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


def test_small_work_is_not_worth_compiling(monkeypatch):
    x, mask = torch.ones(2, 4), torch.ones(4)
    written, rows_of = norms.written_norms, norms._rows_of
    assert rows_of(x, mask) is written
    monkeypatch.setattr(compiled_norms, 'LEAST', 0)
    assert rows_of(x, mask, None) is compiled_norms
    for other in (mask.double(), torch._neg_view(mask), torch.ones(4, 2)[:, 0],
                  torch._efficientzerotensor(4)):
        assert rows_of(x, other) is written
    assert rows_of(x.half(), mask.half()) is written
    monkeypatch.setattr(compiled_norms, 'worth_it', lambda: False)
    assert rows_of(x, mask) is written


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
    ('sys.path.insert(0, {folder!r})', ['Numba is installed and cannot be']),
    ("sys.path.insert(0, {folder!r} + '/old')", ['Numba is installed and']),
    ("sys.path.insert(0, {folder!r} + '/less')", ['Numba is installed and']),
))
def test_without_numba(before, told, tmp_path):
    """Not installed; stopped by a folder that bears a package's name; of
    another NumPy; or too old, without what is asked of it."""
    (tmp_path / 'coverage').mkdir()
    (tmp_path / 'coverage' / '__init__.py').touch()
    (tmp_path / 'old' / 'numba').mkdir(parents=True)
    (tmp_path / 'old' / 'numba' / '__init__.py'
     ).write_text("raise ImportError('Numba needs NumPy 1.0 or less')")
    (tmp_path / 'less' / 'numba').mkdir(parents=True)
    (tmp_path / 'less' / 'numba' / '__init__.py').touch()
    code = WITHOUT.replace('BEFORE', before.format(folder=str(tmp_path)))
    found = subprocess.run([sys.executable, '-c', code],
                           capture_output=True,
                           text=True)
    assert found.returncode == 0, found.stderr
    said = eval(found.stdout)
    assert len(said) == len(told)
    for one, begin in zip(said, told):
        assert one.startswith(begin)


def test_a_numba_that_does_not_compile(monkeypatch):
    """It is told once, and operations of PyTorch do the work."""
    code = '''
import torch, warnings
from dms_razor.masking import compiled_norms, norms
compiled_norms.LEAST = 0
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter('always')
    for _ in range(2):
        out = norms.masked_layer_norm(torch.randn(3, 4), torch.ones(4), None,
                                      None, 1e-5, True)
assert out.isfinite().all()
assert [str(x.message)[:26] for x in told] == ['Numba cannot compile here ']
'''
    monkeypatch.setenv('NUMBA_DISABLE_JIT', '1')
    found = subprocess.run([sys.executable, '-c', code],
                           capture_output=True,
                           text=True)
    assert found.returncode == 0, found.stderr
