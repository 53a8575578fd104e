# Copyright (c) dms_razor contributors. All rights reserved.
"""Files and folders that appear whole or not at all.

Everything is first written under a temporary name beside its destination and
then renamed, which a file system does in one step: whoever looks, or comes
back after a crash, finds the old, the new or nothing, never a half.
"""
import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence, Union

from ..errors import SubnetError


def write_text(path: Union[str, Path], text: str) -> None:
    """Write a text file whole or not at all.

    Args:
        path (str | Path): Destination; an existing file is replaced.
        text (str): Content, written as UTF-8.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


@contextmanager
def whole_file(path: Union[str, Path]) -> Iterator[Path]:
    """Give a temporary file name and, if the body ends well, put it in place.

    Args:
        path (str | Path): Destination; an existing file is replaced.

    Yields:
        Path: The file to write, in the same folder and with the same suffix.
    """
    path = Path(path)
    temporary = _beside(path, 'tmp')
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Union[str, Path],
                 known: Sequence[str]) -> Iterator[Path]:
    """Give an empty folder and, if the body ends well, put it in place.

    A folder that is already there is moved aside and deleted once the new
    one is in place. If it holds files that this function's caller does not
    write, it stays, under the name ``<name>.old-<random>``.

    Args:
        path (str | Path): Destination.
        known (Sequence[str]): Names of the files that a caller may write,
            and that may therefore be replaced.

    Yields:
        Path: The folder to fill, beside the destination.

    Raises:
        SubnetError: The destination is a file, or a folder with none of the
            known files in it.
    """
    path = Path(os.path.abspath(path))
    if path.exists() and not path.is_dir():
        raise SubnetError(f'{str(path)!r} is a file, but an export is a '
                          'folder. Name another folder.')
    names = {file.name for file in path.glob('*')}
    if names and not names & set(known):
        raise SubnetError(
            f'{str(path)!r} holds {sorted(names)[0]!r} and nothing of an '
            'export, so it is not replaced. Name another folder.')
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _beside(path, 'tmp'), _beside(path, 'old')
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
    if old.exists():
        if {file.name for file in old.iterdir()} <= set(known):
            shutil.rmtree(old)
        else:
            os.replace(old, path.with_name(old.name.lstrip('.')))


def _beside(path: Path, purpose: str) -> Path:
    """Make up a hidden name in the folder of ``path``."""
    return path.with_name(
        f'.{path.stem}.{purpose}-{uuid.uuid4().hex[:8]}{path.suffix}')


def _flush(path: Path) -> None:
    """See to it that the content is on disk before the name is."""
    if path.is_file():
        with open(path, 'rb+') as file:
            os.fsync(file.fileno())
