# Copyright (c) dms_razor contributors. All rights reserved.
"""Normalisation: batch and instance norm keep channels apart, others mix."""
from typing import List

from torch import Tensor

from ..labels import varies_along
from ..recorder import NotUnderstood
from . import register_rule
from .contraction import channel_vector


@register_rule('batch_norm', 'instance_norm', 'sync_batch_norm')
def batch_norm(recorder, call) -> List[Tensor]:
    """Statistics and affine parameters belong to one channel each."""
    x = call.argument(0, 'input')
    vector = channel_vector(recorder, x, 1)
    names = ('running_mean', 'running_var', 'weight', 'bias')
    for position, name in enumerate(names, start=1):
        tensor = call.argument(position, name)
        if isinstance(tensor, Tensor):
            full_name = recorder.name_of(tensor)
            if full_name is None:
                raise NotUnderstood(
                    f'{recorder.where} normalises with a computed {name}')
            recorder.facts.axis(full_name, 0, vector)
    return [recorder.labels_of(x)]


@register_rule('layer_norm', 'rms_norm', 'group_norm')
def mixing_norm(recorder, call) -> List[Tensor]:
    """Layer, RMS and group norm take statistics over channels.

    Their masked forms are not built yet, so the channels stay.
    """
    labels = recorder.labels_of(call.argument(0, 'input'))
    if call.op == 'group_norm':
        dims = [1]
    else:
        dims = list(range(-len(call.argument(1, 'normalized_shape')), 0))
    if varies_along(labels, [d % labels.dim() for d in dims]):
        raise NotUnderstood(f'{recorder.where} takes its statistics over '
                            f'channels ({call.op})')
    return [labels]
