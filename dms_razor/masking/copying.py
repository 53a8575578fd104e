# Copyright (c) dms_razor contributors. All rights reserved.
"""Copies of a network, also of one that keeps what cannot be copied.

A module may keep a tensor of its last forward (an attention map, an auxiliary
loss, the weight of the old ``weight_norm``), or something that is not data: a
lock, a stream, a scripted function. Neither is a reason not to export it.
"""
import copy
from contextlib import suppress
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..adapters.quantised import dequantise, packed_weights
from ..errors import SubnetError
from ..network import tensors_of, untouched
from .sharded import gathered, is_sharded

#: At most this many objects of a network are shared with its copies.
MOST_SHARED = 1000


class _Detached(TorchFunctionMode):
    """While it is active, ``copy.deepcopy`` leaves graphs behind."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            # Two names of one tensor stay one tensor.
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return function(*args, **(kwargs or {}))


def copy_network(model: nn.Module,
                 replaced: Optional[Mapping[int, Any]] = None) -> nn.Module:
    """Deep-copy a network.

    Tensors that a module keeps and that have a graph (neither parameters nor
    buffers have one) are detached in the copy. What cannot be copied and has
    no tensors is shared. Of a sharded network it is a plain one, whole, on
    each rank: all ranks call it.

    Args:
        model (nn.Module): The network. It is not changed.
        replaced (Mapping[int, Any], optional): ``id`` of an object of the
            network -> what stands in its place in the copy.

    Raises:
        SubnetError: A part with tensors cannot be copied; it is named.
    """
    replaced = dict(replaced or {})
    if is_sharded(model):
        with gathered(model) as tensors, _Detached():
            return copy.deepcopy(model, {**tensors, **replaced})
    with _Detached():
        try:
            return copy.deepcopy(model, dict(replaced))
        except Exception:  # pickle has errors of many types
            shared = _uncopied(model)
        try:
            return copy.deepcopy(model, {**shared, **replaced})
        except Exception as error:  # a parameter's own __deepcopy__
            raise _refusal(model, error) from error


def whole(model: nn.Module) -> nn.Module:
    """The network itself; of a sharded one a copy that is whole, and of one
    with quantised weights a copy in floating point.

    What is not quantised lies in memory once.
    """
    if is_sharded(model):
        model = copy_network(model)
    packed = packed_weights(model) if isinstance(model, nn.Module) else ()
    if not packed:
        return model
    return dequantise(
        copy_network(
            model,
            {id(p): p
             for p in model.parameters() if id(p) not in packed}))


def check_copy(model: nn.Module, inputs: Tuple, forward: Callable) -> None:
    """Refuse a network that could not be exported after its training.

    What training leaves in it, a forward with gradients does too.

    Args:
        model (nn.Module): The network; afterwards it is as before.
        inputs (tuple): Example inputs.
        forward (Callable): How it is run.

    Raises:
        SubnetError: See :func:`copy_network`.
    """
    with untouched(model):
        # A forward that cannot run with gradients, such as the prediction of
        # a detector, is not the one that trains.
        with suppress(Exception), torch.enable_grad():
            forward(model, *inputs)
        copy_network(model)


def _uncopied(model: nn.Module) -> Dict[int, Any]:
    """Objects by ``id`` that a copy has to share with its network."""
    own = {id(t): t for t in (*model.parameters(), *model.buffers())}
    shared: Dict[int, Any] = {}
    for _ in range(MOST_SHARED):
        try:
            copy.deepcopy(model, {**own, **shared})
            return shared
        except Exception as error:
            culprit = _chain(error)[-1]
            if isinstance(culprit, nn.Module) or tensors_of(culprit):
                raise _refusal(model, error) from error
            shared[id(culprit)] = culprit
    raise SubnetError(
        f'{type(model).__name__} keeps more than {MOST_SHARED:,} objects that '
        'cannot be copied. Keep them outside the network.')


def _chain(error: BaseException) -> List[Any]:
    """What was being copied when a copy failed, from the outside in."""
    chain: List[Any] = []
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code is copy.deepcopy.__code__:
            chain.append(frame.tb_frame.f_locals['x'])
        frame = frame.tb_next
    return chain


def _refusal(model: nn.Module, error: BaseException) -> SubnetError:
    """The error that names what cannot be copied, and where it is."""
    chain = _chain(error)
    paths = {id(module): path for path, module in model.named_modules()}
    last = max(i for i, x in enumerate(chain) if i == 0 or id(x) in paths)
    owner, inner = chain[last], [id(x) for x in chain[last + 1:]]
    own = {**vars(owner), **owner._parameters, **owner._buffers}
    names = [name for name, value in own.items() if id(value) in inner]
    where = f'{type(owner).__name__} "{paths.get(id(owner), "")}"'
    if inner:
        where = f'the {type(chain[-1]).__name__} that {where} keeps' + \
            f' as "{names[-1]}"' * bool(names)
    return SubnetError(
        f'{type(model).__name__} cannot be copied, and so no subnet of it can '
        f'be exported: {where} fails with {type(error).__name__}: {error}. '
        'Give its class a __deepcopy__, or keep it outside the network.')
