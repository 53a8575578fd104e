# Copyright (c) dms_razor contributors. All rights reserved.
"""Makes a resumed training loop draw what an unbroken one would."""
from typing import Dict

from mmengine.runner import BaseLoop
from torch import Tensor

from .random_state import set_random_state


class _RestoringIterator:
    """Hands on batches; restores the generators before one of them.

    Args:
        iterator: The loop's iterator over batches.
        skip (int): Batches that pass before the generators are restored.
        state (dict): From :func:`get_random_state`.
    """

    def __init__(self, iterator, skip: int, state: Dict[str, Tensor]) -> None:
        self.iterator, self.skip, self.state = iterator, skip, state

    def __iter__(self) -> '_RestoringIterator':
        return self

    def __next__(self):
        if self.skip == 0:
            set_random_state(self.state)
        self.skip -= 1
        return next(self.iterator)


def restore_before_next_batch(loop: BaseLoop, state: Dict[str, Tensor]):
    """Restore the random generators where the saved run went on.

    An iteration loop skips the batches that were trained on by drawing them
    again, which moves the generators, and then draws the next batch: the
    generators are restored in between. An epoch loop draws nothing before
    its next epoch.

    Args:
        loop (BaseLoop): The training loop, about to begin.
        state (dict): From :func:`get_random_state`.
    """
    if hasattr(loop, 'dataloader_iterator'):
        loop.dataloader_iterator = _RestoringIterator(loop.dataloader_iterator,
                                                      loop.iter, state)
    else:
        set_random_state(state)
