# Copyright (c) dms_razor contributors. All rights reserved.
"""Operations that only move data: their labels move in the same way."""
from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ..facts import Partition
from ..labels import compress, core, expand_vector, varies_along, vector_along
from ..record import NotUnderstood
from .table import register_rule

SAME = ('contiguous clone detach to type type_as float half double bfloat16 '
        'cpu cuda data alias requires_grad positive').split()
RESHAPE = 'view reshape view_as reshape_as flatten unflatten'.split()
MOVE = ('permute transpose t T mT movedim squeeze unsqueeze repeat tile '
        'repeat_interleave flip pixel_shuffle pixel_unshuffle '
        'native_channel_shuffle channel_shuffle tril triu diagonal '
        'atleast_1d rot90').split()
EXPAND = 'expand expand_as broadcast_to'.split()
JOIN = 'cat stack hstack vstack'.split()


@register_rule(*SAME)
def same(recorder, call) -> List[Tensor]:
    """Copies and casts keep every label."""
    return [recorder.labels_of(call.tensors[0])]


def moved(recorder, call, labels: Optional[Tensor] = None) -> List[Tensor]:
    """Apply the function itself to the labels of its (first) argument.

    Args:
        labels (Tensor, optional): What to move instead of the labels. For
            ``cat`` and ``stack``, which take several tensors, it is not used.
    """
    data = call.tensors if call.op in JOIN else call.tensors[:1]
    replace = {}
    for tensor in data:
        found = recorder.labels_of(tensor) if labels is None else labels
        if found is None:
            found = torch.zeros((), dtype=torch.long).expand(tensor.shape)
        replace[id(tensor)] = found

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
    """Permutations, repetition."""
    outs = moved(recorder, call)
    if 'channel_shuffle' in call.op:
        vector = vector_along(recorder.labels_of(call.tensors[0]), 1)
        split = vector.view(call.argument(1, 'groups'), -1)
        note_reshape(recorder, vector, split)
        note_reshape(recorder, split.t(), outs[0])
    return outs


@register_rule(*RESHAPE)
def reshape(recorder, call) -> List[Tensor]:
    """Views: what is split up or flattened must stay rectangular."""
    outs = moved(recorder, call)
    if recorder.value(call.tensors[0]) is not None:
        note_reshape(recorder, recorder.labels_of(call.tensors[0]), outs[0])
    return outs


@register_rule(*EXPAND)
def expand(recorder, call) -> List[Tensor]:
    """Expansion to the shape of something larger."""
    outs, x = moved(recorder, call), call.tensors[0]
    own = recorder.own_shape(x)
    own = (1, ) * (outs[0].dim() - len(own)) + own
    recorder.expanded(call.outs[0], own)
    return outs


@register_rule('roll')
def roll(recorder, call) -> List[Tensor]:
    """Positions may go round; channels would not keep their order."""
    labels, dims = recorder.labels_of(call.tensors[0]), call.argument(
        2, 'dims')
    if dims is None or dims == ():
        dims = list(range(labels.dim()))
    if varies_along(labels, [dims] if isinstance(dims, int) else dims):
        raise NotUnderstood(f'{recorder.where} rolls its channels')
    return [labels]


@register_rule('gather', 'take_along_dim')
def gather(recorder, call) -> List[Tensor]:
    """Picks positions by computed numbers, but no channels."""
    labels = recorder.labels_of(call.tensors[0])
    position = 1 if call.op == 'gather' else 2
    dim = call.argument(position, 'dim')
    if dim is None or varies_along(labels, [dim]):
        raise NotUnderstood(f'{recorder.where} picks channels by number '
                            f'({call.op})')
    recorder.fix(call.tensors[1:], f'{recorder.where} takes them as indices')
    return moved(recorder, call)


@register_rule(*JOIN)
def join(recorder, call) -> List[Tensor]:
    """Concatenation: channels stay apart from one another.

    Joined along positions (a class token and patches) they are the same.
    """
    if call.op == 'cat':
        labels = _joined_positions(recorder, call)
        if labels is not None:
            return [labels.expand(call.outs[0].shape)]
    outs = moved(recorder, call)
    if call.op == 'stack':
        note_stack(recorder, call, outs[0])
    return outs


def _joined_positions(recorder, call) -> Optional[Tensor]:
    """Labels if the tensors are joined along positions, else None."""
    dim = call.argument(1, 'dim', 0)
    found = [recorder.core_of(tensor) for tensor in call.tensors]
    most = max(found, key=Tensor.numel)
    if most.numel() == 1 or any(
            labels.dim() != most.dim() or labels.shape[dim] > 1
            for labels in found):
        return None
    for labels in found:
        recorder.variables.tie(
            most, labels, f'{recorder.where} joins them with constants of '
            'fixed width')
    return most


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
            if min(before, after) < 0 or call.argument(
                    2, 'mode', 'constant') != 'constant':
                raise NotUnderstood(f'{recorder.where} crops or mirrors its '
                                    'channels by padding')
            variable = recorder.variables.new_fixed(
                f'{recorder.where} pads its channels to a fixed width')
            widths_dim = [0, 0] * (labels.dim() - 1 - dim) + [before, after]
            labels = F.pad(labels, widths_dim, value=int(variable))
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


# What it means for channels that a dimension is split up or flattened.
#
# ``[B, C]`` viewed as ``[B, g, c]`` holds g parts of the channels. A pruned
# tensor is rectangular too, so all parts keep the same number. Flattened in
# the same order the parts follow one another as before. Flattened in another
# order (a channel shuffle) the channels of one row must in addition be the
# same in all parts, or the order would depend on what is kept.


def _varying(labels: Tensor) -> Tensor:
    """Labels without the dimensions they do not vary in."""
    labels = core(compress(labels))
    return labels.reshape([size for size in labels.shape if size > 1])


def note_reshape(recorder, before: Tensor, after: Tensor) -> None:
    """Note what a view, reshape or flatten asks of the channels.

    Args:
        recorder (Recorder): The recorder.
        before (Tensor): Labels of the input.
        after (Tensor): Labels of the output.
    """
    before, after = _varying(before), _varying(after)
    if before.dim() == 1 and after.dim() > 1:
        if before.numel() == after.numel():
            _note_parts(recorder, after, f'{recorder.where} splits them up')
    elif before.dim() > 1 and after.dim() == 1:
        if before.numel() == after.numel():
            _tie_rows(recorder, before)


def note_stack(recorder, call, after: Tensor) -> None:
    """Stacked vectors of channels are parts that stay equally wide."""
    labels = _varying(after)
    if labels.dim() == 2 and labels.shape[0] == len(call.tensors):
        _note_parts(recorder, labels, f'{recorder.where} stacks them')


def _note_parts(recorder, parts: Tensor, why: str) -> None:
    """Parts along all dimensions but the last keep equal counts."""
    facts = recorder.facts
    for level in range(1, parts.dim()):
        rows = parts.reshape(parts.shape[:level].numel(), -1)
        facts.partitions.append(Partition(rows, recorder.path, why))
        facts.parts.update(row.numpy().tobytes() for row in rows)


def _tie_rows(recorder, labels: Tensor) -> None:
    """Rows that are no parts are kept or dropped as a whole."""
    for level in range(labels.dim() - 1, 0, -1):
        rows = labels.reshape(labels.shape[:level].numel(), -1)
        known = recorder.facts.parts
        if any(row.numpy().tobytes() not in known for row in rows):
            first = rows[:, :1].expand_as(rows)
            recorder.variables.merge(first, rows)
