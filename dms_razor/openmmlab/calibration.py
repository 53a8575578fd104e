# Copyright (c) dms_razor contributors. All rights reserved.
"""Training images for BatchNorm statistics, beside a runner's own loops."""
from contextlib import contextmanager
from typing import Any, Iterator, List, Tuple

from mmengine.dist import all_reduce
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..subnet.statistics import recalibrate, training_norms
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
    """Run an OpenMMLab model on the images of a training batch.

    On the images alone, without boxes to post-process: what a collate
    function makes of annotations for training is not what evaluation takes.
    Models that cannot do without annotations get them.
    """
    images = dict(inputs=batch['inputs'])
    try:
        data = model.data_preprocessor(images, False)
        return model._run_forward(data, mode='tensor')
    except (AttributeError, KeyError, TypeError):
        return model.val_step(batch)


class LentStatistics:
    """BatchNorm statistics of the hard network while it is evaluated.

    Those that training keeps are of the soft network, which the hard one is
    not; they come back afterwards.
    """

    def __init__(self) -> None:
        self._own: List[Tuple[Tensor, Tensor]] = []

    def lend(self, runner: Runner, model: nn.Module, batches: int) -> None:
        """Take the statistics of ``model``, as it is masked now, from data.

        Args:
            runner (Runner): Has the training images.
            model (nn.Module): The supernet.
            batches (int): Training batches, of each rank.
        """
        norms = training_norms(model)
        if norms and runner._train_dataloader is None:
            runner.logger.warning(
                'There is no train_dataloader to take BatchNorm statistics '
                'from: the network is evaluated with those of the soft '
                'supernet, and may be better than this says.')
            norms = []
        self._own = [(buffer, buffer.clone()) for norm in norms
                     for buffer in norm.buffers()]
        if norms:
            with training_loader(runner) as loader:
                recalibrate(model, loader, batches, predict, norms)
        for norm in norms:
            all_reduce(norm.running_mean, 'mean')
            all_reduce(norm.running_var, 'mean')

    def give_back(self) -> None:
        """Put back what training keeps; does nothing twice."""
        for buffer, value in self._own:
            buffer.copy_(value)
        self._own = []
