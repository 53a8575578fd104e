# Copyright (c) dms_razor contributors. All rights reserved.
"""What rounding costs: one loss, soft and hard."""
from typing import Any, Callable, Tuple

from ..network import untouched


def soft_and_hard(search: Any, loss: Callable[[], Any]) -> Tuple[float, float]:
    """``loss()`` of the network that trains and of the one it is rounded to.

    From the target on that is the subnet. As in training, on the statistics
    of the batch; nothing is changed.

    Args:
        search (Search): The search.
        loss (callable): Runs the network and returns a scalar.
    """
    model = search.model
    flags, found = [(m, m.training) for m in model.modules()], []
    for mode in ('soft', 'subnet' if search.at_target else 'hard'):
        with untouched(model), search.masks(mode):
            for module, flag in flags:
                module.training = flag
            found.append(float(loss()))
    return found[0], found[1]
