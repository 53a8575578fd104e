# Copyright (c) dms_razor contributors. All rights reserved.
"""Cut a subnet out of the supernet: keep the elements that were searched.

This is the hard side of section 3.1 of the paper: k elements of a unit stay,
all others leave every tensor they occur in. Which tensors those are is known
to the space (its slice sites); nothing is traced here.
"""
import copy
from collections import defaultdict
from typing import Dict, List, Sequence, Tuple

from torch import Tensor, nn

from .errors import SubnetError
from .keep import check_keep
from .shapes import named_tensors
from .slim import RemovedBlock, make_slim
from .tensor_slicing import kept, slice_tensor
from .widths import set_width


def slice_model(model: nn.Module, space, keep: Tensor) -> nn.Module:
    """Return the plain network that ``keep`` describes.

    The result computes what the supernet with hard masks computes. It is an
    independent copy without masked layers and without the search's state;
    ``training`` and ``requires_grad`` flags are those of ``model``,
    parameters that were shared are still shared.

    Args:
        model (nn.Module): The supernet, masked or not. It is not changed.
        space (Space): The space of ``model``.
        keep (Tensor): Bool of shape [E], True for the elements that stay.

    Returns:
        nn.Module: The subnet. Removed blocks are an ``nn.Identity``.

    Raises:
        SubnetError: ``keep`` is no network of the space, or the space is
            not that of ``model``.
    """
    keep = check_keep(space.units, keep)
    subnet = plain_copy(model)
    for tensor, sites in _tensors_to_slice(subnet, space.slice_sites):
        # .data keeps the Parameter object: its flags and attributes stay,
        # and whoever shares it sees the sliced tensor
        tensor.data = slice_tensor(tensor.data, sites, keep)
    for path, name in space.replacements.items():
        make_slim(subnet.get_submodule(path), name)
    for path, attributes in space.attributes.items():
        module = subnet.get_submodule(path)
        for name, index in attributes.items():
            set_width(module, path, name, int(kept(index, keep).sum()))
    replace_by_identity(subnet, removed_blocks(space, keep))
    return subnet


def plain_copy(model: nn.Module) -> nn.Module:
    """Deep-copy ``model`` and take the search's masks off the copy.

    Args:
        model (nn.Module): The supernet, masked or not. It is not changed.

    Returns:
        nn.Module: The network as its author wrote it, without gradients.
    """
    from ..masking import unmask
    plain = copy.deepcopy(model)
    unmask(plain)
    for parameter in plain.parameters():
        parameter.grad = None
    return plain


def removed_blocks(space, keep: Tensor) -> List[str]:
    """List the removed blocks.

    Args:
        space (Space): The space.
        keep (Tensor): Bool of shape [E].

    Returns:
        list[str]: Paths of the blocks whose element is not kept, in the
        order of the network.
    """
    return [block.path for block in space.blocks if not keep[block.element]]


def inside(path: str, blocks: Sequence[str]) -> bool:
    """Say whether a module or tensor lies in one of the given blocks.

    Args:
        path (str): Dotted path.
        blocks (Sequence[str]): Paths of blocks.

    Returns:
        bool: True when ``path`` is a block or below one.
    """
    return any(path == block or path.startswith(block + '.')
               for block in blocks)


def replace_by_identity(model: nn.Module, blocks: Sequence[str]) -> None:
    """Put an identity in the place of each block.

    Args:
        model (nn.Module): The network, changed in place.
        blocks (Sequence[str]): Dotted paths of the blocks.
    """
    for path in blocks:
        parent, _, name = path.rpartition('.')
        if inside(parent, blocks):
            continue  # it goes with the block around it
        parent = model.get_submodule(parent)
        identity = RemovedBlock()
        identity.training = parent._modules[name].training
        parent._modules[name] = identity


def _tensors_to_slice(model: nn.Module,
                      sites: Dict[str, List]) -> List[Tuple[Tensor, List]]:
    """Pair each tensor object with its sites, once however often shared."""
    tensors = named_tensors(model)
    found: Dict[int, Dict[str, List]] = defaultdict(dict)
    for name, its_sites in sites.items():
        if name not in tensors:
            raise SubnetError(
                f'The network has no tensor {name!r}, which the space wants '
                'to slice. Use the network that the space was traced from.')
        found[id(tensors[name])][name] = its_sites
    pairs = []
    for by_name in found.values():
        (first, its_sites), *others = by_name.items()
        for other, other_sites in others:
            if not _same_sites(its_sites, other_sites):
                raise SubnetError(
                    f'{first!r} and {other!r} are one shared tensor, but the '
                    'space slices them differently. Declare their units '
                    'fixed in the search.')
        pairs.append((tensors[first], its_sites))
    return pairs


def _same_sites(first: List, second: List) -> bool:
    """Compare two lists of sites by what they cut."""

    def content(sites):
        return sorted(
            (site.axis, site.groups, site.index.tolist()) for site in sites)

    return content(first) == content(second)
