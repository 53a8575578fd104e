# Copyright (c) dms_razor contributors. All rights reserved.
"""What the kernels of fused_weights do, on a CPU and entry by entry.

They read the same tables of addresses, so that whoever gives them the wrong
memory shows in tests without a GPU.
"""
import ctypes

import numpy as np
import torch

TILE = (16, 256)
KINDS = {torch.float64: ctypes.c_double, torch.float32: ctypes.c_float}


def at(address, shape, dtype):
    number = int(np.prod(shape))
    memory = (KINDS[dtype] * number).from_address(address)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)


def masks_of(entry, masks):
    """Places of the masks of rows and columns."""
    (_, _, height, width, inner, channels, rows, row_step, cols, col_step,
     *_) = entry
    row = rows + row_step * torch.arange(height)
    col = cols + col_step * (torch.arange(width) // inner % channels)
    return row, col, masks[row][:, None], masks[col]


def tiles(programs, table):
    """Every tile of every entry is one program's."""
    wanted = []
    for number, entry in enumerate(table.tolist()):
        rows, cols = (-(-n // tile) for n, tile in zip(entry[2:4], TILE))
        wanted += [[number, tile] for tile in range(rows * cols)]
        assert entry[10] == cols
    assert sorted(programs.tolist()) == wanted


def multiply(table, programs, masks, out, weight):
    tiles(programs, table)
    for entry in table.tolist():
        _, _, of_rows, of_cols = masks_of(entry, masks)
        shape = entry[2], entry[3]
        product = at(entry[0], shape, weight) * of_rows * of_cols
        out[entry[1]:entry[1] + product.numel()] = product.flatten()


def gradients(table, programs, masks, grads, grad, of_weights):
    tiles(programs, table)
    of_masks = torch.zeros_like(masks)
    for entry in table.tolist():
        address = int(grads[entry[11]])
        if not address:
            continue
        row, col, of_rows, of_cols = masks_of(entry, masks)
        shape = entry[2], entry[3]
        size = torch.empty((), dtype=grad).element_size()
        given = at(address + size * entry[12], shape, grad).to(masks.dtype)
        weight = at(entry[0], shape, of_weights.dtype)
        found = (given * of_rows * of_cols).flatten()
        of_weights[entry[1]:entry[1] + found.numel()] = found
        if entry[7]:
            of_masks.index_add_(0, row, (given * weight * of_cols).sum(1))
        if entry[9]:
            of_masks.index_add_(0, col, (given * weight * of_rows).sum(0))
    return of_masks
