# Copyright (c) dms_razor contributors. All rights reserved.
"""Which entries of one parameter or buffer a subnet keeps."""
from typing import Sequence

import torch
from torch import Tensor

from .errors import SubnetError


def kept(index: Tensor, keep: Tensor) -> Tensor:
    """Look up which entries of a site stay.

    Args:
        index (Tensor): Element ids ``[n]``, -1 where nothing is pruned;
            ``[n, 2]`` where an entry stays only if both elements do.
        keep (Tensor): Bool of shape [E].

    Returns:
        Tensor: Bool ``[n]``.
    """
    index = index.cpu()
    stays = (index < 0) | keep[index.clamp(min=0)]
    return stays if index.dim() == 1 else stays.all(-1)


def slice_tensor(tensor: Tensor, sites: Sequence, keep: Tensor) -> Tensor:
    """Select the kept entries of one tensor along all its sliced axes.

    Args:
        tensor (Tensor): A parameter's or buffer's data.
        sites (Sequence[SliceSite]): Its sites, at most one per axis. A site
            with ``groups`` > 1 belongs to a grouped convolution, whose rows
            of group j (along axis 0) have kept entries of their own.
        keep (Tensor): Bool of shape [E].

    Returns:
        Tensor: A new contiguous tensor; it shares no memory with ``tensor``.

    Raises:
        SubnetError: A site does not fit the tensor.
    """
    _check_sites(tensor, sites)
    # the grouped axis first: its groups are counted along the full axis 0
    for site in sorted(sites, key=lambda site: site.groups, reverse=True):
        if site.fold is not None:
            tensor = fold_slots(tensor, site, keep)
        rows = kept(site.index, keep).view(site.groups, -1)
        widths = rows.sum(1).tolist()
        if len(set(widths)) != 1:
            raise SubnetError(
                f'The groups of {site.name!r} keep {widths} channels, but a '
                'grouped convolution needs equally wide groups. Declare its '
                'units fixed in the search.')
        entries = [row.nonzero().flatten().to(tensor.device) for row in rows]
        tensor = torch.cat([
            chunk.index_select(site.axis, kept_entries)
            for chunk, kept_entries in zip(
                tensor.chunk(site.groups, 0), entries)
        ])
    return tensor.clone(memory_format=torch.contiguous_format)


def fold_slots(tensor: Tensor, site, keep: Tensor) -> Tensor:
    """Add the entries of removed blocks to the slot before them.

    Without its block a slot of a concatenation repeats the slot before it,
    so one slot with the sum of both weights computes the same.

    Args:
        tensor (Tensor): The weight that reads the concatenation.
        site (SliceSite): A site with ``fold``.
        keep (Tensor): Bool of shape [E].

    Returns:
        Tensor: A new tensor of the same shape.
    """
    tensor = tensor.clone()
    blocks = site.index[:, -1].cpu()
    for block in blocks[blocks >= 0].unique_consecutive().flip(0).tolist():
        if not keep[block]:
            entries = (blocks == block).nonzero().flatten()
            target = site.fold.cpu()[entries].to(tensor.device)
            entries = entries.to(tensor.device)
            tensor.index_add_(site.axis, target,
                              tensor.index_select(site.axis, entries))
    return tensor


def _check_sites(tensor: Tensor, sites: Sequence) -> None:
    """Refuse sites that do not fit the tensor they are for."""
    axes = [site.axis for site in sites]
    for site in sites:
        fits = (0 <= site.axis < tensor.dim() and axes.count(site.axis) == 1
                and len(site.index) == tensor.shape[site.axis] * site.groups
                and (site.groups == 1 or
                     (site.axis > 0 and tensor.shape[0] % site.groups == 0)))
        if not fits:
            raise SubnetError(
                f'The site on axis {site.axis} of {site.name!r} has '
                f'{len(site.index)} entries in {site.groups} groups, but the '
                f'tensor has shape {tuple(tensor.shape)}. Use the network '
                'that the space was traced from.')
