# Copyright (c) dms_razor contributors. All rights reserved.
"""Training images for BatchNorm statistics, beside a runner's own loops."""
from contextlib import contextmanager
from typing import Any, Iterator

from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from .resume import get_random_state, set_random_state


@contextmanager
def training_loader(runner: Runner) -> Iterator[DataLoader]:
    """The training images, from a loader of its own.

    Sampler and random generators of the training are where they were
    afterwards.
    """
    loader = runner._train_dataloader
    if isinstance(loader, dict):
        loader = runner.build_dataloader(loader, seed=runner.seed)
    state = get_random_state()
    try:
        yield loader
    finally:
        set_random_state(state)


def predict(model: nn.Module, batch: Any) -> Any:
    """Run an OpenMMLab model on a batch without training's augmentations."""
    return model.val_step(batch)
