# Copyright (c) dms_razor contributors. All rights reserved.
"""What a space says a network costs, against what is counted on it.

The search reckons with a closed form, per sample (section 3 of the paper,
eq. 8); the network itself is counted by a library that knows nothing of it.
"""
from collections import Counter
from typing import Dict, Optional

import torch
from torch import Tensor, nn

from ..counting import Count
from ..errors import SubnetError, listed
from ..space import Space, closed_form, hard_counts


def check_counts(model: nn.Module,
                 space: Space,
                 keep: Optional[Tensor] = None,
                 count: Optional[Count] = None) -> None:
    """Refuse a network whose costs are not what the closed form says.

    Args:
        model (nn.Module): The network that ``keep`` describes, without masks.
        space (Space): The space.
        keep (Tensor, optional): Bool of shape [E]; all of it by default.
        count (Count, optional): The MACs of ``model``, counted on as many
            samples as the space was traced with; by default what was counted
            when it was traced.

    Raises:
        SubnetError: MACs or parameters differ; the layers are named.
    """
    keep = torch.ones(space.layout.E).bool() if keep is None else keep
    count = count or space.counted
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


def costs_by_name(space: Space,
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
