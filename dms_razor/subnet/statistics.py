# Copyright (c) dms_razor contributors. All rights reserved.
"""BatchNorm statistics of the network that is meant, not of its supernet.

A norm's running statistics were taken while all channels were there, under
soft masks. The subnet has other activations: evaluated with the old
statistics it loses many points that a few forward passes give back. Nothing
is trained here, and nothing but running statistics changes.
"""
from contextlib import contextmanager
from itertools import islice
from typing import (Any, Callable, Dict, Iterable, Iterator, List, Mapping,
                    Optional)

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset, IterableDataset

from ..network import alone

LOADER = ('give a loader: an iterable of batches, such as '
          'DataLoader(dataset, batch_size=64) or [images]')
"""What statistics are taken from, for messages."""


def recalibrate(model: nn.Module,
                batches: Iterable[Any],
                number: int = 20,
                forward: Optional[Callable[[nn.Module, Any], Any]] = None,
                norms: Optional[List[_BatchNorm]] = None) -> int:
    """Take the BatchNorm statistics of a network anew, from data.

    Each statistic becomes the plain average over the batches. Norms that do
    not train (``norm_eval``, frozen stages) keep theirs; dropout and all else
    run as in evaluation. Training flags and the state of torch's random
    generators are as before afterwards.

    Args:
        model (nn.Module): The network, a subnet or a supernet with hard
            masks.
        batches (Iterable): Batches; those of a loader of ``(images, labels)``
            do, labels are not looked at.
        number (int): At most this many batches. Defaults to 20.
        forward (Callable, optional): ``forward(model, batch)``. Defaults to
            ``model(batch)``, of a tuple or list ``model(batch[0])``.
        norms (list, optional): The norms to take. Defaults to those that
            :func:`training_norms` finds.

    Returns:
        int: Batches that were used; 0 if no norm of the network trains.

    Raises:
        ValueError: If there is not a single batch, ``number`` is below 1, or
            ``batches`` are no batches of this network.
            The network is as before then.
    """
    if number < 1:
        raise ValueError(f'recalibrate with {number} batches: give at least 1')
    norms = training_norms(model) if norms is None else norms
    if not norms:
        return 0
    _check_batches(batches)
    before = [_state(norm) for norm in norms]
    used, unseen = 0, norms
    try:
        with _averaging(model, norms):
            for batch in islice(batches, number):
                run = forward or (_first_part if used else _first_batch)
                run(model, batch)
                used += 1
        if not used:
            raise ValueError(
                'there is no batch to take the BatchNorm statistics from; '
                'give a loader or a list with at least one batch')
        unseen = [norm for norm in norms if norm.num_batches_tracked == 0]
    finally:
        # All after an error, else those that no batch went through.
        for norm, state in zip(norms, before):
            if norm in unseen:
                _restore(norm, state)
    return used


def _check_batches(batches: Any) -> None:
    """Refuse a batch or a data set in the place of a loader."""
    samples = isinstance(batches,
                         Dataset) and not isinstance(batches, IterableDataset)
    if isinstance(batches, (Tensor, Mapping, str)) or samples or not (hasattr(
            batches, '__iter__') or hasattr(batches, '__getitem__')):
        what = 'samples one by one' if samples else 'no batches'
        raise ValueError(
            f'bn_data is a {type(batches).__name__}, which gives {what}: '
            f'{LOADER}')


def _told(batch: Any) -> str:
    """What kind of thing a batch is."""
    part = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    return f'a tensor of shape {tuple(part.shape)}' \
        if isinstance(part, Tensor) else f'a {type(part).__name__}'


def training_norms(model: nn.Module) -> List[_BatchNorm]:
    """Norms with running statistics that ``model.train()`` would train.

    The network's own ``train`` decides, which is where ``norm_eval`` and
    frozen stages are; its training flags are as before afterwards.
    """
    flags = [(module, module.training) for module in model.modules()]
    grads = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.train()
        return [
            module for module in model.modules()
            if isinstance(module, _BatchNorm) and module.training
            and module.track_running_stats and module.running_mean is not None
        ]
    finally:
        for module, flag in flags:
            module.training = flag
        for parameter, flag in grads:  # frozen stages switch them off
            parameter.requires_grad_(flag)


@contextmanager
def _averaging(model: nn.Module, norms: List[_BatchNorm]) -> Iterator[None]:
    """Evaluation, but for these norms, which average from nothing."""
    flags = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    devices = {p.device for p in model.parameters() if p.is_cuda}
    try:
        for module, _ in flags:
            module.training = False
        for norm in norms:
            norm.training, norm.momentum = True, None  # a plain average
            norm.reset_running_stats()
        with torch.no_grad(), alone(model), torch.random.fork_rng(
                devices=list(devices)):
            yield
    finally:
        for module, flag in flags:
            module.training = flag
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum


def _state(norm: _BatchNorm) -> Dict[str, Tensor]:
    return {
        name: buffer.clone()
        for name, buffer in norm._buffers.items() if buffer is not None
    }


def _restore(norm: _BatchNorm, state: Dict[str, Tensor]) -> None:
    for name, value in state.items():
        norm._buffers[name].copy_(value)


def _first_part(model: nn.Module, batch: Any) -> Any:
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def _first_batch(model: nn.Module, batch: Any) -> Any:
    """Run the first batch: if that fails, it is no batch of this network."""
    try:
        return _first_part(model, batch)
    except Exception as error:
        raise ValueError(f'bn_data: the network does not take a batch of it, '
                         f'{_told(batch)} ({type(error).__name__}: '
                         f'{str(error).partition(chr(10))[0]}). {LOADER}, or '
                         'bn_forward(model, batch), which calls it') from error
