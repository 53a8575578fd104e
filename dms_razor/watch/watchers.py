# Copyright (c) dms_razor contributors. All rights reserved.
"""Who is told after each step of a search, and the last loss."""
from typing import Any, Callable, List, Optional

from torch import Tensor


class Watchers:
    """Callbacks of one search, in the order in which they came.

    Attributes:
        callbacks (list[Callable]): Each is called with the search.
    """

    def __init__(self) -> None:
        self.callbacks: List[Callable[[Any], Any]] = []
        self._loss: Optional[Tensor] = None

    def add(self, callback: Callable[[Any], Any]) -> Callable[[], None]:
        """Tell one more; returns what takes it away again.

        Raises:
            TypeError: It cannot be called.
        """
        if not callable(callback):
            raise TypeError(
                f'{callback!r} cannot be called after a step: give a function '
                'of one argument, the search')
        self.callbacks.append(callback)

        def remove() -> None:
            if callback in self.callbacks:
                self.callbacks.remove(callback)

        return remove

    def see(self, loss: Any) -> None:
        """Keep a task's loss, without its graph.

        Raises:
            TypeError: It is a number: nothing could go backward from it.
        """
        if not isinstance(loss, Tensor):
            raise TypeError(
                f'the loss of the task is {loss!r}, a {type(loss).__name__}, '
                'from which no gradient comes: give search.loss the tensor, '
                'without .item() or float()')
        self._loss = loss.detach()

    @property
    def loss(self) -> Optional[float]:
        """The last loss of the task, its mean if it has several entries."""
        return None if self._loss is None else float(
            self._loss.double().mean())

    def tell(self, search: Any) -> None:
        """A step is done."""
        for callback in list(self.callbacks):
            callback(search)
