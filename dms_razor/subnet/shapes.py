# Copyright (c) dms_razor contributors. All rights reserved.
"""Names and shapes of a network's tensors, and how two of them differ."""
import hashlib
from typing import Any, Dict, List, Mapping

from torch import Tensor, nn


def named_tensors(model: nn.Module) -> Dict[str, Tensor]:
    """Name every parameter and buffer, shared ones under each of their names.

    Args:
        model (nn.Module): Any network.

    Returns:
        dict[str, Tensor]: Name to the very tensor object.
    """
    tensors = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    return tensors


def state_shapes(model: nn.Module) -> Dict[str, List[int]]:
    """Name the shape of every tensor in a network's state dict.

    Args:
        model (nn.Module): Any network.

    Returns:
        dict[str, list[int]]: Full name to shape.
    """
    return {
        name: list(value.shape)
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }


def shape_differences(expected: Mapping[str, List[int]],
                      found: Mapping[str, List[int]]) -> List[str]:
    """Put into words how two lists of shapes differ.

    Args:
        expected (Mapping): Name to shape, as it should be.
        found (Mapping): Name to shape, as it is.

    Returns:
        list[str]: One phrase per difference, shapes before names.
    """
    shared = [name for name in expected if name in found]
    return (
        [
            f'{name} has shape {tuple(found[name])} instead of '
            f'{tuple(expected[name])}'
            for name in shared if list(found[name]) != list(expected[name])
        ] + [f'{name} is missing' for name in expected if name not in found] +
        [f'{name} is not expected' for name in found if name not in expected])


def fingerprint(shapes: Mapping[str, Any]) -> str:
    """Reduce the shapes of a state dict to one string.

    Args:
        shapes (Mapping): Name to shape.

    Returns:
        str: SHA-256 of the sorted names and shapes, in hexadecimal. Two
        networks with the same have the same architecture as far as their
        weights know.
    """
    lines = [f'{name}:{list(shapes[name])}' for name in sorted(shapes)]
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()
