# Copyright (c) dms_razor contributors. All rights reserved.
"""Networks whose parameters lie in pieces on several ranks (FSDP2).

``fully_shard`` leaves every layer its own parameters, each as a ``DTensor`` of
which a rank holds a piece, and gathers them while the layer runs; so layers
read masks as always. It forbids ``copy.deepcopy``, and what it has put into a
module belongs to its process group. Here a copy is made that has neither:
plain parameters, whole. Gathering is a collective: all ranks do it.
"""
from collections import OrderedDict
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, Optional

import torch
from torch import Tensor, nn

_OURS = 'torch.distributed'  # where FSDP's own hooks are from


def is_sharded(model: nn.Module) -> bool:
    """Whether ``fully_shard`` was called on a network or a part of it."""
    return any(map(_place_of_fsdp, model.modules()))


@contextmanager
def written_once(model: nn.Module) -> Iterator[bool]:
    """Write what all ranks of a sharded network have alike.

    Yields:
        bool: Whether this rank is the one that writes. The others go on when
        it has; of a network that is not sharded each is.
    """
    alone = not is_sharded(model)
    yield alone or torch.distributed.get_rank() == 0
    if not alone:
        torch.distributed.barrier()


@contextmanager
def gathered(model: nn.Module) -> Iterator[Dict[int, Any]]:
    """In the body a sharded network can be deep-copied.

    Args:
        model (nn.Module): The network; afterwards as it was.

    Yields:
        dict[int, Any]: ``id`` of an object of the network -> what stands in
        its place in a copy, for ``copy.deepcopy``: whole parameters, and what
        is left of hooks and notes without those of FSDP.
    """
    sharded = [m for m in model.modules() if _place_of_fsdp(m)]
    for module in sharded:
        module.reshard()  # what the last forward left whole
    replaced: Dict[int, Any] = {}
    for parameter in model.parameters():
        if hasattr(parameter, 'full_tensor'):
            whole = parameter.detach().full_tensor()
            replaced[id(parameter)] = nn.Parameter(whole,
                                                   parameter.requires_grad)
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, dict) and 'hook' in name:
                replaced[id(value)] = type(value)(
                    (key, hook) for key, hook in value.items()
                    if not _is_of_fsdp(hook))
            elif isinstance(value, dict) and any(
                    getattr(key, '__name__', key) == 'fully_shard'
                    for key in value):
                replaced[id(value)] = OrderedDict(
                    (key, state) for key, state in value.items()
                    if getattr(key, '__name__', key) != 'fully_shard')
    kinds = [type(module) for module in sharded]
    try:
        for module, kind in zip(sharded, kinds):
            module.__class__ = kind.__mro__[_place_of_fsdp(module) + 1]
        yield replaced
    finally:
        for module, kind in zip(sharded, kinds):
            module.__class__ = kind


def gradients_of(model: nn.Module,
                 weights: Iterable[Tensor]) -> Iterator[Optional[Tensor]]:
    """Gradients of weights, those too that a rank still has for itself.

    Between the micro-batches of one step a sharded weight has none, where
    these were told not to sum up (``set_requires_gradient_sync(False)``): what
    was accumulated is the gradient of the whole weight, which FSDP keeps.

    Args:
        model (nn.Module): The network, sharded or not.
        weights (Iterable[Tensor]): Its parameters that train.

    Yields:
        Tensor, optional: A gradient, or None.
    """
    for weight in weights:
        yield weight.grad
    for module in model.modules():
        if _place_of_fsdp(module):
            yield from _kept_whole(module)


def _kept_whole(module: nn.Module) -> Iterator[Optional[Tensor]]:
    """Gradients that FSDP keeps for one of its groups of parameters."""
    state = module._get_fsdp_state()
    groups = getattr(state, '_fsdp_param_groups', None)
    for group in [state._fsdp_param_group] if groups is None else groups:
        for parameter in group.fsdp_params if group is not None else ():
            yield parameter.unsharded_accumulated_grad
            # there from the first forward on
            yield getattr(
                getattr(parameter, '_unsharded_param', None), 'grad', None)


def _place_of_fsdp(module: nn.Module) -> int:
    """Where FSDP stands among the classes of a module; 0 if it does not."""
    names = [kind.__name__ for kind in type(module).__mro__]
    return names.index('FSDPModule') if 'FSDPModule' in names else 0


def _is_of_fsdp(hook: Any) -> bool:
    """Whether FSDP has put a hook there."""
    hook = getattr(hook, 'hook', hook)  # as torch wraps some
    return str(getattr(hook, '__module__', '')).startswith(_OURS)
