# Copyright (c) dms_razor contributors. All rights reserved.
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from dms_razor.subnet import SubnetError
from dms_razor.subnet.files import (check_destination, whole_file,
                                    whole_folder, write_text)

KNOWN = ('a', 'b')


def names(folder):
    return sorted(os.listdir(folder))


def test_file_whole_or_not_at_all(tmp_path):
    write_text(tmp_path / 'a.txt', 'old ⇒')
    with pytest.raises(KeyError):
        with whole_file(tmp_path / 'a.txt') as temporary:
            temporary.write_text('half')
            assert temporary.parent == tmp_path
            assert temporary.suffix == '.txt'
            assert (tmp_path / 'a.txt').read_text('utf-8') == 'old ⇒'
            raise KeyError
    assert names(tmp_path) == ['a.txt']
    assert (tmp_path / 'a.txt').read_text('utf-8') == 'old ⇒'
    write_text(tmp_path / 'a.txt', 'new')
    assert (tmp_path / 'a.txt').read_text('utf-8') == 'new'
    assert names(tmp_path) == ['a.txt']


def test_folder_whole_or_not_at_all(tmp_path):
    target = tmp_path / 'deep' / 'out'
    with pytest.raises(KeyError):
        with whole_folder(target, KNOWN) as folder:
            (folder / 'a').write_text('half')
            assert not target.exists()
            raise KeyError
    assert names(tmp_path / 'deep') == []
    with whole_folder(target, KNOWN) as folder:
        (folder / 'a').write_text('1')
        (folder / 'b').write_text('1')
    assert names(tmp_path / 'deep') == ['out'] and names(target) == ['a', 'b']


def test_an_older_export_stays_until_the_new_one_is_there(tmp_path):
    target = tmp_path / 'out'
    with whole_folder(target, KNOWN) as folder:
        (folder / 'a').write_text('old')
    with pytest.raises(KeyError):
        with whole_folder(target, KNOWN) as folder:
            (folder / 'a').write_text('half')
            raise KeyError
    assert (target / 'a').read_text() == 'old'
    with whole_folder(target, KNOWN) as folder:
        (folder / 'b').write_text('new')
        assert (target / 'a').read_text() == 'old'
    assert names(target) == ['b'] and names(tmp_path) == ['out']


def test_the_older_export_comes_back_if_the_last_step_fails(
        tmp_path, monkeypatch):
    target = tmp_path / 'out'
    with whole_folder(target, KNOWN) as folder:
        (folder / 'a').write_text('old')
    replace = os.replace

    def failing(source, destination):
        if '.tmp-' in str(source):
            raise OSError('disk trouble')
        replace(source, destination)

    monkeypatch.setattr(os, 'replace', failing)
    with pytest.raises(OSError, match='disk trouble'):
        with whole_folder(target, KNOWN) as folder:
            (folder / 'a').write_text('new')
    assert (target / 'a').read_text() == 'old' and names(tmp_path) == ['out']


def test_files_of_others_are_never_deleted(tmp_path):
    target = tmp_path / 'out'
    with whole_folder(target, KNOWN) as folder:
        (folder / 'a').write_text('old')
    (target / 'notes.txt').write_text('mine')
    with whole_folder(target, KNOWN) as folder:
        (folder / 'a').write_text('new')
    assert names(target) == ['a']
    kept, = [name for name in names(tmp_path) if name != 'out']
    assert re.fullmatch(r'out\.old-\w{8}', kept)
    assert (tmp_path / kept / 'notes.txt').read_text() == 'mine'


def test_a_folder_or_file_of_others_is_not_replaced(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'cat.jpg').write_text('miaow')
    (tmp_path / 'file').write_text('text')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(
            SubnetError,
            match="photos' holds 'cat.jpg' and nothing "
            'of an export.* Name another folder'):
        with whole_folder(tmp_path / 'photos', KNOWN):
            raise AssertionError('must not get here')
    with pytest.raises(SubnetError, match="file' is a file, but an export is"):
        with whole_folder(tmp_path / 'file', KNOWN):
            raise AssertionError('must not get here')
    with whole_folder(tmp_path / 'empty', KNOWN) as folder:
        (folder / 'a').write_text('1')
    assert names(tmp_path) == ['empty', 'file', 'photos']


def killed(code, folder):
    """What a process does in ``folder`` before it is killed."""
    found = subprocess.run([
        sys.executable, '-c', 'import os, signal, sys\n'
        'from dms_razor.subnet.files import whole_file, whole_folder\n'
        f'os.chdir(sys.argv[1])\n{code}\n', folder
    ])
    assert found.returncode == -signal.SIGKILL


KILL = 'os.kill(os.getpid(), signal.SIGKILL)'


def test_leftovers_of_a_killed_process_are_cleaned_up(tmp_path):
    killed(
        'with whole_file("a.txt") as f, whole_folder("out", "ab") as g:\n'
        ' f.write_text("half"); (g / "a").write_text("half")\n'
        f' {KILL}', tmp_path)
    assert len(names(tmp_path)) == 2  # hidden
    (tmp_path / '.a.notes.txt').write_text('mine')
    write_text(tmp_path / 'a.txt', 'whole')
    with whole_folder(tmp_path / 'out', KNOWN) as folder:
        # another export to the same place is under way: it is left alone
        with whole_folder(tmp_path / 'out', KNOWN) as other:
            (other / 'a').write_text('1')
        (folder / 'a').write_text('2')
    assert names(tmp_path) == ['.a.notes.txt', 'a.txt', 'out']
    assert (tmp_path / 'out' / 'a').read_text() == '2'


def test_leftovers_of_another_machine_are_left_alone_for_a_day(tmp_path):
    left = tmp_path / '.a.tmp-abcdef-1-01234567.txt'
    left.write_text('half')
    write_text(tmp_path / 'a.txt', 'whole')
    assert left.exists()
    os.utime(left, (0, 0))
    write_text(tmp_path / 'a.txt', 'whole')
    assert names(tmp_path) == ['a.txt']


def test_an_export_that_was_moved_aside_comes_back(tmp_path):
    """The kill comes between the two renames."""
    with whole_folder(tmp_path / 'out', KNOWN) as folder:
        (folder / 'a').write_text('old')
    killed(
        'before = os.replace\n'
        'def replace(a, b):\n'
        ' before(a, b)\n'
        f' {KILL}\n'
        'os.replace = replace\n'
        'with whole_folder("out", "ab") as g: pass', tmp_path)
    assert 'out' not in names(tmp_path)
    with pytest.raises(KeyError):
        with whole_folder(tmp_path / 'out', KNOWN):
            raise KeyError
    assert names(tmp_path) == ['out']
    assert (tmp_path / 'out' / 'a').read_text() == 'old'


def test_the_target_of_a_link_is_written(tmp_path):
    (tmp_path / 'disk').mkdir()
    for name in ('out', 'a.txt'):
        (tmp_path / name).symlink_to(tmp_path / 'disk' / name)
    write_text(tmp_path / 'a.txt', 'text')
    for text in '12':
        with whole_folder(tmp_path / 'out', KNOWN) as folder:
            (folder / 'a').write_text(text)
    assert (tmp_path / 'out').is_symlink() and (tmp_path /
                                                'a.txt').is_symlink()
    assert names(tmp_path / 'disk') == ['a.txt', 'out']
    assert (tmp_path / 'disk' / 'out' / 'a').read_text() == '2'


def test_a_destination_is_looked_at_before(tmp_path):
    check_destination(tmp_path / 'new' / 'out', KNOWN, 10)
    assert names(tmp_path) == ['new'] and names(tmp_path / 'new') == []
    (tmp_path / 'file').write_text('text')
    (tmp_path / 'link').symlink_to(tmp_path / 'file')
    for path, reason in (('file', 'is a file'), ('link', 'is a file'),
                         ('file/out',
                          'cannot be written'), ('.', 'nothing of an export')):
        with pytest.raises(SubnetError, match=reason):
            check_destination(tmp_path / path, KNOWN)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(SubnetError, match='needs .* MB, but its disk has'):
        check_destination(tmp_path / 'out', KNOWN, 2 * free)
    if os.geteuid():  # the superuser may write anywhere
        (tmp_path / 'new').chmod(0o500)
        with pytest.raises(SubnetError, match='Permission denied'):
            check_destination(tmp_path / 'new' / 'out', KNOWN)
