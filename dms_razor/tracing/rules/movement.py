# Copyright (c) dms_razor contributors. All rights reserved.
"""Operations that only move data: their labels move in the same way."""
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ..labels import compress, core, expand_vector, varies_along, vector_along
from ..recorder import NotUnderstood
from . import register_rule

SAME = ('contiguous clone detach to type type_as float half double bfloat16 '
        'cpu cuda data alias requires_grad positive').split()
MOVE = ('view reshape view_as reshape_as permute transpose t T mT movedim '
        'flatten unflatten squeeze unsqueeze expand expand_as broadcast_to '
        'repeat tile repeat_interleave roll flip select narrow index_select '
        'getitem unbind pixel_shuffle pixel_unshuffle channel_shuffle '
        'native_channel_shuffle rot90 tril triu diagonal masked_select '
        'gather take_along_dim atleast_1d unsafe_chunk').split()
JOIN = 'cat stack hstack vstack'.split()
SPLIT = 'split chunk split_with_sizes tensor_split unsafe_split'.split()


@register_rule(*SAME)
def same(recorder, call) -> List[Tensor]:
    """Copies and casts keep every label."""
    return [recorder.labels_of(call.tensors[0])]


def _moved(recorder, call, everywhere: bool) -> List[Tensor]:
    """Apply the function itself to the labels.

    Args:
        everywhere (bool): Every tensor argument holds data (``cat``); else
            only the first one does, the others are indices or shapes.
    """
    data = call.tensors if everywhere else call.tensors[:1]
    replace = {}
    for tensor in data:
        labels = recorder.labels_of(tensor)
        if labels is None:
            labels = torch.zeros((), dtype=torch.long).expand(tensor.shape)
        replace[id(tensor)] = labels

    def swap(leaf):
        if isinstance(leaf, Tensor):
            return replace.get(id(leaf), leaf.cpu())
        return leaf

    args, kwargs = tree_map(swap, (call.args, call.kwargs))
    func = call.func
    if call.op in ('view', 'view_as'):  # labels may not be contiguous
        func = torch.reshape if call.op == 'view' else Tensor.reshape_as
        if call.op == 'view':
            shape = args[1:] or (kwargs['size'], )
            if isinstance(shape[0], torch.dtype):
                raise NotUnderstood(f'{recorder.where} reinterprets the bits '
                                    'of its channels (view(dtype))')
            shape = shape[0] if not isinstance(shape[0], int) else shape
            args, kwargs = (args[0], tuple(shape)), {}
    out = func(*args, **kwargs)
    return [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]


@register_rule(*MOVE)
def move(recorder, call) -> List[Tensor]:
    """Views, permutations, indexing, repetition."""
    outs = _moved(recorder, call, everywhere=False)
    if call.op in ('getitem', 'narrow', 'select', 'index_select'):
        _note_slice(recorder, call, outs[0])
    return outs


def _note_slice(recorder, call, out: Tensor) -> None:
    """``x[:, :n]`` cuts channels: the piece is a vector of its own."""
    if recorder.value(call.tensors[0]) is None:
        return  # a parameter: its entries are no vector of channels
    before = core(compress(recorder.labels_of(call.tensors[0])))
    after = core(compress(out))
    if before.numel() == max(before.shape) and 0 < after.numel() == max(
            after.shape, default=1) < before.numel():
        recorder.facts.cut(recorder.path, before.reshape(-1),
                           after.reshape(-1),
                           f'{recorder.where} cuts them apart')


@register_rule(*JOIN)
def join(recorder, call) -> List[Tensor]:
    """Concatenation: channels stay apart from one another."""
    return _moved(recorder, call, everywhere=True)


@register_rule(*SPLIT)
def split(recorder, call) -> List[Tensor]:
    """Split and chunk; pieces of channels are noted."""
    outs = _moved(recorder, call, everywhere=False)
    dim = call.argument(2, 'dim', 0)
    labels = recorder.labels_of(call.tensors[0])
    if varies_along(labels, [dim]):
        pieces = [vector_along(piece, dim) for piece in outs]
        if any(piece is None for piece in pieces):
            recorder.variables.fix(
                labels, f'{recorder.where} splits a tensor whose channels lie '
                'in several dimensions')
        else:
            recorder.facts.split(recorder.path, pieces,
                                 f'{recorder.where} splits them')
    return outs


@register_rule('pad', 'constant_pad_nd')
def pad(recorder, call) -> List[Tensor]:
    """Padding: positions take their channel's label; added channels stay."""
    x, widths = call.tensors[0], call.argument(1, 'pad')
    labels = core(compress(recorder.labels_of(x)))
    shape = call.outs[0].shape
    for i in range(len(widths) // 2):
        dim = x.dim() - 1 - i
        before, after = widths[2 * i], widths[2 * i + 1]
        if labels.shape[dim] > 1 and (before or after):
            if min(before, after) < 0:
                raise NotUnderstood(f'{recorder.where} crops its channels '
                                    'with a negative padding')
            variable = recorder.variables.new_fixed(
                f'{recorder.where} pads its channels to a fixed width')
            widths_dim = [0, 0] * (labels.dim() - 1 - dim) + [before, after]
            labels = F.pad(labels, widths_dim, value=variable)
    return [labels.expand(shape)]


@register_rule('unfold')
def unfold(recorder, call) -> List[Tensor]:
    """im2col: ``[B, C, H, W]`` -> ``[B, C * k * k, L]``, channel-major."""
    x, out = call.tensors[0], call.outs[0]
    if call.func is not F.unfold:
        return move(recorder, call)
    vector = vector_along(recorder.labels_of(x), 1)
    if vector is None:
        raise NotUnderstood(f'{recorder.where} unfolds a tensor whose '
                            'channels vary over positions')
    times = out.shape[-2] // len(vector)
    return [
        expand_vector(
            vector.repeat_interleave(times),
            out.dim() - 2, out.shape)
    ]
