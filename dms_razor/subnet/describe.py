# Copyright (c) dms_razor contributors. All rights reserved.
"""Describe a subnet that was just cut as a :class:`Manifest`."""
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor, nn

from ..counting import Count, count_params
from ..network import (call, describe_inputs, fingerprint, named_tensors,
                       state_shapes, untouched)
from ..space import closed_form, unit_rows
from .manifest import Manifest
from .slicing import get_width, inside, removed_blocks


def describe_subnet(supernet: nn.Module,
                    subnet: nn.Module,
                    space,
                    keep: Tensor,
                    inputs: Any,
                    count: Count,
                    *,
                    forward: Optional[Callable] = None,
                    metric: str = 'macs',
                    target: Optional[float] = None) -> Manifest:
    """Describe a subnet.

    Args:
        supernet (nn.Module): The supernet, masked or not.
        subnet (nn.Module): What ``slice_model(supernet, space, keep)`` gave.
        space (Space): The space.
        keep (Tensor): Bool of shape [E].
        inputs (Any): Example inputs, those of ``count``.
        count (Count): MACs counted on the subnet.
        forward (callable, optional): How the network is called.
        metric (str): What ``target`` limits.
        target (float, optional): The limit.

    Returns:
        Manifest: Names, shapes and costs; no values of weights.
    """
    whole = torch.ones_like(keep)
    tensors = state_shapes(supernet)
    costs = {
        name:
        dict(
            supernet=closed_form(space, whole, name),
            searched=closed_form(space, keep, name),
            counted=counted)
        for name, counted in (('macs', count.of_one(space.batch_size).macs),
                              ('params', count_params(subnet)))
    }
    if space.batch_size > 1:
        costs['macs']['samples'] = space.batch_size
    return Manifest(
        model=dict(
            type=type(supernet).__name__,
            tensors=tensors,
            fingerprint=fingerprint(tensors)),
        inputs=describe_inputs(inputs),
        metric=metric,
        target=None if target is None else float(target),
        macs=costs['macs'],
        params=costs['params'],
        units=_units(space, keep),
        removed=removed_blocks(space, keep),
        modules=_modules(supernet, subnet, space, keep, count),
        receives=_receives(subnet, inputs, forward))


def _units(space, keep: Tensor) -> List[Dict[str, Any]]:
    """Say what is kept of each unit."""
    rows = unit_rows(space.units, keep)
    return [
        dict(
            name=unit.name,
            kind=unit.kind,
            total=unit.size,
            kept=int(row[0].sum()),
            groups=unit.groups,
            step=unit.step,
            members=list(unit.members),
            kept_index=row.flatten().nonzero().flatten().tolist())
        for unit, row in zip(space.units, rows)
    ]


def _modules(supernet, subnet, space, keep, count) -> Dict[str, Dict]:
    """Say what each module of the subnet is and owns."""
    removed = removed_blocks(space, keep)
    # what a checkpoint holds, and sliced buffers that it does not hold
    names = set(state_shapes(subnet)) | set(space.slice_sites)
    tensors = named_tensors(subnet)
    types = {
        path: type(module).__name__
        for path, module in subnet.named_modules(remove_duplicate=False)
    }
    modules = {
        path:
        dict(
            type=kind,
            tensors={},
            attributes={},
            macs=count.by_module.get(path, 0))
        for path, kind in types.items()
    }
    for name in tensors:
        if name in names:
            path, _, own = name.rpartition('.')
            modules[path]['tensors'][own] = list(tensors[name].shape)
    for path, slim in space.replacements.items():
        if path in modules:
            modules[path]['slim'] = slim
    for path, attributes in space.attributes.items():
        if inside(path, removed):
            continue
        for name in attributes:
            modules[path]['attributes'][name] = get_width(
                subnet.get_submodule(path), path, name)
    return modules


def _receives(subnet, inputs, forward) -> Dict[str, Any]:
    """Record what modules with children are called with, if one tensor."""
    receives: Dict[str, Any] = {}

    def note(path):

        def hook(module, args, kwargs):
            single = len(args) == 1 and isinstance(args[0], Tensor)
            if single and not kwargs:
                receives.setdefault(path, describe_inputs(args[0]))

        return hook

    handles = [
        module.register_forward_pre_hook(note(path), with_kwargs=True)
        for path, module in subnet.named_modules()
        if path and next(module.children(), None) is not None
    ]
    try:
        with untouched(subnet):
            call(subnet, inputs, forward)
    finally:
        for handle in handles:
            handle.remove()
    return receives
