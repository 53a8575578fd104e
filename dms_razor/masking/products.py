# Copyright (c) dms_razor contributors. All rights reserved.
"""Products of many weights and their masks, as one node of autograd.

Each weight is one matrix in memory, or one for each group of a convolution,
whose rows and columns have masks. All masks lie in one vector, so that they
are read, and get their gradients, at once. The work is that of two kernels on
a GPU (:mod:`.fused_weights`) and of two loops on a CPU
(:mod:`.compiled_weights`).
"""
import copy
from dataclasses import dataclass
from functools import reduce
from types import ModuleType
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .input_mask import InputMask
from .memory import in_memory, recorded

#: Numbers that say what an entry is, in a kernel's table.
FIELDS = 13
#: Products begin at multiples of so many numbers in memory.
ALIGNED = 64


@dataclass(eq=False)
class Entry:
    """A matrix of weights and where its masks are.

    The mask of the weight in row r and column k is ``masks[rows + r *
    row_step] * masks[cols + k // inner % channels * col_step]``; with a step
    of 0 there is none, and the first of all masks is 1.

    Attributes:
        start (int): First number of the matrix in the memory of its weight.
        shape (tuple[int, int]): Rows and columns.
        inner (int): Columns that lie together and have one channel.
        channels (int): Number of channels.
        rows, cols (int): First mask of rows and of channels.
        row_step, col_step (int): 1, or 0 for no masks.
    """
    start: int
    shape: Tuple[int, int]
    inner: int = 1
    channels: int = 1
    rows: int = 0
    row_step: int = 0
    cols: int = 0
    col_step: int = 0

    def masked(self, weight: Tensor, masks: Tensor) -> Tensor:
        """The rows of a weight in the order of memory ``[N, K]`` that are
        this matrix, masked; by operations of PyTorch."""
        first = self.start // self.shape[1]
        out = weight[first:first + self.shape[0]]
        if self.row_step:
            out = out * masks[self.rows:self.rows + len(out), None]
        if self.col_step:
            channel = torch.arange(self.shape[1], device=masks.device)
            channel = channel // self.inner % self.channels
            out = out * masks[self.cols + channel]
        return out


class Vectors:
    """Collects masks that are read, one vector behind the other.

    Attributes:
        columns (list[Tensor]): Elements whose masks are multiplied, -1 for
            none, int64 ``[n, k]`` of each vector.
        length (int): Of all of them.
    """

    def __init__(self) -> None:
        self.columns = [torch.full((1, 1), -1)]
        self.length = 1

    def add(self, columns: Sequence[Tensor]) -> int:
        """Take up a vector; returns where it begins."""
        found = torch.cat(
            [column.cpu().reshape(len(column), -1) for column in columns], 1)
        self.columns.append(found)
        self.length += len(found)
        return self.length - len(found)

    def index(self) -> Tensor:
        """int64 ``[k, length]``, 0 for none and 1 + its number for an
        element."""
        most = max(column.shape[1] for column in self.columns)
        return torch.cat([
            nn.functional.pad(column, (0, most - column.shape[1]), value=-1)
            for column in self.columns
        ]).T.contiguous() + 1


def matrix_of(weight: Tensor) -> Optional[Tuple[int, int, int]]:
    """Rows, columns, and columns of one channel, of a weight in memory.

    None where the first axis is not the outermost, or something is between.
    """
    if weight.dim() < 2:
        return (1, weight.numel(), 1) if weight.is_contiguous() and \
            weight.dim() else None
    columns = weight[0].numel()
    if weight.is_contiguous():
        return len(weight), columns, weight[0, 0].numel()
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if weight.is_contiguous(
            memory_format=formats.get(weight.dim(), torch.contiguous_format)):
        return len(weight), columns, 1
    return None


def entries_of(weight: Tensor, masks: Sequence[InputMask],
               scales: Sequence[int],
               vectors: Vectors) -> Optional[List[Entry]]:
    """The entries of one parameter, None if it cannot be described.

    Args:
        weight (Tensor): The parameter.
        masks (Sequence[InputMask]): Its masks.
        scales (Sequence[int]): Elements whose masks scale it whole.
        vectors (Vectors): Takes up the masks.
    """
    matrix = matrix_of(weight)
    if matrix is None:
        return None
    rows, columns, inner = matrix
    of_rows: List[Tensor] = []
    of_channels: List[Tensor] = []
    groups = 1
    for mask in masks:
        if mask.groups > 1 and (mask.axis != 1 or of_channels):
            return None
        if mask.axis == 0:
            of_rows.append(mask.index)
        elif mask.axis == 1 and mask.groups > 1 and weight.shape[1] == 1:
            of_rows.append(
                mask.index.repeat_interleave(len(weight) // mask.groups, 0))
        elif mask.axis == 1 and groups == 1:
            of_channels.append(mask.index)
            groups = mask.groups
        else:
            return None
    of_rows += [torch.full((len(weight), ), one) for one in scales]
    if weight.dim() == 1:  # its numbers are the columns of one row
        of_rows, of_channels = [], of_rows
    channels = len(weight) if weight.dim() == 1 else weight.shape[1]
    first_row = vectors.add(of_rows) if of_rows else 0
    first_channel = vectors.add(of_channels) if of_channels else 0
    height = rows // groups
    return [
        Entry(group * height * columns, (height, columns), inner, channels,
              first_row + group * height if of_rows else 0, int(bool(of_rows)),
              first_channel + group * channels if of_channels else 0,
              int(bool(of_channels))) for group in range(groups)
    ]


class Group:
    """Parameters whose products with masks are made by one kernel.

    Args:
        out (torch.dtype): Of the products.

    Attributes:
        weights (list[Tensor]): The parameters.
        size (int): Numbers in all products.
    """

    def __init__(self, out: torch.dtype) -> None:
        self.out = out
        self.weights: List[Tensor] = []
        self.entries: List[List[Entry]] = []
        self.offsets: List[int] = []
        self.size = 0

    def add(self, weight: Tensor, entries: List[Entry]) -> None:
        """Take up a parameter."""
        self.weights.append(weight)
        self.entries.append(entries)
        self.offsets.append(self.size)
        self.size += -(-int(weight.numel()) // ALIGNED) * ALIGNED

    def finish(self, kernels: Optional[ModuleType]) -> None:
        """Make the tables of a kernel."""
        self.kernels = kernels
        if kernels is None:
            return
        self.addresses = [weight.data_ptr() for weight in self.weights]
        table, programs = [], []
        for number, weight in enumerate(self.weights):
            for entry in self.entries[number]:
                tiles = [
                    -(-size // tile)
                    for size, tile in zip(entry.shape, kernels.TILE)
                ]
                programs += [(len(table), tile)
                             for tile in range(tiles[0] * tiles[1])]
                table.append(
                    (weight.data_ptr() + entry.start * weight.element_size(),
                     self.offsets[number] + entry.start, *entry.shape,
                     entry.inner, entry.channels, entry.rows, entry.row_step,
                     entry.cols, entry.col_step, tiles[1], number,
                     entry.start))
        device = self.weights[0].device
        self.table = torch.tensor(table, device=device)
        self.programs = torch.tensor(
            programs, dtype=torch.int32, device=device)

    def at(self, weights: Sequence[Tensor]) -> 'Group':
        """This group, for weights whose memory may be elsewhere by now."""
        if [weight.data_ptr() for weight in weights] == self.addresses:
            return self
        moved = copy.copy(self)
        moved.weights = list(weights)
        moved.finish(self.kernels)
        return moved

    def cut(self, flat: Tensor) -> List[Tensor]:
        """What lies one behind the other, in the shapes of the parameters."""
        return [
            flat.as_strided(weight.shape, weight.stride(), offset)
            for weight, offset in zip(self.weights, self.offsets)
        ]

    def plainly(self, masks: Tensor, *weights: Tensor) -> List[Tensor]:
        """The products by operations of PyTorch, one by one."""
        found = []
        for weight, entries in zip(weights, self.entries):
            order = sorted(
                range(weight.dim()), key=lambda d: -weight.stride(d))
            flat = weight.permute(order).reshape(-1, entries[0].shape[1])
            parts = [entry.masked(flat, masks) for entry in entries]
            shape = [weight.shape[d] for d in order]
            back = sorted(range(weight.dim()), key=order.__getitem__)
            found.append(
                torch.cat(parts).view(shape).permute(back).to(self.out))
        return found

    def __call__(self, masks: Tensor) -> Sequence[Tensor]:
        """The products with masks ``[L]``, in the order of the parameters."""
        if self.kernels is None:
            return self.plainly(masks, *self.weights)
        return MaskedTogether.apply(self, masks, *self.weights)


class Chosen(torch.autograd.Function):
    """Masks that are read, each the product of those of some elements.

    Nothing is kept as autograd keeps it, here and below: backward of one part
    of a network must not free what other parts need.
    """

    @staticmethod
    def forward(ctx, flat: Tensor, index: Tensor) -> Tensor:
        """Masks ``[E]`` and index ``[k, L]``; ``[L]``, float32 at least."""
        ctx.flat, ctx.index = flat, index
        ctx.parts = _parts(flat, index)
        return reduce(torch.mul, ctx.parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, None]:
        """Gradient of the masks."""
        graph = torch.is_grad_enabled()
        if graph or not in_memory(grad):
            leaf = ctx.flat if graph else ctx.flat.detach().requires_grad_()
            with torch.enable_grad():
                found = reduce(torch.mul, _parts(leaf, ctx.index))
            return torch.autograd.grad(
                found, leaf, grad, create_graph=graph)[0], None
        total = grad.new_zeros(len(ctx.flat) + 1)
        for number, places in enumerate(ctx.index):
            others = [x for n, x in enumerate(ctx.parts) if n != number]
            total.index_add_(0, places, reduce(torch.mul, others, grad))
        return total[1:].to(ctx.flat.dtype), None


def _parts(flat: Tensor, index: Tensor) -> List[Tensor]:
    """The masks that are multiplied, ``[L]`` each; behind 0 is a 1."""
    wide = flat.to(torch.promote_types(flat.dtype, torch.float32))
    read = torch.cat([wide.new_ones(1), wide])
    return [read.index_select(0, places) for places in index]


class MaskedTogether(torch.autograd.Function):
    """Products of a :class:`Group`, as one node of autograd."""

    @staticmethod
    def forward(ctx, group: Group, masks: Tensor, *weights: Tensor):
        """The products, in one memory."""
        ctx.set_materialize_grads(False)
        ctx.group, ctx.masks, ctx.weights = group, masks, weights
        ctx.states = list(map(_state, weights))
        out = masks.new_empty(group.size, dtype=group.out)
        group.kernels.multiply(group.table, group.programs, masks, out,
                               weights[0].dtype)
        return tuple(group.cut(out))

    @staticmethod
    def backward(ctx, *grads: Optional[Tensor]):
        """Gradients of masks and weights."""
        group, masks, weights = ctx.group, ctx.masks, ctx.weights
        if any(
                grad is not None and _state(weight) != state
                for grad, weight, state in zip(grads, weights, ctx.states)):
            raise RuntimeError(
                'weights of the network were changed, in place or in their '
                'type or layout, between its forward and backward: gradients '
                'would be those of other weights')
        if torch.is_grad_enabled() or recorded() or not in_memory(*grads):
            return None, *_differentiable(group, masks, weights, grads)
        given = [
            None if grad is None else
            grad if grad.stride() == weight.stride() else torch.empty_strided(
                weight.shape,
                weight.stride(),
                dtype=grad.dtype,
                device=grad.device).copy_(grad)
            for grad, weight in zip(grads, weights)
        ]
        group = group.at(weights)
        addresses = torch.tensor(
            [0 if grad is None else grad.data_ptr() for grad in given])
        flat = weights[0].new_empty(group.size)
        of_masks = group.kernels.gradients(
            group.table, group.programs, masks,
            addresses.to(masks.device, non_blocking=True), group.out, flat)
        needed = ctx.needs_input_grad[2:]
        return None, of_masks, *(
            part if wanted and grad is not None else None
            for part, wanted, grad in zip(group.cut(flat), needed, given))


def _state(weight: Tensor) -> tuple:
    """What tells, but for its place, whether a weight is as it was."""
    return (weight._version, weight.dtype, weight.device, weight.shape,
            weight.stride())


def _differentiable(group: Group, masks: Tensor, weights: Sequence[Tensor],
                    grads: Sequence[Optional[Tensor]]) -> List:
    """Gradients of :meth:`Group.plainly`, which may be differentiated."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        found = group.plainly(masks, *weights)
    there = [(out, grad) for out, grad in zip(found, grads)
             if grad is not None]
    inputs = [x for x in (masks, *weights) if x.requires_grad]
    grads = iter(
        torch.autograd.grad([out for out, _ in there],
                            inputs, [grad for _, grad in there],
                            create_graph=graph,
                            allow_unused=True))
    return [
        next(grads) if x.requires_grad else None for x in (masks, *weights)
    ]
