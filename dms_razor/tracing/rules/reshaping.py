# Copyright (c) dms_razor contributors. All rights reserved.
"""What it means for channels that a dimension is split up or flattened.

``[B, C]`` viewed as ``[B, g, c]`` holds g parts of the channels. A pruned
tensor is rectangular too, so all parts keep the same number. Flattened in the
same order the parts follow one another as before. Flattened in another order
(a channel shuffle) the channels of one row must in addition be the same in
all parts, or the order would depend on what is kept.
"""
from torch import Tensor

from ..facts import Partition
from ..labels import compress, core


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
