# Copyright (c) dms_razor contributors. All rights reserved.
"""The rule of operations that have none."""
from typing import List

from torch import Tensor
from torch.utils._pytree import tree_map

from ...counting import every_product
from ..record import NotUnderstood


def counted(call) -> int:
    """MACs of an operation of the whole batch, by PyTorch's counter.

    The operation runs again, on copies of what it writes into.
    """
    args, kwargs = tree_map(
        lambda leaf: leaf.clone()
        if any(leaf is t for t in call.changed) else leaf,
        (call.args, call.kwargs))
    with every_product() as counter:
        call.func(*args, **kwargs)
    return counter.get_total_flops() // 2


def not_known(recorder, call) -> List[Tensor]:
    """The rule of all other operations: they count, their channels stay.

    In a second recording they need not be counted.
    """
    reason = (f'{recorder.where} uses {call.op}, for which it is not known '
              'how channels pass through it')
    macs = counted(call) if recorder.first is None else 0
    if macs:
        recorder.count(call, macs)
    raise NotUnderstood(reason)
