# Copyright (c) dms_razor contributors. All rights reserved.
"""Files that several processes work on: whole or not there, and claimed once.

A claim is a lock on a file that holds the claimer's pid. The system lets go of
it when the process ends, however it ends, so that what a killed worker had
claimed is free for the next one, and a pid that was given to another process
since does no harm.
"""
import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List

import torch


class Busy(Exception):
    """Something is being made by another process."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears when it is complete, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        with open(partial, 'wb') as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


class Store:
    """The folder of an experiment.

    Args:
        folder (Path): It, made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_file(self, name: str) -> Path:
        """Where a finished run is written."""
        return self.folder / 'runs' / f'{name}.json'

    def runs(self) -> List[Dict[str, Any]]:
        """All finished runs, by name.

        Raises:
            ValueError: A file is no JSON.
        """
        found = []
        for path in sorted((self.folder / 'runs').glob('*.json')):
            try:
                found.append(json.loads(path.read_text()))
            except json.JSONDecodeError as error:
                raise ValueError(f'{path} is no JSON ({error}): delete it, '
                                 'and it is run again') from None
        return found

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """Keep others from making the same.

        Raises:
            Busy: Another process has claimed it and is alive.
        """
        path = self.folder / 'locks' / f'{name}.lock'
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, 'a+') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise Busy(f'{name} is made by process '
                           f'{file.read() or "?"}') from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            # The file stays: to remove it would let a third process lock a
            # new one of that name while a second waits for the old.
            yield

    def made_once(self, name: str, make) -> Dict[str, Any]:
        """What ``make()`` returns, made by the first who asks and kept.

        Args:
            name (str): Path in the folder, without suffix.
            make (callable): Returns a dict of tensors and plain values.

        Raises:
            Busy: Another process is making it.
        """
        path = self.folder / f'{name}.pth'
        if not path.exists():
            with self.claim(name.replace('/', '-')):
                if not path.exists():
                    made = make()
                    with whole_file(path) as file:
                        torch.save(made, file)
        return torch.load(path, weights_only=True)
