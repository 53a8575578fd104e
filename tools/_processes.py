# Copyright (c) dms_razor contributors. All rights reserved.
"""Trainings that do not wait for each other, in processes beside this one."""
import importlib
import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, Callable, Union

import torch


def cores() -> int:
    """Cores that this process may use, at most four: memory is for each."""
    usable = getattr(os, 'sched_getaffinity', None)
    return min(4, len(usable(0)) if usable else os.cpu_count() or 1)


class Processes:
    """Runs functions in so many processes of one thread; use it as ``with``.

    They are started at once and import what they need while something else
    goes on here. With one there is none: a function runs here, when its result
    is asked for.

    Args:
        number (int): How many.
        module (str): What the functions stand in; imported beforehand.
    """

    def __init__(self, number: int, module: str) -> None:
        self._pool = None
        if number > 1:
            # a fork would inherit the threads and the GPU of this process
            self._pool = ProcessPoolExecutor(
                number,
                multiprocessing.get_context('spawn'),
                initializer=torch.set_num_threads,
                initargs=(1, ))
            for _ in range(number):
                self._pool.submit(importlib.import_module, module)

    def submit(self, function: Callable, *args:
               Any) -> Union[Future, SimpleNamespace]:
        """Run it; ``result()`` of what is returned waits, and may raise."""
        if self._pool is not None:
            return self._pool.submit(function, *args)
        return SimpleNamespace(
            result=lru_cache(maxsize=None)(partial(function, *args)))

    def __enter__(self) -> 'Processes':
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
