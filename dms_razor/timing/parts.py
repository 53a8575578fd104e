# Copyright (c) dms_razor contributors. All rights reserved.
"""The layers of a network that are measured alone, at other widths."""
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..core.latency import layers_of
from ..network import untouched
from ..space import Space

COPIES = 3  # of a layer in what is timed, so that overhead counts little


@dataclass(frozen=True)
class Part:
    """A convolution or linear layer, without its weights.

    Attributes:
        widths (tuple[int, int]): Channels in and out, when nothing is pruned.
        moves (tuple[bool, bool]): Which of them the search can change.
        shape (tuple[int]): Shape of its input.
        depthwise (bool): A convolution of one channel each.
        options (tuple): Kernel, stride, padding, dilation; none if linear.
        bias (bool): Whether it adds one.
    """
    widths: Tuple[int, int]
    moves: Tuple[bool, bool]
    shape: Tuple[int, ...]
    depthwise: bool
    options: Tuple[Tuple[int, ...], ...]
    bias: bool

    @property
    def key(self) -> str:
        """Under what it is written down; equal parts are measured once."""
        return ' '.join(f'{name}={value}'
                        for name, value in asdict(self).items())

    def points(self, grid: Sequence[float]) -> List[Tuple[float, float]]:
        """Shares at which it has to be measured."""
        first, second = (grid if moves else (1., ) for moves in self.moves)
        if self.depthwise:
            return [(share, 1.) for share in first]
        return [(a, b) for a in first for b in second]

    def build(self, first: float, second: float) -> Tuple[nn.Module, Tensor]:
        """Several copies of it with shares of its widths, and an input."""
        inputs, outputs = (max(1, round(share * width))
                           for share, width in zip((first,
                                                    second), self.widths))
        shape = list(self.shape)
        if not self.options:
            shape[-1] = inputs
            layers = [
                nn.Linear(inputs, outputs, self.bias) for _ in range(COPIES)
            ]
        else:
            shape[1] = inputs
            outputs = inputs if self.depthwise else outputs
            layers = [
                nn.Conv2d(
                    inputs,
                    outputs,
                    *self.options,
                    groups=inputs if self.depthwise else 1,
                    bias=self.bias) for _ in range(COPIES)
            ]
        return Side(layers).eval(), torch.randn(shape)


class Side(nn.Module):
    """Layers side by side, all reading the same input."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """What each of them returns."""
        return tuple(layer(x) for layer in self.layers)


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
    bias = module.bias is not None
    if isinstance(module, nn.Linear):
        if len(axes) != 2:
            return None
        return Part((module.in_features, module.out_features), tuple(moves),
                    shape, False, (), bias)
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
                (moves[0], False if depthwise else moves[1]), shape, depthwise,
                options, bias)
