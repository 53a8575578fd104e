# Copyright (c) dms_razor contributors. All rights reserved.
"""Files and folders that appear whole or not at all.

Everything is first written under a temporary name beside its destination and
then renamed, which a file system does in one step: whoever looks, or comes
back after a crash, finds the old, the new or nothing, never a half. What a
process that was killed has left behind is cleaned up by the next one that
writes to the same place. Where the destination is a symbolic link, its target
is written.
"""
import hashlib
import os
import shutil
import socket
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence, Union

from ..errors import SubnetError

#: Of another machine only age is known: what is so old, nobody writes.
_DAY = 24 * 3600
_MACHINE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
_OURS: set = set()


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
    path = Path(os.path.realpath(path))
    _clean(path)
    temporary = _beside(path, 'tmp')
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        _OURS.discard(temporary.name)


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
    path = _checked(path, known)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean(path, known)
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
        _OURS.difference_update((temporary.name, old.name))
    if old.exists():
        _discard(old, known)


def check_destination(path: Union[str, Path],
                      known: Sequence[str],
                      size: int = 0) -> None:
    """Look, before there is anything to write, whether it can be written.

    Args:
        path, known: As for :func:`whole_folder`, also for errors.
        size (int): Bytes that will be written.

    Raises:
        SubnetError: The folder cannot be written, or the disk is full.
    """
    path = _checked(path, known)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = _beside(path, 'tmp')
        trial.mkdir()
        trial.rmdir()
        _OURS.discard(trial.name)
    except OSError as error:
        raise SubnetError(
            f'{str(path)!r} cannot be written ({error.strerror}). Name a '
            'folder that can, or allow it.') from error
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise SubnetError(
            f'{str(path)!r} needs {size / 1e6:,.0f} MB, but its disk has '
            f'{free / 1e6:,.0f} MB left. Free some, or name another folder.')


def _checked(path: Union[str, Path], known: Sequence[str]) -> Path:
    """The real path of a folder that may be replaced; see whole_folder."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_dir():
        raise SubnetError(f'{str(path)!r} is a file, but an export is a '
                          'folder. Name another folder.')
    names = {file.name for file in path.glob('*')}
    if names and not names & set(known):
        raise SubnetError(
            f'{str(path)!r} holds {sorted(names)[0]!r} and nothing of an '
            'export, so it is not replaced. Name another folder.')
    return path


def _discard(old: Path, known: Sequence[str]) -> None:
    """Delete what was replaced, unless there is something else in it."""
    if {file.name for file in old.iterdir()} <= set(known):
        shutil.rmtree(old)
    else:
        stem, _, tail = old.name.lstrip('.').rpartition('.old-')
        os.replace(old, old.with_name(f'{stem}.old-{tail.rpartition("-")[2]}'))


def _clean(path: Path, known: Sequence[str] = ()) -> None:
    """Remove what killed processes left, and put back what they moved."""
    begin, end = f'.{path.stem}.', path.suffix
    for left in list(path.parent.iterdir()) if path.parent.is_dir() else ():
        purpose, _, writer = left.name[len(begin):].partition('-')
        if not (left.name.startswith(begin) and left.name.endswith(end)
                and purpose in ('tmp', 'old') and _abandoned(left, writer)):
            continue
        if purpose == 'old' and not path.exists():
            os.replace(left, path)
        elif purpose == 'old':
            _discard(left, known)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _abandoned(left: Path, writer: str) -> bool:
    """Whether nobody writes a temporary file or folder any more."""
    machine, _, rest = writer.partition('-')
    pid = rest.partition('-')[0]
    if left.name in _OURS or not pid.isdigit():
        return False
    if machine != _MACHINE:
        return time.time() - left.lstat().st_mtime > _DAY
    # A container that starts again gives the same number to its process.
    return int(pid) == os.getpid() or not _alive(int(pid))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def _beside(path: Path, purpose: str) -> Path:
    """Make up a hidden name in the folder of ``path``."""
    name = (f'.{path.stem}.{purpose}-{_MACHINE}-{os.getpid()}-'
            f'{uuid.uuid4().hex[:8]}{path.suffix}')
    _OURS.add(name)
    return path.with_name(name)


def _flush(path: Path) -> None:
    """See to it that the content is on disk before the name is."""
    if path.is_file():
        with open(path, 'rb+') as file:
            os.fsync(file.fileno())
