# Copyright (c) dms_razor contributors. All rights reserved.
"""How many steps a target needs, worked out without training."""
import math
from typing import Optional

import torch

from .core.topk import (initial_order, ranks_from_order, ratio_bounds,
                        soft_masks)

UNREACHED = 1_000_000  # more steps than any search has: "not in sight"
STRIDE = 0.01  # largest change of a ratio in one leap


def steps_to_target(space,
                    target: float,
                    metric: str = 'macs',
                    lr: float = 5e-3,
                    loss_weight: float = 1.) -> Optional[int]:
    """About how many ratio updates lead from the supernet to the target.

    Follows a ← a − lr·λ_res·∂log(r_c)/∂a (METHOD: sections 3 and 4, eq. 7)
    from a = 0 without the task's gradient, which mostly holds against it but
    can also help: an untrained network may need half as many. Many updates
    are taken in one leap while no ratio moves by more than 0.01, so a slow lr
    costs no more than a fast one.

    Returns:
        int | None: The steps; None if the ratios come to rest before the
        target or it is not in sight after a million of them.
    """
    layout, resource = space.layout, space.resource
    low, high = ratio_bounds(layout)
    ranks = ranks_from_order(initial_order(layout), layout)
    ratios = low.clone()
    steps, before = 0., math.inf
    leap = 0.
    goal = math.log(target)
    while steps < UNREACHED:
        ratios.requires_grad_(True)
        with torch.enable_grad():
            counts = (1 - ratios) * layout.size
            masks = soft_masks(ratios, ranks, layout)
            cost = resource(counts, masks, metric).log()
            slope, = torch.autograd.grad(cost, ratios)
        now, ratios = float(cost.detach()), ratios.detach()
        if now <= goal:
            share = 1. if not leap else (before - goal) / (before - now)
            return math.ceil(steps - leap * (1 - share))
        speed = -lr * loss_weight * slope
        blocked = ((speed > 0) & (ratios >= high)) | ((speed < 0) &
                                                      (ratios <= low))
        fastest = float(speed.masked_fill(blocked, 0.).abs().max())
        if fastest == 0.:
            return None
        before, leap = now, max(1., math.floor(STRIDE / fastest))
        ratios = (ratios + leap * speed).clamp(low, high)
        steps += leap
    return None
