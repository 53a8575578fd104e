# Copyright (c) dms_razor contributors. All rights reserved.
"""Operations that only move data: their labels move in the same way."""
from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

from ..facts import Partition
from ..labels import compress, core, expand_vector, varies_along, vector_along
from .table import register_rule

SAME = ('contiguous clone detach to type type_as float half double bfloat16 '
        'cpu cuda data alias requires_grad positive').split()
RESHAPE = 'view reshape view_as reshape_as flatten unflatten'.split()
MOVE = ('permute transpose t T mT H mH adjoint movedim squeeze unsqueeze '
        'repeat tile repeat_interleave flip pixel_shuffle pixel_unshuffle '
        'native_channel_shuffle channel_shuffle tril triu diagonal atleast_1d '
        'rot90').split()
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
    replace = {
        id(x):
        recorder.core_of(x).expand(x.shape) if labels is None else labels
        for x in data
    }
    args, kwargs = tree_map_only(
        Tensor, lambda x: replace[id(x)]
        if id(x) in replace else x.cpu(), (call.args, call.kwargs))
    # Labels may not be contiguous.
    func = dict(
        view=Tensor.reshape,
        view_as=Tensor.reshape_as).get(call.op, call.func)
    if call.op == 'view':
        shape = args[1:] or (kwargs['size'], )
        recorder.require(
            not isinstance(shape[0], torch.dtype),
            'reinterprets the bits of its channels (view(dtype))')
        args, kwargs = (args[0], *shape), {}
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
    recorder.expanded(call.outs[0], (1, ) * (outs[0].dim() - len(own)) + own)
    return outs


@register_rule('roll')
def roll(recorder, call) -> List[Tensor]:
    """Positions may go round; channels would not keep their order."""
    labels, dims = recorder.labels_of(call.tensors[0]), call.argument(
        2, 'dims')
    if dims is None or dims == ():
        dims = list(range(labels.dim()))
    recorder.require(
        not varies_along(labels, [dims] if isinstance(dims, int) else dims),
        'rolls its channels')
    return [labels]


@register_rule('gather', 'take_along_dim')
def gather(recorder, call) -> List[Tensor]:
    """Picks positions by computed numbers, but no channels."""
    labels = recorder.labels_of(call.tensors[0])
    dim = call.argument(1 if call.op == 'gather' else 2, 'dim')
    recorder.require(
        dim is not None and not varies_along(labels, [dim]),
        f'picks channels by number ({call.op})')
    recorder.fix(call.tensors[1:], f'{recorder.where} takes them as indices')
    return moved(recorder, call)


@register_rule(*JOIN)
def join(recorder, call) -> List[Tensor]:
    """Concatenation: channels stay apart from one another.

    Joined along positions (a class token and patches) they are the same.
    """
    labels = _joined_positions(recorder, call) if call.op == 'cat' else None
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
    labels = recorder.core_of(x)
    for i in range(len(widths) // 2):
        dim = x.dim() - 1 - i
        before, after = widths[2 * i], widths[2 * i + 1]
        if labels.shape[dim] > 1 and (before or after):
            recorder.require(
                min(before, after) >= 0
                and call.argument(2, 'mode', 'constant') == 'constant',
                'crops or mirrors its channels by padding')
            variable = recorder.variables.new_fixed(
                f'{recorder.where} pads its channels to a fixed width')
            widths_dim = [0, 0] * (labels.dim() - 1 - dim) + [before, after]
            labels = F.pad(labels, widths_dim, value=int(variable))
    return [labels.expand(call.outs[0].shape)]


@register_rule('unfold')
def unfold(recorder, call) -> List[Tensor]:
    """im2col: ``[B, C, H, W]`` -> ``[B, C * k * k, L]``, channel-major."""
    x, out = call.tensors[0], call.outs[0]
    if call.func is not F.unfold:
        return move(recorder, call)
    vector = vector_along(recorder.labels_of(x), 1)
    recorder.require(vector is not None,
                     'unfolds a tensor whose channels vary over positions')
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
    same_size = before.numel() == after.numel()
    if same_size and before.dim() == 1 < after.dim():
        _note_parts(recorder, after, f'{recorder.where} splits them up')
    elif same_size and after.dim() == 1 < before.dim():
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
        facts.partitions.append(Partition(rows, recorder.path, why, True))
        facts.parts.update(row.numpy().tobytes() for row in rows)


def _tie_rows(recorder, labels: Tensor) -> None:
    """Rows that are no parts are kept or dropped as a whole."""
    for level in range(labels.dim() - 1, 0, -1):
        rows = labels.reshape(labels.shape[:level].numel(), -1)
        known = recorder.facts.parts
        if any(row.numpy().tobytes() not in known for row in rows):
            first = rows[:, :1].expand_as(rows)
            recorder.variables.merge(first, rows)
