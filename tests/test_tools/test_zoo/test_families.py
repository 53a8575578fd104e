# Copyright (c) dms_razor contributors. All rights reserved.
"""Rows in processes of their own, the limit, and going on."""
import json
import shutil
import subprocess

import pytest

from tools.zoo import families
from tools.zoo.families import cases, check_family
from tools.zoo.record import Record

HERE = 'test_tools.test_zoo.nets'


def test_rows_of_a_family_and_going_on(tmp_path, monkeypatch, repo):
    """In one go: starting processes is what takes the time."""
    monkeypatch.setitem(families.FAMILIES, 'toys', HERE)
    monkeypatch.syspath_prepend(str(repo / 'tests'))
    seen = []
    rows = check_family('toys', ['plain', 'odd', 'absent'], tmp_path, 120,
                        seen.append)
    assert rows == seen
    assert [row.status for row in rows] == ['equal', 'foreign',
                                            'not covered'], rows
    assert rows[0].reload_error == 0 and rows[0].variant == 'Plain'
    assert {row.revision for row in rows} == {families.revision()}
    assert 'nonsense' in rows[1].problem and rows[1].stage == 'trace'
    path = tmp_path / 'toys' / 'plain.json'
    path.write_text(path.read_text().replace('"Plain"', '"Kept"'))
    (tmp_path / 'toys' / 'absent.json').unlink()
    again = check_family('toys', ['plain', 'absent'], tmp_path, 120,
                         seen.append)
    assert [row.variant for row in again] == ['Kept', '']
    slow, = check_family('toys', ['endless'], tmp_path, 1, seen.append)
    assert (slow.status, slow.stage) == ('slow', 'build')
    assert '1 s' in slow.problem


def test_a_row_names_its_commit(monkeypatch, tmp_path):
    """Three trees: a repository, one with changes, none at all."""
    file = tmp_path / 'families.py'
    monkeypatch.setattr(families, '__file__', str(file))
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert families.revision() == ''
    if shutil.which('git') is None:
        return
    file.write_text('a')
    name = ('-c', 'user.name=a', '-c', 'user.email=a@b')
    for arguments in (('init', '-q'), ('add', '.'), (*name, 'commit', '-qm',
                                                     'a')):
        subprocess.run(('git', *arguments), cwd=tmp_path, check=True)
    head = (tmp_path / '.git/refs/heads').glob('*')
    commit = next(head).read_text()
    assert families.revision() and commit.startswith(families.revision())
    file.write_text('b')
    assert families.revision().endswith('+')


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(families.FAMILIES, 'toys', 'a_package.that_is_not')
    with pytest.raises(ImportError, match='requirements/coverage.txt'):
        cases('toys')


def test_a_network_that_cannot_be_built():
    record, case = families._begin('toys', HERE, 'no such name')
    assert case is None and record.status == 'not built'
    assert 'no such name' in record.problem


def test_records_are_files(tmp_path):
    path = tmp_path / 'folder' / 'a.json'
    row = Record('toys', 'a', outside=[('reason', 3, ['x'])])
    row.save(path)
    assert json.loads(path.read_text())['name'] == 'a'
    again = Record.load(path)
    assert again.outside == [['reason', 3, ['x']]]
    again.status = 'slow'
    again.save()
    assert Record.load(path).status == 'slow'
