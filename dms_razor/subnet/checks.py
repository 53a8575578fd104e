# Copyright (c) dms_razor contributors. All rights reserved.
"""What a space says a network costs, against what is counted on it.

The search reckons with a closed form, per sample (section 3 of the paper,
eq. 8); the network itself is counted by a library that knows nothing of it.
"""
from collections import Counter
from typing import Dict, Mapping, Optional

import torch
from torch import Tensor, nn

from ..core.resource import METRICS
from ..counting import Count
from ..errors import SubnetError, listed
from ..space import Space


def check_counts(model: nn.Module,
                 space: Space,
                 selection: Optional[Tensor] = None,
                 counts: Optional[Mapping[str, Count]] = None) -> None:
    """Refuse a network whose costs are not what the closed form says.

    Args:
        model (nn.Module): The network that ``selection`` describes, without
            masks.
        space (Space): The space.
        selection (Tensor, optional): Bool of shape [E]; all by default.
        counts (Mapping[str, Count], optional): The costs of ``model`` by
            metric, counted on as many samples as the space was traced with;
            by default what was counted when it was traced.

    Raises:
        SubnetError: A cost differs; the layers are named.
    """
    if selection is None:
        selection = torch.ones(space.layout.E).bool()
    for metric, count in (counts or space.counted).items():
        samples = space.batch_size if METRICS[metric].per_sample else 1
        searched = space.cost(selection, metric) * samples
        if searched == count.total:
            continue
        expected = Counter(costs_by_name(space, selection, metric, samples))
        found = Counter(count.by_module)
        names = [
            f'{name or "(itself)"} has {found[name]:,} and should have '
            f'{expected[name]:,}' for name in {
                **expected,
                **found
            } if found[name] != expected[name]
        ]
        raise SubnetError(
            f'{count.tool} counts {count.total:,} {metric}, but the search '
            f'reckons with {searched:,}: {listed(names)}. The budget would '
            'not hold, so nothing is done: let the forward run these layers '
            'by ordinary operations of PyTorch, and report the network.')


def costs_by_name(space: Space,
                  selection: Tensor,
                  metric: str,
                  samples: int = 1) -> Dict[str, int]:
    """Compute what each layer of a subnet costs by the closed form.

    Args:
        space (Space): The space.
        selection (Tensor): Bool of shape [E].
        metric (str): A name of :data:`dms_razor.core.METRICS`.
        samples (int): Samples of the batch. Defaults to 1.

    Returns:
        dict[str, int]: By the name of the cost (a layer or a parameter).
    """
    costs: Counter = Counter()
    if METRICS[metric].costs is not None:
        for cost, value in zip(
                space.resource.costs_of(metric),
                space.resource.per_cost(
                    space.counts(selection), selection.double(), metric)):
            costs[cost.name] += round(float(value) * samples)
    return dict(costs)


def check_finite(network: nn.Module) -> None:
    """Refuse weights and running statistics that are NaN or infinite.

    Other buffers may hold such numbers on purpose (a mask of attention).

    Raises:
        SubnetError: Some are; they are named.
    """
    named = [
        *network.named_parameters(),
        *((name, buffer) for name, buffer in network.named_buffers()
          if name.rpartition('.')[2] in ('running_mean', 'running_var'))
    ]
    wrong = [
        name for name, tensor in named
        if tensor.device.type != 'meta' and not torch.isfinite(tensor).all()
    ]
    if wrong:
        raise SubnetError(
            f'{listed(wrong)} hold numbers that are NaN or infinite: '
            'the training has diverged. Load a checkpoint from before that, '
            'lower the learning rate or clip the gradients, and search on; '
            'nothing was written')
