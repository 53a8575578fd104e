# Copyright (c) dms_razor contributors. All rights reserved.
"""The only collective of a search."""
import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(vector: Tensor) -> Tensor:
    """Mean of ``vector`` over all ranks; itself outside distributed runs.

    The sum is the same, bit by bit, on every rank. In place of the argument.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return vector
    ranks = dist.get_world_size()
    if ranks > 1:
        dist.all_reduce(vector)
        vector /= ranks
    return vector
