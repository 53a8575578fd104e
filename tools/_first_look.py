# Copyright (c) dms_razor contributors. All rights reserved.
"""What a tool says before its work: that it lives, and that data lack."""
import inspect
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, TextIO

import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

from mmengine.config import Config
from mmengine.registry import DATASETS


@contextmanager
def alive(what: str,
          every: float = 10.,
          out: Optional[TextIO] = None) -> Iterator[None]:
    """A line now and then while the body takes its time.

    Args:
        what (str): What is being done.
        every (float): Seconds between two lines; the first comes then, too.
        out (TextIO, optional): By default standard error.
    """
    done, start = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(every):
            print(
                f'{what} … {time.monotonic() - start:.0f} s',
                file=out or sys.stderr,
                flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def refuse_missing_data(cfg: Config) -> None:
    """Say that the training data are not there, before anything is built.

    Only of what is a local folder for sure: a dataset that downloads, or that
    is read through another backend, is left to itself.

    Raises:
        FileNotFoundError: The ``data_root`` of a training dataset is missing.
    """
    for dataset in _datasets(cfg.get('train_dataloader') or {}):
        root = dataset.get('data_root')
        if not isinstance(root, str) or not root or ':' in root[2:] \
                or dataset.get('backend_args') \
                or _downloads(dataset, cfg.get('default_scope')):
            continue
        if not Path(root).expanduser().exists():
            raise FileNotFoundError(
                f'the training data are not there: {dataset.get("type")} '
                f'reads the folder {root!r}, seen from {Path.cwd()}. Put them '
                'there, or name the folder: --cfg-options '
                'train_dataloader.dataset.data_root=FOLDER')


def _datasets(part: Any) -> Iterator[dict]:
    """Every dataset of a dataloader, inside wrappers too."""
    if isinstance(part, dict):
        if 'type' in part and 'data_root' in part:
            yield part
        for key in ('dataset', 'datasets'):
            yield from _datasets(part.get(key))
    elif isinstance(part, (list, tuple)):
        for one in part:
            yield from _datasets(one)


def _downloads(dataset: dict, scope: Optional[str]) -> bool:
    """Whether it may fetch its data itself, as far as is known."""
    kind = dataset['type']
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    takes = [] if kind is None else [
        name for base in inspect.getmro(kind)
        for name in inspect.signature(base.__init__).parameters
    ]
    return kind is None or ('download' in takes
                            and dataset.get('download', True))
