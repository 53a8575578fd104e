# Copyright (c) dms_razor contributors. All rights reserved.
"""What the resource alone would do, without a single image.

:func:`descend` walks from the supernet down the gradient of its cost. The
structure at which it arrives is what a search finds in which the task has no
say, and the yardstick for every other.
"""
import copy
import math
from typing import Callable, NamedTuple, Optional, Union

import torch
from torch import Tensor

from .layout import Layout
from .resource import ResourceModel
from .selectors import Selector, make_selector
from .topk import initial_order, ranks_from_order

UNREACHED = 1_000_000  # more steps than any search has: "not in sight"
STRIDE = 0.01  # largest change in one leap, of a number's span


class Descent(NamedTuple):
    """Where the gradient of the resource alone leads.

    Attributes:
        steps (int, optional): Updates that it took. None if the numbers came
            to rest before the target or it is not in sight.
        ratios (Tensor): Pruning ratios at the end, float64 ``[U]``.
    """
    steps: Optional[int]
    ratios: Tensor


def descend(layout: Layout,
            resource: ResourceModel,
            metric: str,
            target: float,
            *,
            speed: float = 1.,
            selector: Union[str, Callable, Selector] = 'dms') -> Descent:
    """Follow ``a ← a − speed·∂log(r_c)/∂a`` from a = 0 to the target.

    METHOD: sections 3 and 4, eq. 7, without the gradient of the task. Many
    updates are taken in one leap while no ratio moves by more than 0.01, and
    no other number by more than that share of its span, so a slow speed costs
    no more than a fast one.

    Args:
        layout (Layout): The units.
        resource (ResourceModel): Costs of the network.
        metric (str): What the target limits.
        target (float): In units of the metric.
        speed (float): lr·λ_res. Defaults to 1.
        selector (str | Callable | Selector): What is learnt.
    """
    selector = copy.deepcopy(make_selector(selector, layout, 0))
    low, high = selector.low, selector.high
    ranks = ranks_from_order(initial_order(layout), layout)
    numbers = selector.numbers.clamp(low, high)
    steps, before, leap, goal = 0., math.inf, 0., math.log(target)
    while steps < UNREACHED:
        numbers.requires_grad_(True)
        with torch.enable_grad():
            cost = resource(
                selector.counts(numbers),
                selector.expected(numbers, ranks,
                                  selector.soft(numbers, ranks)),
                metric).log()
            slope, = torch.autograd.grad(cost, numbers)
        now, numbers = float(cost.detach()), numbers.detach()
        if now <= goal:
            share = 1. if not leap else (before - goal) / (before - now)
            return Descent(
                math.ceil(steps - leap * (1 - share)),
                selector.ratios_of(numbers))
        move = -speed * slope
        blocked = ((move > 0) & (numbers >= high)) | ((move < 0) &
                                                      (numbers <= low))
        fastest = float(move.masked_fill(blocked, 0.).abs().max())
        if fastest == 0.:
            break
        before, leap = now, max(1.,
                                math.floor(STRIDE * selector.span / fastest))
        numbers = (numbers + leap * move).clamp(low, high)
        steps += leap
    return Descent(None, selector.ratios_of(numbers.detach()))
