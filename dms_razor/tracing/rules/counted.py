# Copyright (c) dms_razor contributors. All rights reserved.
"""Products in a form that is not followed: they count, their channels stay."""
from typing import List

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..record import NotUnderstood
from . import register_rule
from .contraction import count

#: Not every version of PyTorch counts the CPU's fused attention.
FUSED = '_scaled_dot_product_flash_attention_for_cpu'


def _attention_flops(q, k, v, *args, out_shape=None, **kwargs) -> int:
    pairs = k[-2]
    for size in q[:-1]:
        pairs *= size
    return 2 * pairs * (q[-1] + v[-1])


@register_rule('einsum', 'tensordot', 'inner', 'addmm', 'multi_dot',
               'chain_matmul', 'multi_head_attention_forward')
def counted(recorder, call) -> List[Tensor]:
    """Runs the operation again, under PyTorch's own counter (2 per MAC)."""
    fused = getattr(torch.ops.aten, FUSED, None)
    extra = {} if fused is None else {fused: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=extra) as counter:
        call.func(*call.args, **call.kwargs)
    count(recorder, call, counter.get_total_flops() // 2)
    raise NotUnderstood(f'{recorder.where} uses {call.op}, for which it is '
                        'not known how channels pass through it')
