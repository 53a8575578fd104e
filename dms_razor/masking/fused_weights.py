# Copyright (c) dms_razor contributors. All rights reserved.
"""Products of weights and masks of many layers in one kernel, on a GPU.

A kernel's programs work on tiles of weights, each a matrix ``[R, K]`` in
memory: an entry of a table says where it lies, and which masks its rows and
columns have. :mod:`.products` makes the tables, and says what is computed.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .products import FIELDS

#: Rows and columns of a tile.
TILE = (16, 256)
KINDS = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


@triton.jit
def _place(table, programs, FIELDS: tl.constexpr, ROWS: tl.constexpr,
           COLS: tl.constexpr):
    """Entry of this program, and the rows and columns of its tile."""
    program = programs + 2 * tl.program_id(0)
    entry = table + tl.load(program) * FIELDS
    tile = tl.load(program + 1)
    tiles = tl.load(entry + 10)
    row = (tile // tiles) * ROWS + tl.arange(0, ROWS)
    col = (tile % tiles) * COLS + tl.arange(0, COLS)
    return entry, row, col


@triton.jit
def _masks(entry, row, col, inside_rows, inside_cols, masks):
    """Places of the masks of rows and columns, and the masks."""
    row_place = tl.load(entry + 6) + row * tl.load(entry + 7)
    channel = (col // tl.load(entry + 4)) % tl.load(entry + 5)
    col_place = tl.load(entry + 8) + channel * tl.load(entry + 9)
    of_rows = tl.load(masks + row_place, mask=inside_rows, other=0.)
    of_cols = tl.load(masks + col_place, mask=inside_cols, other=0.)
    return row_place, col_place, of_rows, of_cols


@triton.jit
def _multiply(table, programs, masks, out, WEIGHT: tl.constexpr,
              WIDE: tl.constexpr, FIELDS: tl.constexpr, ROWS: tl.constexpr,
              COLS: tl.constexpr):
    entry, row, col = _place(table, programs, FIELDS, ROWS, COLS)
    height, width = tl.load(entry + 2), tl.load(entry + 3)
    _, _, of_rows, of_cols = _masks(entry, row, col, row < height, col < width,
                                    masks)
    place = row[:, None] * width + col[None, :]
    inside = (row < height)[:, None] & (col < width)[None, :]
    weight = tl.load(entry).to(tl.pointer_type(WEIGHT))
    value = tl.load(weight + place, mask=inside, other=0.).to(WIDE)
    value = value * of_rows.to(WIDE)[:, None] * of_cols.to(WIDE)[None, :]
    tl.store(out + tl.load(entry + 1) + place, value, mask=inside)


@triton.jit
def _gradients(table, programs, masks, grads, of_weights, of_masks,
               WEIGHT: tl.constexpr, GRAD: tl.constexpr, WIDE: tl.constexpr,
               FIELDS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    entry, row, col = _place(table, programs, FIELDS, ROWS, COLS)
    address = tl.load(grads + tl.load(entry + 11))
    if address != 0:  # of a layer that did not run there is none
        height, width = tl.load(entry + 2), tl.load(entry + 3)
        row_place, col_place, of_rows, of_cols = _masks(
            entry, row, col, row < height, col < width, masks)
        of_rows, of_cols = of_rows.to(WIDE), of_cols.to(WIDE)
        place = row[:, None] * width + col[None, :]
        inside = (row < height)[:, None] & (col < width)[None, :]
        weight = tl.load(entry).to(tl.pointer_type(WEIGHT))
        given = address.to(tl.pointer_type(GRAD)) + tl.load(entry + 12)
        value = tl.load(weight + place, mask=inside, other=0.).to(WIDE)
        grad = tl.load(given + place, mask=inside, other=0.).to(WIDE)
        tl.store(
            of_weights + tl.load(entry + 1) + place,
            grad * of_rows[:, None] * of_cols[None, :],
            mask=inside)
        product = grad * value
        has_rows, has_cols = tl.load(entry + 7) != 0, tl.load(entry + 9) != 0
        tl.atomic_add(
            of_masks + row_place,
            tl.sum(product * of_cols[None, :], 1),
            mask=(row < height) & has_rows)
        tl.atomic_add(
            of_masks + col_place,
            tl.sum(product * of_rows[:, None], 0),
            mask=(col < width) & has_cols)


def _settings(weight: torch.dtype, masks: Tensor) -> dict:
    wide = torch.promote_types(
        torch.promote_types(weight, masks.dtype), torch.float32)
    return dict(
        WEIGHT=KINDS[weight],
        WIDE=KINDS[wide],
        FIELDS=FIELDS,
        ROWS=TILE[0],
        COLS=TILE[1])


def multiply(table: Tensor, programs: Tensor, masks: Tensor, out: Tensor,
             weight: torch.dtype) -> None:
    """Write weights times masks.

    Args:
        table (Tensor): int64 ``[entries, FIELDS]``.
        programs (Tensor): Entry and tile of each program, int32 ``[P, 2]``.
        masks (Tensor): Masks of rows and columns, ``[L]``.
        out (Tensor): All products, one behind the other, flat.
        weight (torch.dtype): Of the weights.
    """
    _multiply[(len(programs), )](table, programs, masks, out,
                                 **_settings(weight, masks))


def gradients(table: Tensor, programs: Tensor, masks: Tensor, grads: Tensor,
              grad: torch.dtype, of_weights: Tensor) -> Tensor:
    """Gradients of :func:`multiply`.

    Args:
        table, programs, masks: As there.
        grads (Tensor): Addresses of the gradients of the products, 0 where
            there is none, int64 ``[weights]``.
        grad (torch.dtype): Theirs.
        of_weights (Tensor): To be written: those of the weights, one behind
            the other, in the dtype of the weights, flat.

    Returns:
        Tensor: That of the masks, ``[L]``.
    """
    of_masks = torch.zeros_like(masks)
    _gradients[(len(programs), )](
        table,
        programs,
        masks,
        grads,
        of_weights,
        of_masks,
        GRAD=KINDS[grad],
        **_settings(of_weights.dtype, masks))
    return of_masks
