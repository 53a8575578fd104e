# Copyright (c) dms_razor contributors. All rights reserved.
"""The even cut: what every width keeps when all are narrowed alike."""
from typing import Mapping, Optional

import torch

from ..space import Space

STEPS = 40


def even_share(space: Space, limits: Mapping[str, float]) -> Optional[float]:
    """Share of every width that stays if all blocks do and widths are even.

    Not rounded to whole channels; where a unit has a least or a most number,
    it keeps to that.

    Args:
        space (Space): The space of the network.
        limits (Mapping[str, float]): Metric -> its budget, in its units.

    Returns:
        float | None: The share; None where no width can change, or blocks
        have to go for the budget.
    """
    layout, device = space.layout, space.layout.size.device
    depth = torch.tensor([unit.kind == 'depth' for unit in layout.units])
    fixed = depth.to(device) | (layout.least == layout.most)
    if fixed.all():
        return None
    masks = torch.ones(layout.E, dtype=torch.float64, device=device)

    def fits(share: float) -> bool:
        counts = (share * layout.size.double()).clamp(layout.least,
                                                      layout.most)
        counts = torch.where(fixed, layout.most.double(), counts)
        return all(
            float(space.resource(counts, masks, metric)) <= limit
            for metric, limit in limits.items())

    if fits(1.):
        return 1.
    if not fits(0.):
        return None
    low, high = 0., 1.
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
