# Copyright (c) dms_razor contributors. All rights reserved.
"""Pruning by the package torch-pruning, where it is installed."""
import copy
from typing import Any, Callable, List, Optional, Sequence

import torch
from torch import nn

from tools.compare.experiment import ExperimentError, one_of
from tools.compare.methods.job import METHODS, Found, Job, cost, task_loss
from tools.compare.training import Clock

IMPORTANCES = dict(
    magnitude='GroupMagnitudeImportance',
    taylor='GroupTaylorImportance',
    random='RandomImportance')
#: Tries of the ratio; the last ones change no channel any more.
TRIES = 20
#: From this share of the budget on a ratio is near enough.
ENOUGH = .995


@METHODS.register('torch_pruning')
def torch_pruning(job: Job) -> Found:
    """The largest network within the budget that a pruning ratio gives.

    Options: ``importance`` ('magnitude', 'taylor' or 'random'), ``scope``
    ('local': the same ratio in every group of layers, 'global': one threshold
    for all), ``batches`` for the gradients of 'taylor', and others of its
    ``BasePruner``, e.g. ``max_pruning_ratio``.

    Raises:
        ExperimentError: The package is missing, or no ratio is small enough.
    """
    options = dict(job.row.options)
    importance = options.pop('importance', 'magnitude')
    scope, number = options.pop('scope', 'local'), options.pop('batches', 10)
    one_of(f'importance of row "{job.row.name}"', importance,
           list(IMPORTANCES))
    one_of(f'scope of row "{job.row.name}"', scope, ['local', 'global'])
    package, supernet, clock = _package(), job.supernet(), Clock()
    scored = importance == 'taylor'
    with clock:
        if scored:
            for batch in job.batches(number):
                task_loss(supernet, batch).backward()

        def pruned(ratio: float, other: float = 0., some: Sequence[int] = ()):
            torch.manual_seed(job.seed)  # the same draw for every ratio
            network = _copy(supernet)
            package.pruner.BasePruner(
                network,
                job.images.example,
                getattr(package.importance, IMPORTANCES[importance])(),
                global_pruning=scope == 'global',
                pruning_ratio=ratio,
                pruning_ratio_dict={
                    _layers(network)[layer]: other
                    for layer in some
                },
                ignored_layers=_outputs(network, job.images.classes),
                **options).step()
            return network

        network = _largest(pruned, job, scope == 'local'
                           and len(_layers(supernet)))
    network.zero_grad(set_to_none=True)
    return Found(
        network,
        clock=clock,
        images=number * job.recipe.batch if scored else 0)


def _package() -> Any:
    try:
        import torch_pruning
    except ImportError:
        raise ExperimentError(
            'method "torch_pruning" needs the package torch-pruning: install '
            'it with "pip install torch-pruning", or leave these rows out '
            'with --rows') from None
    return torch_pruning


def _largest(pruned: Callable, job: Job, layers: int = 0) -> nn.Module:
    """Bisect the ratio; its steps are whole channels, so some are skipped.

    Where layers have ratios of their own, those for which the budget has room
    are then given the next smaller ratio, like a narrowing by hand that
    rounds some of its layers up.

    Args:
        pruned (callable): ``pruned(ratio, other, some)``: pruned by
            ``ratio``, some of the layers, by number, by ``other``.
        job (Job): Has the budget.
        layers (int): How many have a ratio of their own.
    """

    def spent(network: nn.Module) -> int:
        return cost(network, job.images.example, job.experiment.metric)

    low, high = 0., 1.
    best: Optional[nn.Module] = None
    for _ in range(TRIES):
        ratio = (low + high) / 2
        network = pruned(ratio)
        if spent(network) > job.amount:
            low = ratio
            continue
        high = ratio
        if best is None or spent(network) > spent(best):
            best = network
        if spent(network) >= ENOUGH * job.amount:
            return network
    if best is None:
        raise ExperimentError(f'{job.what} no pruning ratio of torch-pruning '
                              f'reaches {job.amount:,.0f}: raise the budget')
    some: List[int] = []
    for layer in range(layers):
        network = pruned(high, low, [*some, layer])
        if spent(best) < spent(network) <= job.amount:
            best = network
            some.append(layer)
    return best


def _layers(network: nn.Module) -> List[nn.Module]:
    """Layers that may have a ratio of their own."""
    return [
        module for module in network.modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    ]


def _copy(network: nn.Module) -> nn.Module:
    """A copy with its gradients, which copying leaves out."""
    copied = copy.deepcopy(network)
    for new, old in zip(copied.parameters(), network.parameters()):
        new.grad = None if old.grad is None else old.grad.clone()
    return copied


def _outputs(network: nn.Module, classes: int) -> list:
    """Layers that give the logits."""
    return [
        module for module in network.modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
