# Copyright (c) dms_razor contributors. All rights reserved.
"""What a space says a network costs, against what is counted on it.

The search reckons with a closed form, per sample (section 3 of the paper,
eq. 8); a library that knows nothing of it counts the network itself.
"""
from collections import Counter
from typing import Callable, Dict, Optional

import torch
from torch import Tensor, nn

from ..counting import Count, count_macs
from ..errors import SubnetError, listed
from ..network import to_device_of, untouched
from ..space import closed_form, hard_counts


def check_supernet(model: nn.Module,
                   space,
                   forward: Optional[Callable] = None) -> None:
    """Refuse a network that no export could be made of, before its search.

    Args:
        model (nn.Module): The network that was traced, without masks.
        space (Space): Its space.
        forward (callable, optional): How the network is called.

    Raises:
        SubnetError: See :func:`check_counts`.
    """
    inputs = to_device_of(model, space.example_inputs)
    with untouched(model):
        count = count_macs(model, inputs, forward)
    keep = torch.ones(space.layout.E, dtype=torch.bool)
    check_counts(model, space, keep, count)


def check_counts(model: nn.Module, space, keep: Tensor, count: Count) -> None:
    """Refuse a network whose costs are not what the closed form says.

    Args:
        model (nn.Module): The network that ``keep`` describes.
        space (Space): The space.
        keep (Tensor): Bool of shape [E].
        count (Count): The MACs of ``model``, counted by a library on as many
            samples as the space was traced with.

    Raises:
        SubnetError: MACs or parameters differ; the layers are named.
    """
    params = {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
    }
    for metric, whole, by_name, samples in (('macs', count.macs,
                                             count.by_module,
                                             space.batch_size),
                                            ('params', sum(params.values()),
                                             params, 1)):
        searched = closed_form(space, keep, metric) * samples
        if searched == whole:
            continue
        expected = costs_by_name(space, keep, metric, samples)
        names = [
            f'{name or "(itself)"} has {by_name.get(name, 0):,} and should '
            f'have {expected.get(name, 0):,}'
            for name in dict.fromkeys([*expected, *by_name])
            if by_name.get(name, 0) != expected.get(name, 0)
        ]
        raise SubnetError(
            f'{count.tool if metric == "macs" else "The network"} counts '
            f'{whole:,} {metric}, but the search reckons with {searched:,}: '
            f'{listed(names)}. The budget would not hold, so nothing is done: '
            'let the forward run these layers by ordinary operations of '
            'PyTorch, and report the network.')


def costs_by_name(space,
                  keep: Tensor,
                  metric: str,
                  samples: int = 1) -> Dict[str, int]:
    """Compute what each layer of a subnet costs by the closed form.

    Args:
        space (Space): The space.
        keep (Tensor): Bool of shape [E].
        metric (str): ``'macs'`` or ``'params'``.
        samples (int): Samples of the batch. Defaults to 1.

    Returns:
        dict[str, int]: By the name of the cost (a layer or a parameter).
    """
    figures = space.resource.per_cost(
        hard_counts(space, keep), keep.double(), metric)
    costs: Counter = Counter()
    for cost, figure in zip(space.resource.costs_of(metric), figures):
        costs[cost.name] += round(float(figure) * samples)
    return dict(costs)
