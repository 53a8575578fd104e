# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks of other packages, each in processes of its own.

A first process takes a network the whole way and writes its export, a second
builds that again. Both begin with the package imported and nothing else, so
that nothing is known of a search. A row is a file: a run that is broken off
goes on where it was.
"""
import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple
from unittest.mock import patch

import torch

from .again import build_again
from .case import NotCovered
from .record import Record
from .whole_way import prove

#: Family -> the module that has its cases.
FAMILIES: Dict[str, str] = {
    'timm': 'tools.zoo.timm_models',
    'torchvision': 'tools.zoo.torchvision_models',
    'transformers': 'tools.zoo.transformers_models',
    'openmmlab': 'tools.zoo.openmmlab_models',
}


def cases(family: str) -> Any:
    """The module of a family: ``names()``, ``build(name)``, ``PACKAGES``.

    Raises:
        ImportError: Its package is not installed.
    """
    try:
        return importlib.import_module(FAMILIES[family])
    except ImportError as error:
        raise ImportError(
            f'the coverage of {family} needs the package ({error}); install '
            'requirements/coverage.txt') from error


def check_family(family: str,
                 names: List[str],
                 results: Path,
                 limit: float = 300,
                 show: Callable[[Record], None] = print) -> List[Record]:
    """Take networks the whole way; those that have a row already are read.

    Args:
        family (str): One of :data:`FAMILIES`.
        names (list[str]): Its networks.
        results (Path): Folder of the rows, ``FAMILY/NAME.json``.
        limit (float): Seconds of the processor that one network may take,
            so that other programs do not decide; ten times that on the clock.
        show (Callable): Gets each row when it is there.
    """
    context, made_on, found = _server(family), revision(), []
    for name in names:
        path = row_file(results, family, name)
        if not path.exists():
            _row(context, family, name, path, limit)
            record = Record.load(path)
            record.revision = made_on
            record.save(path)
        found.append(Record.load(path))
        show(found[-1])
    return found


def revision() -> str:
    """Commit of the code that runs, with '+' where it has changes.

    Empty where the tree is no checkout, or git is not installed.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(('git', *arguments),
                              cwd=Path(__file__).parent,
                              capture_output=True,
                              text=True).stdout.strip()

    try:
        return git('rev-parse', '--short',
                   'HEAD') + '+' * bool(git('status', '--porcelain', '-uno'))
    except OSError:
        return ''


def row_file(results: Path, family: str, name: str) -> Path:
    """Where the row of a network is kept."""
    return results / family / f'{name.replace(" ", "_")}.json'


def _server(family: str) -> Any:
    """What starts processes, each a fork of one that has imports alone.

    Importing takes longer than most networks. The server looks for modules
    where the environment says, not where we do.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([FAMILIES[family], __name__])
    path = os.pathsep.join(filter(None, sys.path))
    with patch.dict(os.environ, PYTHONPATH=path):
        forkserver.ensure_running()
    return context


def _row(context: Any, family: str, name: str, path: Path,
         limit: float) -> None:
    """Two processes for one row; what they cannot write is written here."""
    folder = Path(tempfile.mkdtemp())
    try:
        for function in (first_process, second_process):
            process = context.Process(
                target=function,
                args=(family, FAMILIES[family], name, path, folder, limit))
            process.start()
            process.join(10 * limit)
            process.kill()
            process.join()
            if process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
                _broken(family, name, path, 'slow',
                        f'not done in {limit:.0f} s')
            elif process.exitcode:
                _broken(family, name, path, 'foreign',
                        f'the process ended with code {process.exitcode}')
            if Record.load(path).status != 'equal':
                return
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _broken(family: str, name: str, path: Path, status: str,
            problem: str) -> None:
    record = Record.load(path) if path.exists() else Record(family, name)
    record.status, record.problem = status, problem
    record.save(path)


def first_process(family: str, module: str, name: str, path: Path,
                  folder: Path, limit: float) -> None:
    """Everything but :func:`second_process`."""
    _limit(limit)
    record, case = _begin(family, module, name)
    record.save(path)
    if case is not None:
        prove(record, case, folder)
    record.save(path)


def second_process(family: str, module: str, name: str, path: Path,
                   folder: Path, limit: float) -> None:
    """Build the export again, from the files alone."""
    _limit(limit)
    record = Record.load(path)
    build_again(record, _begin(family, module, name)[1], folder)
    record.save(path)


def _limit(seconds: float) -> None:
    """End this process after so many seconds of the processor."""
    seconds = max(1, round(seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))


def _begin(family: str, module: str, name: str) -> Tuple[Record, Any]:
    """The network of a row, or what is wrong with it."""
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record = Record(family, name)
    try:
        case = importlib.import_module(module).build(name)
    except NotCovered as error:
        record.status, record.problem = 'not covered', str(error)
        return record, None
    except Exception as error:
        record.problem = f'{type(error).__name__}: {error}'
        return record, None
    record.variant = case.note or name
    return record, case
