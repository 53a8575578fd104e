# Copyright (c) dms_razor contributors. All rights reserved.
"""Supernet and subnet side by side, layer by layer."""
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Tuple

from torch import nn

from .counting import Count
from .slicing import inside

WIDTHS = (('in_channels', 'out_channels'), ('in_features', 'out_features'))
"""Attributes of standard layers that give their input and output width."""


@dataclass
class Layer:
    """One convolution, linear layer or other module with a matrix.

    Each pair is (supernet, subnet); in a removed block the subnet's figures
    are 0.

    Attributes:
        name (str): Path of the module.
        type (str): Its class.
        inputs (tuple[int, int]): Channels it reads.
        outputs (tuple[int, int]): Channels it produces.
        macs (tuple[int, int]): Multiply-accumulates of one forward pass.
        params (tuple[int, int]): Its own parameters.
        removed (str, optional): The removed block that it lies in.
    """
    name: str
    type: str
    inputs: Tuple[int, int]
    outputs: Tuple[int, int]
    macs: Tuple[int, int]
    params: Tuple[int, int]
    removed: Optional[str] = None

    def to_dict(self) -> Dict[str, Any]:
        """The layer as plain data, for JSON."""
        return asdict(self)


def compare_layers(supernet: nn.Module, subnet: nn.Module, removed: List[str],
                   before: Count, after: Count) -> List[Layer]:
    """List the layers of a supernet and what became of them.

    Args:
        supernet (nn.Module): The supernet, plain.
        subnet (nn.Module): The subnet.
        removed (list[str]): Paths of the removed blocks.
        before (Count): MACs of the supernet.
        after (Count): MACs of the subnet.

    Returns:
        list[Layer]: In the order of the network's modules.
    """
    kept = dict(subnet.named_modules())
    layers = []
    for name, module in supernet.named_modules():
        if not is_layer(module, before.by_module.get(name, 0)):
            continue
        gone = [block for block in removed if inside(name, [block])]
        rest = None if gone else kept[name]
        inputs, outputs = zip(width(module), width(rest))
        layers.append(
            Layer(
                name=name,
                type=type(module).__name__,
                inputs=inputs,
                outputs=outputs,
                macs=(before.by_module.get(name, 0),
                      0 if gone else after.by_module.get(name, 0)),
                params=(own_params(module), own_params(rest)),
                removed=gone[0] if gone else None))
    return layers


def is_layer(module: nn.Module, macs: int) -> bool:
    """Say whether a module multiplies channels by a matrix of its own.

    Args:
        module (nn.Module): Any module.
        macs (int): The MACs that it runs itself.

    Returns:
        bool: True for convolutions and linear layers, used or not, and for
        other modules with MACs and a matrix or kernel; False for norms,
        scales and position embeddings.
    """
    standard = any(hasattr(module, name) for name, _ in WIDTHS)
    return (standard or macs > 0) and any(
        parameter.dim() > 1 for parameter in module.parameters(recurse=False))


def width(module: Optional[nn.Module]) -> Tuple[int, int]:
    """Read off how many channels a layer reads and produces.

    Args:
        module (nn.Module, optional): A layer, None for one that is gone.

    Returns:
        tuple[int, int]: Input and output channels.
    """
    if module is None:
        return 0, 0
    for names in WIDTHS:
        if all(isinstance(getattr(module, name, None), int) for name in names):
            return getattr(module, names[0]), getattr(module, names[1])
    matrix = next(
        parameter for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1)
    return matrix.shape[1], matrix.shape[0]


def own_params(module: Optional[nn.Module]) -> int:
    """Count the parameters that a module owns itself, 0 for None."""
    if module is None:
        return 0
    return sum(parameter.numel()
               for parameter in module.parameters(recurse=False))
