# Copyright (c) dms_razor contributors. All rights reserved.
"""Slices, splits, and writes into slices: pieces are vectors of their own.

A slice is described by numbers, and the numbers of a network do not change
when channels go. Pieces that lie side by side and are equally long can be
kept equal (``x[:, :n]`` with ``n = x.shape[1] // 2``); other numbers are told
from one another by the self-check alone. Channels that are picked one by one
have to stay.
"""
from typing import Any, Callable, List, Optional

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..labels import compress, core, varies_along, vector_along
from .movement import moved
from .table import register_rule

SPLIT = ('split chunk split_with_sizes tensor_split unsafe_split '
         'unsafe_chunk').split()
SLICE = 'getitem narrow select index_select unbind'.split()


@register_rule(*SLICE)
def cut(recorder, call) -> List[Tensor]:
    """Slices of an activation; entries of a parameter are just picked."""
    x = call.tensors[0]
    outs = moved(recorder, call)
    if recorder.value(x) is not None:
        labels = recorder.labels_of(x)
        recorder.fix(call.tensors[1:],
                     f'{recorder.where} takes them as indices')
        _note_piece(recorder, call, labels,
                    lambda places: moved(recorder, call, places)[0])
    return outs


@register_rule(*SPLIT)
def split(recorder, call) -> List[Tensor]:
    """Split and chunk; pieces of channels are noted."""
    outs = moved(recorder, call)
    dim = call.argument(2, 'dim', 0)
    labels = recorder.labels_of(call.tensors[0])
    if varies_along(labels, [dim]):
        pieces = [vector_along(piece, dim) for piece in outs]
        if any(piece is None for piece in pieces):
            # Dims of heads that go with them are split as before.
            recorder.variables.hold(
                labels, f'{recorder.where} splits a tensor whose channels lie '
                'in several dimensions')
        elif isinstance(_sizes(call), int) and len(set(map(len, pieces))) > 1:
            recorder.variables.fix(
                labels, f'{recorder.where} splits them into pieces of which '
                'the last is smaller')
        else:
            recorder.facts.split(recorder.path, pieces,
                                 f'{recorder.where} splits them')
    return outs


def _sizes(call) -> Any:
    """Size or number of the pieces, or a list of sizes."""
    names = ('split_size_or_sections', 'split_size', 'chunks', 'sections',
             'indices', 'tensor_indices_or_sections', 'split_sizes')
    given = [call.kwargs[name] for name in names if name in call.kwargs]
    return given[0] if given else call.argument(1, 'indices_or_sections')


@register_rule('setitem')
def write(recorder, call) -> List[Optional[Tensor]]:
    """``x[index] = value``: what is written has the channels of its place."""
    target, index, value = call.args
    recorder.fix(
        [t for t in call.tensors if t is not target and t is not value],
        f'{recorder.where} takes them as indices')
    index = tree_map(lambda p: p.cpu() if isinstance(p, Tensor) else p, index)
    old = recorder.labels_of(target)
    if old is not None:
        _note_piece(recorder, call, old, lambda places: places[index])
    if not isinstance(value, Tensor) or recorder.labels_of(value) is None:
        return [old]
    old = recorder.core_of(target).expand(target.shape)
    there = old[index]
    here = recorder.core_of(value).expand(there.shape)
    recorder.variables.tie(
        there, here, f'{recorder.where} writes them into a part of a tensor '
        'of fixed width')
    labels = old.clone(memory_format=torch.contiguous_format)
    labels[index] = torch.where(here > 0, here, there)
    return [labels]


def _note_piece(recorder, call, labels: Tensor, cut_out: Callable) -> None:
    """Note which places of a vector of channels a slice takes.

    ``cut_out`` gives the slice of a tensor that holds, at every entry, its
    place in the one dimension that holds channels.
    """
    small = core(compress(labels))
    if not 1 < small.numel() == max(small.shape):
        return
    vector = small.reshape(-1)
    places = torch.arange(len(vector)).view(small.shape).expand(labels.shape)
    found = core(compress(cut_out(places)))
    count, places = found.numel(), found.reshape(-1)
    if count == len(vector) and torch.equal(places, torch.arange(count)):
        return
    steps = set(places.diff().tolist())
    step = steps.pop() if len(steps) == 1 else 0
    if count < 2 or count > max(
            found.shape) or step < 1 or len(vector) % step or _is_numbered(
                call):
        recorder.variables.fix(
            vector, f'{recorder.where} picks some of them by number')
    elif step > 1:
        # Every second channel: neighbours go together.
        rows = vector.view(-1, step)
        recorder.variables.merge(rows[:, :1].expand_as(rows), rows)
    else:
        recorder.facts.cut(recorder.path, vector, vector[places],
                           f'{recorder.where} cuts them apart')


def _is_numbered(call) -> bool:
    """Whether an index names entries one by one, not as a range."""
    if call.op not in ('getitem', 'setitem'):
        return call.op == 'index_select'
    index = call.args[1]
    parts = index if isinstance(index, tuple) else (index, )
    ranges = (slice, int, type(None), type(...))
    return not all(isinstance(part, ranges) for part in parts)
