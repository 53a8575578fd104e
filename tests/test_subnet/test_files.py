# Copyright (c) dms_razor contributors. All rights reserved.
import os
import re

import pytest

from dms_razor.subnet import SubnetError
from dms_razor.subnet.files import whole_file, whole_folder, write_text

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
