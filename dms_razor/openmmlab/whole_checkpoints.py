# Copyright (c) dms_razor contributors. All rights reserved.
"""Checkpoints that appear whole, and the newest one that can be read.

mmengine writes a checkpoint into its final file, and deletes the one that it
replaces before that: a kill or a full disk in between leaves half a file and,
with ``max_keep_ckpts=1``, nothing else. :func:`apply` changes both for every
run that imports :mod:`dms_razor.openmmlab`.
"""
import logging
import os
from functools import wraps
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Union

import mmengine.runner
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log

from ..compat import load_checkpoint
from ..subnet.files import whole_file


class _Later:
    """A file backend whose removals wait for :meth:`finish`."""

    def __init__(self, backend: Any) -> None:
        self._backend, self._waiting = backend, []  # type: Any, List[tuple]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._waiting.append(('remove', path))

    def rmtree(self, path: str) -> None:
        self._waiting.append(('rmtree', path))

    def finish(self, written: List[Optional[str]]) -> None:
        """Remove what has not been written again in the meantime."""
        for how, path in self._waiting:
            if path not in written:
                getattr(self._backend, how)(path)


def _removing_later(save: Callable) -> Callable:
    """``save`` of a CheckpointHook; the old file goes once the new is there.
    """

    @wraps(save)
    def saving(hook: CheckpointHook, *args: Any, **kwargs: Any) -> Any:
        backend = getattr(hook, 'file_backend', None)
        if backend is None:  # a validation alone: nothing was trained
            return save(hook, *args, **kwargs)
        hook.file_backend = later = _Later(backend)
        try:
            result = save(hook, *args, **kwargs)
        finally:
            hook.file_backend = backend
        best = getattr(hook, 'best_ckpt_path_dict', None) or {}
        later.finish([
            hook.last_ckpt,
            getattr(hook, 'best_ckpt_path', None), *best.values()
        ])
        return result

    return saving


def _put(backend: LocalBackend, obj: bytes, filepath: Union[str,
                                                            Path]) -> None:
    """``LocalBackend.put``, by way of a temporary file."""
    Path(os.path.realpath(filepath)).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(filepath) as temporary:
        temporary.write_bytes(obj)


def newest_readable(work_dir: str) -> Optional[str]:
    """The checkpoint that a run in this folder goes on from.

    It is the one that ``last_checkpoint`` names, or else the newest that can
    be read; the best ones, which have no optimizer, are none of them.

    Args:
        work_dir (str): The run's folder; it may have been moved.

    Returns:
        str | None: Its path; None where there is no checkpoint.

    Raises:
        RuntimeError: There are checkpoints and none can be read.
    """
    folder, broken = Path(work_dir), []  # type: Path, List[str]
    named = _named(folder)
    if '://' in named or os.path.isdir(named):
        return named  # of another backend or, by DeepSpeed, a folder
    for path in _candidates(folder, named):
        try:
            checkpoint = load_checkpoint(str(path), map_location='cpu')
        except (OSError, RuntimeError) as error:
            broken.append(str(error))
            continue
        if isinstance(checkpoint, dict) and 'iter' in checkpoint.get(
                'meta', {}) and (path.name == Path(named).name
                                 or 'optimizer' in checkpoint):
            for error in broken:
                print_log(f'{error} Going on from {path} instead.', 'current',
                          logging.WARNING)
            return str(path)
    if broken:
        raise RuntimeError(
            f'No checkpoint in {work_dir} can be read: {broken[0]} To start '
            'anew, delete it or leave out --resume.')
    return None


def _named(folder: Path) -> str:
    """What ``last_checkpoint`` says; '' if a kill left nothing in it."""
    try:
        return (folder / 'last_checkpoint').read_text('utf-8').strip()
    except (OSError, UnicodeDecodeError):
        return ''


def _candidates(folder: Path, named: str) -> Iterator[Path]:
    first = [Path(named), folder / Path(named).name] if named else []
    rest = sorted((path for path in folder.glob('*.pth')
                   if not path.name.startswith(('best_', '.'))),
                  key=lambda path: path.stat().st_mtime_ns,
                  reverse=True)
    seen: List[Path] = []
    for path in (*first, *rest):
        if path.is_file() and path.resolve() not in seen:
            seen.append(path.resolve())
            yield path


def apply() -> None:
    """Let mmengine write and find checkpoints so; twice is once."""
    LocalBackend.put = _put
    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        save = getattr(CheckpointHook, name)
        if not hasattr(save, '__wrapped__'):
            setattr(CheckpointHook, name, _removing_later(save))
    modules = [mmengine.runner, mmengine.runner.runner]
    modules += [mmengine.runner._flexible_runner]
    for module in modules:
        module.find_latest_checkpoint = newest_readable
