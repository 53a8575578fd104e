# Copyright (c) dms_razor contributors. All rights reserved.
"""Saves and restores all random generators, as tensors only."""
import random
from itertools import islice
from typing import Dict, Iterator

import numpy as np
import torch
from mmengine.runner import BaseLoop
from torch import Tensor


def get_random_state() -> Dict[str, Tensor]:
    """State of Python's, NumPy's and torch's generators.

    mmengine's checkpoints hold none, so that a resumed run draws other
    augmentations and drop-outs than one that ran through.

    Returns:
        dict[str, Tensor]: Tensors on the CPU; the GPU's generator is that of
        the current device.
    """
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return dict(
        python=torch.tensor([version, *words], dtype=torch.int64),
        python_gauss=torch.tensor([float('nan') if gauss is None else gauss],
                                  dtype=torch.float64),
        numpy=torch.tensor([*keys.tolist(), position, has_gauss],
                           dtype=torch.int64),
        numpy_gauss=torch.tensor([cached], dtype=torch.float64),
        torch=torch.get_rng_state(),
        **(dict(cuda=torch.cuda.get_rng_state())
           if torch.cuda.is_available() else {}))


def set_random_state(state: Dict[str, Tensor]) -> None:
    """Put all generators where :func:`get_random_state` found them.

    A state that was saved without a GPU leaves the GPU's generator alone.
    """
    version, *words = state['python'].tolist()
    gauss = state['python_gauss'].item()
    random.setstate((version, tuple(words), None if gauss != gauss else gauss))
    *keys, position, has_gauss = state['numpy'].tolist()
    np.random.set_state(('MT19937', np.array(keys, dtype=np.uint32), position,
                         has_gauss, state['numpy_gauss'].item()))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


# Makes a resumed training loop draw what an unbroken one would.


def _restoring(batches: Iterator, skip: int, state: Dict[str, Tensor]):
    """``batches``, with the generators restored after the first ``skip``."""
    yield from islice(batches, skip)
    set_random_state(state)
    yield from batches


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
        loop.dataloader_iterator = _restoring(loop.dataloader_iterator,
                                              loop.iter, state)
    else:
        set_random_state(state)
