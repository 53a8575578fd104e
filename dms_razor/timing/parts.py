# Copyright (c) dms_razor contributors. All rights reserved.
"""The layers of a network that are measured alone, at other widths.

Among others a layer hands its result on in the layout that its kernel likes,
without a copy, so what is measured returns next to nothing of it. Several
copies read one input, and one copy is subtracted: what the input, the call and
the first touch of the memory take is in both.
"""
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..core.latency import layers_of
from ..network import untouched
from ..space import Space

COPIES = 3  # of a layer in what is timed; the time of one is subtracted
#: Kernels for blocks of so many channels are not there for other widths, so
#: where a search is free to keep any number, no multiples are measured.
BLOCK = 4


@dataclass(frozen=True)
class Part:
    """A convolution or linear layer, without its weights.

    Attributes:
        widths (tuple[int, int]): Channels in and out, when nothing is pruned.
        moves (tuple[bool, bool]): Which of them the search can change.
        steps (tuple[int, int]): In what steps it does.
        shape (tuple[int]): Shape of its input.
        depthwise (bool): A convolution of one channel each.
        options (tuple): Kernel, stride, padding, dilation; none if linear.
        bias (bool): Whether it adds one.
    """
    widths: Tuple[int, int]
    moves: Tuple[bool, bool]
    steps: Tuple[int, int]
    shape: Tuple[int, ...]
    depthwise: bool
    options: Tuple[Tuple[int, ...], ...]
    bias: bool

    @property
    def key(self) -> str:
        """Under what it is written down; equal parts are measured once."""
        return ' '.join(f'{name}={value}'
                        for name, value in asdict(self).items())

    def width(self, side: int, share: float) -> int:
        """Channels at which a share is measured: such as subnets have.

        Args:
            side (int): 0 for its input, 1 for its output.
            share (float): Of its full width, above 0.
        """
        full, step = self.widths[side], self.steps[side]
        if not self.moves[side] or share == 1:
            return full
        if step > 1:
            less = step * round((1 - share) * full / step)
            return full - less if less < full else full % step or step
        near = max(1, round(share * full))
        return near - (near > BLOCK and near % BLOCK == 0)

    def across(self, grid: Sequence[float], side: int) -> List[int]:
        """The different widths of one side, ascending."""
        return sorted({self.width(side, share) for share in grid})

    def in_steps(self, divisor: int) -> 'Part':
        """The same, of which only multiples of a number are used."""
        first, second = (math.lcm(step, divisor) if moves else step
                         for step, moves in zip(self.steps, self.moves))
        return replace(self, steps=(first, second))

    def points(self, grid: Sequence[float]) -> List[Tuple[int, int]]:
        """Channels in and out at which it has to be measured."""
        if self.depthwise:
            return [(width, width) for width in self.across(grid, 0)]
        return [(a, b) for a in self.across(grid, 0)
                for b in self.across(grid, 1)]

    def build(self,
              inputs: int,
              outputs: int,
              copies: int = COPIES) -> Tuple[nn.Module, Tensor]:
        """Several copies of it at other widths, and an input."""
        shape = list(self.shape)
        if not self.options:
            shape[-1] = inputs
            layers = [
                nn.Linear(inputs, outputs, self.bias) for _ in range(copies)
            ]
        else:
            shape[1] = inputs
            layers = [
                nn.Conv2d(
                    inputs,
                    outputs,
                    *self.options,
                    groups=inputs if self.depthwise else 1,
                    bias=self.bias) for _ in range(copies)
            ]
        return Side(layers).eval(), torch.randn(shape)


class Side(nn.Module):
    """Layers side by side, all reading the same input."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """A corner of what each of them returns."""
        return tuple(_corner(layer(x)) for layer in self.layers)


def _corner(x: Tensor) -> Tensor:
    """One position of images, by an operation that keeps their layout; one
    channel of anything else."""
    if x.dim() == 4:
        return nn.functional.max_pool2d(x, 1, max(x.shape[-2:]))
    return x[..., :1]


def parts_of(model: nn.Module, space: Space, inputs: Tuple,
             forward: Callable) -> Dict[str, Part]:
    """The parts of a network, by their names in :func:`.layers_of`.

    What is no plain convolution or linear layer, or runs more than once, is
    none: its MACs are fitted as a rest.
    """
    shapes: Dict[str, List[Tuple[int, ...]]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda module, args, name=name: shapes.setdefault(name, []).append(
                tuple(args[0].shape)))
        for name, module in model.named_modules()
        if type(module) in (nn.Conv2d, nn.Linear)
    ]
    try:
        with untouched(model):
            forward(model, *inputs)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    costs = space.resource.costs_of('macs')
    for name, cost in zip(layers_of(space.resource), costs):
        module = dict(model.named_modules()).get(cost.name)
        if len(shapes.get(cost.name, ())) == 1:
            part = _part(module, space, cost.axes, shapes[cost.name][0])
            if part is not None:
                found[name] = part
    return found


def _part(module: nn.Module, space: Space, axes: Tuple[int, ...],
          shape: Tuple[int, ...]) -> Any:
    """The part of a layer whose costs have these axes; None for no part."""
    moves = [
        any(term.factors for term in space.resource.axes[axis].terms)
        for axis in axes
    ]
    steps = [_step(space, axis) for axis in axes]
    bias = module.bias is not None
    if isinstance(module, nn.Linear):
        if len(axes) != 2:
            return None
        return Part((module.in_features, module.out_features), tuple(moves),
                    tuple(steps), shape, False, (), bias)
    depthwise = module.groups == module.in_channels == module.out_channels \
        and module.groups > 1
    if len(axes) != (1 if depthwise else
                     2) or not (depthwise or module.groups == 1) or isinstance(
                         module.padding,
                         str) or module.padding_mode != 'zeros':
        return None
    options = module.kernel_size, module.stride, module.padding, \
        module.dilation
    return Part((module.in_channels, module.out_channels),
                (moves[0], False if depthwise else moves[1]),
                (steps[0], 1 if depthwise else steps[1]), shape, depthwise,
                options, bias)


def _step(space: Space, axis: int) -> int:
    """In what steps a width changes: all its values differ by multiples."""
    found = 0
    for term in space.resource.axes[axis].terms:
        units = [
            space.units[factor - 1] for factor in term.factors
            if 0 < factor <= len(space.units)
        ]
        step = round(term.mult)
        if len(units) == 1:
            first, *others = units[0].allowed
            step *= math.gcd(*(count - first for count in others)) or 1
        if term.factors:
            found = math.gcd(found, step)
    return max(1, found)
