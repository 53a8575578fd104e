# Copyright (c) dms_razor contributors. All rights reserved.
"""Products of weights and masks of many layers in one loop, on a CPU.

It does what :mod:`.fused_weights` does on a GPU, by the same tables: each
program is a few whole rows of a matrix. Layer by layer, with operations of
PyTorch, the gradients of weights and masks take three passes over memory where
these take one.
"""
from functools import lru_cache
from typing import Callable, Tuple

import numpy as np
import torch
from torch import Tensor

from .compiled import (KINDS, carray, compiled, loop, own_number, own_part,
                       pointer, threads_for, types)
from .products import FIELDS

#: Rows and columns of a tile, which has all of a matrix.
TILE = (16, 2**62)
#: Weights of a network, at least, for which loops are compiled, which takes
#: longer than a search of a smaller one gains.
LEAST = 2**20


@loop
def _columns(entry, masks, found):
    """Write the mask of each column."""
    inner, channels, first = entry[4], entry[5], entry[8]
    if entry[9] == 0:
        found[:] = masks[0]
        return
    column = 0
    while column < len(found):
        for channel in range(channels):
            mask = masks[first + channel]
            for _ in range(inner):
                found[column] = mask
                column += 1


@loop
def _of_columns(entry, sums, of_masks):
    """Add what columns got to the gradient of their masks."""
    inner, channels, first = entry[4], entry[5], entry[8]
    if entry[9] == 0:
        return
    column = 0
    while column < len(sums):
        for channel in range(channels):
            total = sums.dtype.type(0)
            for _ in range(inner):
                total += sums[column]
                column += 1
            of_masks[first + channel] += total


@loop
def _multiply(weight, entry, masks, columns, out, first, last):
    for r in range(first, last):
        mask = masks[entry[6] + r * entry[7]]
        for c in range(weight.shape[1]):
            out[r, c] = weight[r, c] * (mask * columns[c])


@loop
def _gradients(weight, grad, entry, masks, columns, of_weight, of_masks, sums,
               first, last):
    for r in range(first, last):
        mask = masks[entry[6] + r * entry[7]]
        total = masks.dtype.type(0)
        for c in range(weight.shape[1]):
            product = grad[r, c] * weight[r, c]
            total += product * columns[c]
            sums[c] += product * mask
            of_weight[r, c] = grad[r, c] * (mask * columns[c])
        if entry[7] != 0:
            of_masks[entry[6] + r] += total


@lru_cache(None)
def _loops(dtype: torch.dtype) -> Tuple[Callable, Callable]:
    """Both, for numbers of a type: compiled when they are first used."""
    real, kind = pointer(KINDS[dtype]), np.dtype(str(dtype).split('.')[-1])
    whole, short = pointer(types.int64), pointer(types.int32)
    size = kind.itemsize

    @loop
    def multiply(given):
        table = carray(whole(given[0]), (given[1], FIELDS))
        programs = carray(short(given[2]), (given[3], 2))
        masks = carray(real(given[4]), (given[5], ))
        begin, end = own_part(given[3])
        for number in range(begin, end):
            entry = table[programs[number, 0]]
            height, width = entry[2], entry[3]
            columns = np.empty(width, kind)
            _columns(entry, masks, columns)
            first = programs[number, 1] * TILE[0]
            _multiply(
                carray(real(entry[0]), (height, width)), entry, masks, columns,
                carray(real(given[6] + entry[1] * size), (height, width)),
                first, min(height, first + TILE[0]))

    @loop
    def gradients(given):
        table = carray(whole(given[0]), (given[1], FIELDS))
        programs = carray(short(given[2]), (given[3], 2))
        masks = carray(real(given[4]), (given[5], ))
        grads = carray(whole(given[7]), (given[8], ))
        begin, end = own_part(given[3])
        of_masks = carray(real(given[9]), (given[10], given[5]))[own_number()]
        for number in range(begin, end):
            entry = table[programs[number, 0]]
            height, width, address = entry[2], entry[3], grads[entry[11]]
            if address == 0:  # of a layer that did not run there is none
                continue
            columns, sums = np.empty(width, kind), np.zeros(width, kind)
            _columns(entry, masks, columns)
            first = programs[number, 1] * TILE[0]
            _gradients(
                carray(real(entry[0]), (height, width)),
                carray(real(address + entry[12] * size),
                       (height, width)), entry, masks, columns,
                carray(real(given[6] + entry[1] * size), (height, width)),
                of_masks, sums, first, min(height, first + TILE[0]))
            _of_columns(entry, sums, of_masks)

    return compiled(multiply, 7), compiled(gradients, 11)


def multiply(table: Tensor, programs: Tensor, masks: Tensor, out: Tensor,
             weight: torch.dtype) -> None:
    """Write weights times masks.

    Args:
        table (Tensor): int64 ``[entries, FIELDS]``.
        programs (Tensor): Entry and tile of each program, int32 ``[P, 2]``.
        masks (Tensor): Masks of rows and columns, ``[L]``.
        out (Tensor): All products, one behind the other, flat.
        weight (torch.dtype): Of the weights, and of ``out``.
    """
    masks = masks.to(weight)
    _loops(weight)[0](threads_for(len(out)), table.data_ptr(), len(table),
                      programs.data_ptr(), len(programs), masks.data_ptr(),
                      len(masks), out.data_ptr())


def gradients(table: Tensor, programs: Tensor, masks: Tensor, grads: Tensor,
              grad: torch.dtype, of_weights: Tensor) -> Tensor:
    """Gradients of :func:`multiply`.

    Args:
        table, programs, masks: As there.
        grads (Tensor): Addresses of the gradients of the products, 0 where
            there is none, int64 ``[weights]``.
        grad (torch.dtype): Theirs, which is that of the weights.
        of_weights (Tensor): To be written: those of the weights, one behind
            the other, in the dtype of the weights, flat.

    Returns:
        Tensor: That of the masks, ``[L]``.
    """
    threads, given = threads_for(len(of_weights)), masks.to(grad)
    of_masks = given.new_zeros(threads, len(given))
    _loops(grad)[1](threads, table.data_ptr(), len(table), programs.data_ptr(),
                    len(programs), given.data_ptr(), len(given),
                    of_weights.data_ptr(), grads.data_ptr(), len(grads),
                    of_masks.data_ptr(), threads)
    return of_masks.sum(0).to(masks.dtype)
