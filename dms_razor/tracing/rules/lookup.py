# Copyright (c) dms_razor contributors. All rights reserved.
"""Rows looked up in a table: embeddings."""
from typing import List

from torch import Tensor

from ..labels import expand_vector
from ..record import NotUnderstood
from . import register_rule
from .contraction import owned_weight


@register_rule('embedding')
def embedding(recorder, call) -> List[Tensor]:
    """The features of a row are channels that the table makes."""
    weight, out = call.argument(1, 'weight'), call.outs[0]
    name = owned_weight(recorder, weight)
    if name is None:
        raise NotUnderstood(f'{recorder.where} looks up rows in a table that '
                            'is computed or belongs to another module')
    if call.argument(3, 'max_norm') is not None:
        raise NotUnderstood(f'{recorder.where} rescales its rows (max_norm)')
    recorder.fix([call.argument(0, 'input')],
                 f'{recorder.where} takes them as indices')
    labels = recorder.facts.outputs(
        name, recorder.path, weight.shape[1], axis=1)
    recorder.facts.axis(name, 1, labels)
    return [expand_vector(labels, out.dim() - 1, out.shape)]
