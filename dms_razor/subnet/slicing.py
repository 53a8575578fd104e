# Copyright (c) dms_razor contributors. All rights reserved.
"""Cut a subnet out of the supernet: the elements that were selected stay.

This is the hard side of section 3.1 of the paper: k elements of a unit stay,
all others leave every tensor they occur in. Which tensors those are is known
to the space (its slice sites); nothing is traced here.
"""
import inspect
from typing import Any, Dict, Iterable, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..adapters.layer_numbers import fill_first_places, layer_numbers
from ..adapters.quantised import dequantise, packed_weights
from ..adapters.registry import RemovedBlock, make_slim
from ..errors import SubnetError
from ..masking.attach import unmask
from ..masking.copying import copy_network
from ..masking.sharded import is_sharded
from ..network import named_tensors
from ..space import SliceSite, Space, StandIn


def slice_model(model: nn.Module,
                space: Space,
                selection: Tensor,
                fold: bool = True) -> nn.Module:
    """Return the plain network that ``selection`` describes.

    The result computes what the supernet with hard masks computes. It is an
    independent copy without masked layers and without the search's state;
    ``training`` and ``requires_grad`` flags are those of ``model``,
    parameters that were shared are still shared.

    Args:
        model (nn.Module): The supernet, masked or not. It is not changed.
        space (Space): The space of ``model``.
        selection (Tensor): Bool of shape [E], True for what stays.
        fold (bool): Whether weights that read the same channels once blocks
            are gone are added up, as they must be for equal outputs.

    Returns:
        nn.Module: The subnet. Removed blocks are an ``nn.Identity``.

    Raises:
        SubnetError: ``selection`` is no network of the space, or the space is
            not that of ``model``.
    """
    selection = space.checked(selection)
    subnet = plain_copy(model, space.slice_sites)
    for tensor, sites in _tensors_to_slice(subnet, space.slice_sites):
        # .data keeps the Parameter object: its flags and attributes stay,
        # and whoever shares it sees the sliced tensor
        tensor.data = slice_tensor(tensor.data, sites, selection, fold)
    for path, name in space.replacements.items():
        make_slim(subnet.get_submodule(path), name)
    for path, attributes in space.attributes.items():
        for name, index in attributes.items():
            set_width(
                subnet.get_submodule(path), path, name,
                int(kept(index, selection).sum()))
    gone = stand_ins(space, selection)
    replace_by_identity(subnet, [part.path for part in gone], gone)
    return subnet


def plain_copy(model: nn.Module, shared: Iterable[str] = ()) -> nn.Module:
    """Deep-copy ``model`` and take the search's masks off the copy.

    Args:
        model (nn.Module): The supernet, masked or not. It is not changed.
        shared (Iterable[str]): Parameters that are about to be sliced: theirs
            is another object with the same memory.

    Returns:
        nn.Module: The network as its author wrote it, without gradients, and
        with ordinary layers for quantised ones, which cannot be cut.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    packed = packed_weights(model)
    if is_sharded(model):
        shared = ()  # a copy of it has no memory of the network
    plain = copy_network(
        model, {
            id(p): type(p)(p.data, p.requires_grad)
            for p in map(parameters.get, shared)
            if p is not None and id(p) not in packed
        })
    plain = dequantise(unmask(plain))
    for parameter in plain.parameters():
        parameter.grad = None
    return plain


def removed_blocks(space: Space, selection: Tensor) -> List[str]:
    """List the paths of the modules that go, in the order of the blocks.

    Args:
        space (Space): The space.
        selection (Tensor): Bool of shape [E].
    """
    return [part.path for part in stand_ins(space, selection)]


def stand_ins(space: Space, selection: Tensor) -> List[StandIn]:
    """List what takes the place of each module that goes with its block.

    Args and order: as for :func:`removed_blocks`.
    """
    return [
        part for block in space.blocks if not selection[block.element]
        for part in block.stand_ins
    ]


def inside(path: str, blocks: Sequence[str]) -> bool:
    """Say whether a path is one of the given blocks or below one."""
    return any(path == block or path.startswith(block + '.')
               for block in blocks)


def replace_by_identity(
    model: nn.Module, blocks: Sequence[str],
    others: Iterable[StandIn] = ()) -> None:
    """Put an identity in the place of each block of a network, in place.

    Args:
        model (nn.Module): The network.
        blocks (Sequence[str]): Paths of the modules that go. One that took
            one input is an ``nn.Identity`` now.
        others (Iterable[StandIn]): What else than an identity stands for one.
    """
    known = {part.path: part for part in others}
    numbers = layer_numbers(model)
    for path in blocks:
        parent, _, name = path.rpartition('.')
        if not inside(parent, blocks):  # else it goes with that block
            modules = model.get_submodule(parent)._modules
            part = known.get(path, StandIn(path))
            modules[name] = _stand_in(modules[name],
                                      part).train(modules[name].training)
    fill_first_places(model, numbers)


def _stand_in(block: nn.Module, part: StandIn) -> nn.Module:
    """PyTorch's own identity where it can stand for a block: a file of the
    network is then read without this package."""
    if part.zero or part.outputs or not _takes_one_input(block):
        return RemovedBlock(part.zero, part.outputs)
    return nn.Identity()


def _takes_one_input(block: nn.Module) -> bool:
    try:
        inputs = list(inspect.signature(block.forward).parameters.values())
    except (TypeError, ValueError):  # not written in Python
        return False
    return len(
        inputs) == 1 and inputs[0].kind == inputs[0].POSITIONAL_OR_KEYWORD


def _tensors_to_slice(model: nn.Module,
                      sites: Dict[str, List]) -> List[Tuple[Tensor, List]]:
    """Pair each tensor object with its sites, once however often shared."""
    tensors = named_tensors(model)
    found: Dict[int, str] = {}
    for name in sites:
        if name not in tensors:
            raise SubnetError(
                f'The network has no tensor {name!r}, which the space wants '
                'to slice. Use the network that the space was traced from; '
                'adapters that were put in since are merged first '
                '(merge_and_unload of PEFT).')
        first = found.setdefault(id(tensors[name]), name)
        if first != name and _content(sites[first]) != _content(sites[name]):
            raise SubnetError(
                f'{first!r} and {name!r} are one shared tensor, but the '
                'space slices them differently. Declare their units '
                'fixed in the search.')
    return [(tensors[name], sites[name]) for name in found.values()]


def _content(sites: Sequence) -> List:
    """What sites cut, in a form that can be compared."""
    return sorted((site.axis, site.groups, site.index.tolist(),
                   [] if site.fold is None else site.fold.tolist())
                  for site in sites)


def kept(index: Tensor, selection: Tensor) -> Tensor:
    """Look up which entries of a site stay.

    Args:
        index (Tensor): Element ids ``[n]``, -1 where nothing is pruned;
            ``[n, 2]`` where an entry stays only if both elements do.
        selection (Tensor): Bool of shape [E].

    Returns:
        Tensor: Bool ``[n]``.
    """
    index = index.cpu()
    stays = (index < 0) | selection[index.clamp(min=0)]
    return stays if index.dim() == 1 else stays.all(-1)


def slice_tensor(tensor: Tensor,
                 sites: Sequence[SliceSite],
                 selection: Tensor,
                 fold: bool = True) -> Tensor:
    """Select the kept entries of one tensor along all its sliced axes.

    Args:
        tensor (Tensor): A parameter's or buffer's data.
        sites (Sequence[SliceSite]): Its sites, at most one per axis. A site
            with ``groups`` > 1 belongs to a grouped convolution, whose rows
            of group j (along axis 0) have kept entries of their own.
        selection (Tensor): Bool of shape [E].
        fold (bool): See :func:`slice_model`.

    Returns:
        Tensor: A new tensor in the memory format of the old one; it shares no
        memory with ``tensor``.

    Raises:
        SubnetError: A site does not fit the tensor.
    """
    _check_sites(tensor, sites)
    last = memory_format(tensor)
    # the grouped axis first: its groups are counted along the full axis 0
    for site in sorted(sites, key=lambda site: site.groups, reverse=True):
        if fold and site.fold is not None:
            tensor = fold_slots(tensor, site, selection)
        rows = kept(site.index, selection).view(site.groups, -1)
        widths = rows.sum(1).tolist()
        if len(set(widths)) != 1:
            raise SubnetError(
                f'The groups of {site.name!r} keep {widths} channels, but a '
                'grouped convolution needs equally wide groups. Declare its '
                'units fixed in the search.')
        tensor = torch.cat([
            chunk.index_select(site.axis,
                               row.nonzero().flatten().to(tensor.device))
            for chunk, row in zip(tensor.chunk(site.groups, 0), rows)
        ])
    # contiguous() would leave a 1 x 1 convolution as it is
    return torch.empty_like(tensor, memory_format=last).copy_(tensor)


def memory_format(tensor: Tensor) -> torch.memory_format:
    """Channels last, if a tensor's strides are just those; else contiguous.

    Where nothing tells them apart, a tensor is contiguous.
    """

    def strides(format: torch.memory_format) -> Tuple[int, ...]:
        empty = torch.empty(tensor.shape, memory_format=format, device='meta')
        return empty.stride()

    plain = torch.contiguous_format
    last = {4: torch.channels_last, 5: torch.channels_last_3d}
    found = last.get(tensor.dim(), plain)
    return found if strides(plain) != tensor.stride() == strides(
        found) else plain


def fold_slots(tensor: Tensor, site: SliceSite, selection: Tensor) -> Tensor:
    """Add the entries of removed blocks to the slot before them.

    Without its block a slot of a concatenation repeats the slot before it,
    so one slot with the sum of both weights computes the same.

    Args:
        tensor (Tensor): The weight that reads the concatenation.
        site (SliceSite): A site with ``fold``.
        selection (Tensor): Bool of shape [E].
        fold (bool): See :func:`slice_model`.

    Returns:
        Tensor: A new tensor of the same shape.
    """
    tensor = tensor.clone()
    blocks = site.index[:, -1].cpu()
    for block in blocks[blocks >= 0].unique_consecutive().flip(0).tolist():
        if not selection[block]:
            entries = (blocks == block).nonzero().flatten().to(tensor.device)
            tensor.index_add_(site.axis,
                              site.fold.to(tensor.device)[entries],
                              tensor.index_select(site.axis, entries))
    return tensor


def _check_sites(tensor: Tensor, sites: Sequence) -> None:
    """Refuse sites that do not fit the tensor they are for."""
    axes = [site.axis for site in sites]
    for site in sites:
        if not (0 <= site.axis < tensor.dim() and axes.count(site.axis) == 1
                and len(site.index) == tensor.shape[site.axis] * site.groups
                and (site.groups == 1 or
                     (site.axis > 0 and tensor.shape[0] % site.groups == 0))):
            raise SubnetError(
                f'The site on axis {site.axis} of {site.name!r} has '
                f'{len(site.index)} entries in {site.groups} groups, but the '
                f'tensor has shape {tuple(tensor.shape)}. Use the network '
                'that the space was traced from.')


def get_width(module: nn.Module, path: str, name: str) -> int:
    """Read an attribute that says how wide a module is.

    Args:
        module (nn.Module): The module.
        path (str): Its path, for messages.
        name (str): A whole number (``'in_channels'``), a tuple of which the
            last entry is meant (``nn.LayerNorm.normalized_shape``), or an
            entry of a list (``'num_features.3'``, the width of a backbone's
            fourth stage).

    Raises:
        SubnetError: The module has no such width.
    """
    value, place = _find(module, path, name)
    return value if place is None else value[place]


def set_width(module: nn.Module, path: str, name: str, width: int) -> None:
    """Set a width of a module, on the module itself and never on its class.

    Arguments and errors are those of :func:`get_width`.
    """
    value, place = _find(module, path, name)
    if place is not None:
        entries = list(value)
        entries[place] = width
        width = type(value)(entries)
    setattr(module, name.partition('.')[0], width)


def _find(module: nn.Module, path: str, name: str) -> Tuple[Any, Any]:
    """Return the attribute and, if it is a list, the place of the width."""
    attribute, _, place = name.partition('.')
    value = getattr(module, attribute, None)
    if isinstance(value, (list, tuple)):
        index = int(place) if place else -1
        # not bool, which is an int too
        if (-len(value) <= index < len(value) and type(value[index]) is int):
            return value, index
    elif not place and type(value) is int:
        return value, None
    raise SubnetError(
        f'Module {path!r} ({type(module).__name__}) has no width {name!r}. '
        'The description is that of another network: use the network that '
        'was searched.')
