# Copyright (c) dms_razor contributors. All rights reserved.
"""tools/install_matrix.py, with an installer that only writes down."""
import sys
from pathlib import Path

import pytest

WHEEL = Path('dms_razor.whl')


class Recorder:
    """Stands in for an environment: what is asked of it, and answers."""
    installer = 'uv'

    def __init__(self, broken=()):
        self.installed, self.broken = [], broken

    def install(self, *requirements):
        self.installed.append(requirements)
        if any(one in self.broken for one in requirements):
            raise RuntimeError('no such version (a.log)')

    def check(self, part):
        return 'fails: an error (a.log)' if part in self.broken else 'works'

    def versions(self):
        return {'Python': '3.11.7', 'torch': '2.9.1'}


@pytest.fixture
def matrix(load_tool):
    return load_tool('install_matrix')


@pytest.mark.parametrize('version, installed', [
    ('newest', ['torch']),
    ('2.13.0', ['torch==2.13.0']),
    ('2.3.1', ['torch==2.3.1']),
    ('2.2.2', ['torch==2.2.2', 'numpy<2']),
    ('2.1.0', ['torch==2.1.0', 'numpy<2']),
])
def test_old_torch_takes_an_old_numpy(matrix, version, installed):
    assert matrix.torch_requirements(version) == installed


def test_openmmlab_comes_second_and_keeps_torch(matrix):
    env = Recorder()
    row = matrix.try_out(env, 'newest', WHEEL, True)
    assert (row.plain, row.openmmlab) == ('works', 'works')
    assert env.installed == [('torch', 'dms_razor.whl'),
                             ('torch==2.9.1', 'torchvision', 'mmcv-lite<2.1',
                              'dms_razor.whl[mim,optional]')]


@pytest.mark.parametrize('broken, plain, openmmlab', [
    ('plain', 'fails: an error (a.log)', 'works'),
    ('openmmlab', 'works', 'fails: an error (a.log)'),
    ('mmcv-lite<2.1', 'works', 'does not install: no such version (a.log)'),
    ('torch', 'does not install: no such version (a.log)', ''),
])
def test_what_goes_wrong_is_in_the_row(matrix, broken, plain, openmmlab):
    row = matrix.try_out(Recorder([broken]), 'newest', WHEEL, True)
    assert (row.plain, row.openmmlab) == (plain, openmmlab)


def test_rows_share_their_columns(matrix):
    rows = [
        matrix.Row('pip', {'torch': '2.1.0'}, 'works'),
        matrix.Row('uv', {
            'torch': '2.9.1',
            'mmdet': '3.3.0'
        }, 'works', 'works')
    ]
    assert matrix.table(rows).splitlines() == [
        '| installed with | torch | mmdet | plain Python | with OpenMMLab |',
        '| --- | --- | --- | --- | --- |',
        '| pip | 2.1.0 |  | works |  |',
        '| uv | 2.9.1 | 3.3.0 | works | works |',
    ]


def test_commands_leave_a_log_and_know_no_source_tree(matrix, tmp_path,
                                                      monkeypatch):
    """A real environment; only its Python is asked."""
    monkeypatch.setenv('PYTHONPATH', str(Path(__file__).parents[2]))
    monkeypatch.setattr(matrix.Environment, '__init__', lambda self: None)
    env = matrix.Environment()
    env.log, env.python = tmp_path / 'a.log', sys.executable
    assert env.run(env.python, '-c',
                   'import os; print(os.listdir())') == '[]\n'
    assert env.run(
        env.python, '-c',
        'import os; print(os.environ.get("PYTHONPATH"))') == 'None\n'
    with pytest.raises(RuntimeError, match='ValueError: why .*a.log'):
        env.run(env.python, '-c', 'raise ValueError("why")')
    assert 'ValueError: why' in env.log.read_text()
