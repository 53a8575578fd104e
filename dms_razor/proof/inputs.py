# Copyright (c) dms_razor contributors. All rights reserved.
"""Inputs on which a space is proved, drawn to be like the example input.

An example input may be zeros, or all ones: it was given for its shape. Drawn
inputs let every channel show itself, and stay what the network can take.
"""
from typing import Any

import torch
from torch import Tensor

from ..network import map_tensors


def draw(example: Any, seed: int, constants: bool = False) -> Any:
    """Inputs of the same shapes, types and ranges of values.

    Numbers with a fraction are drawn from their tensor's own range, which
    begins at 0 if there is but one number in it. Whole numbers, truth values
    and tensors of only 0 and 1 are permuted, so that each stays a valid index,
    class or mask.

    Args:
        example (Any): Tensors in any nesting; what is no tensor stays.
        seed (int): Another seed gives other inputs.
        constants (bool): Whether whole numbers that are all the same are
            drawn too, from 0 up to that number: words of a vocabulary, but
            not the size of an image.
    """
    generator = torch.Generator().manual_seed(seed)
    return map_tensors(lambda x: _drawn(x, generator, constants), example)


def nudge(example: Any, seed: int) -> Any:
    """The inputs themselves, each number with a fraction .1 % off at most."""
    generator = torch.Generator().manual_seed(seed)

    def nudged(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x
        noise = torch.rand(x.shape, generator=generator, dtype=torch.float64)
        return x.detach() * (1 + 1e-3 * (2 * noise - 1)).to(x)

    return map_tensors(nudged, example)


def _drawn(x: Tensor, generator: torch.Generator, constants: bool) -> Tensor:
    x = x.detach()
    whole = not x.is_floating_point() and not x.is_complex()
    numbers = torch.view_as_real(x) if x.is_complex() else x
    finite = numbers[numbers.isfinite()].double()
    if x.dim() == 0 or finite.numel() == 0:
        return x
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        if x.dtype == torch.bool or (whole and not constants) \
                or (x.numel() == 1 and not whole):
            return x
        low, high = min(low, 0.), max(high, 0.)
        high += low == high  # nothing but 0
    elif whole or bool(((finite == 0) | (finite == 1)).all()):
        order = torch.randperm(x.numel(), generator=generator)
        return x.reshape(-1)[order.to(x.device)].view(x.shape)
    noise = torch.rand(numbers.shape, generator=generator, dtype=torch.float64)
    if whole:
        noise = (low + noise * (high - low)).round()
        return noise.to(x)
    drawn = (low + noise * (high - low)).to(numbers)
    # What marks a place, such as -inf in a mask, goes on marking it.
    drawn = torch.where(numbers.isfinite(), drawn, numbers)
    return torch.view_as_complex(drawn) if x.is_complex() else drawn
