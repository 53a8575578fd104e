# Copyright (c) dms_razor contributors. All rights reserved.
"""What an optimizer has gathered in a search, for the training that follows.

Adam's moments and SGD's momentum are as large as the weights, and are cut like
them. A new optimizer would begin with none: its first steps are as large as
its step size allows, whatever the gradient, and undo some of what was learnt.
"""
from typing import Any, Callable, Dict

import torch
from torch import Tensor, nn

from ..masking.optimizers import innermost
from .slicing import plain_copy


def carry_over(optimizer: Any, model: nn.Module, cut: Callable[[nn.Module],
                                                               nn.Module],
               new: Any, subnet: nn.Module) -> int:
    """Give an optimizer of a subnet the state of the supernet's.

    Args:
        optimizer (Optimizer): PyTorch's, or a wrapper of one, that has trained
            the supernet. It is not changed.
        model (nn.Module): The supernet.
        cut (Callable): Makes the subnet of a network like the supernet.
        new (Optimizer): Of the same kind, of the subnet's parameters. Its
            step sizes and other settings stay.
        subnet (nn.Module): The subnet.

    Returns:
        int: The number of parameters that have a state now.

    Raises:
        TypeError: One is no optimizer of PyTorch, or they are of two kinds.
        ValueError: One trains nothing of its network, they have other
            settings that say what is kept, or the state is not of a form
            that can be cut, such as Adafactor's rows and columns.
    """
    optimizer, new = innermost(optimizer), innermost(new)
    if type(optimizer) is not type(new):
        raise TypeError(
            f'the state of {type(optimizer).__name__} means nothing to '
            f'{type(new).__name__}: make the new optimizer of the same kind')
    _check_settings(optimizer, new)
    before, after = _trained(optimizer, model), _trained(new, subnet)
    states = {
        name: optimizer.state[p]
        for name, p in before.items() if p in optimizer.state
    }
    _check_shapes(optimizer, before, states)
    # What is as large as its weight is cut; the rest, such as the number of
    # steps, is of the whole weight.
    keys = dict.fromkeys(key for name, state in states.items()
                         for key, value in state.items()
                         if _is_like(value, before[name]))
    parts = {key: _cut(model, cut, states, key) for key in keys}
    given = 0
    for name in states.keys() & after.keys():
        parameter = after[name]
        new.state[parameter] = {
            key:
            parts[key][name].to(parameter.device) if _is_like(
                value, before[name]) else _copied(value)
            for key, value in states[name].items()
        }
        given += 1
    return given


#: Settings on which it depends what an optimizer keeps.
KEPT = ('amsgrad', 'centered')


def _check_settings(optimizer: torch.optim.Optimizer,
                    new: torch.optim.Optimizer) -> None:
    for name in (*KEPT, 'momentum'):
        one, other = ({bool(group.get(name))
                       for group in each.param_groups}
                      for each in (optimizer, new))
        if one != other:
            raise ValueError(
                f'{name} differs between the two {type(new).__name__}, and '
                'with it what they keep of each weight: make both alike')


def _check_shapes(optimizer: torch.optim.Optimizer, weights: Dict[str, Tensor],
                  states: Dict[str, dict]) -> None:
    for name, state in states.items():
        for key, value in state.items():
            if torch.is_tensor(value) and value.dim() and not _is_like(
                    value, weights[name]):
                raise ValueError(
                    f'{type(optimizer).__name__} keeps "{key}" '
                    f'{tuple(value.shape)} of the weight "{name}" '
                    f'{tuple(weights[name].shape)}: only what is of the shape '
                    'of its weight can be cut. Begin with a new optimizer')


def _trained(optimizer: torch.optim.Optimizer,
             model: nn.Module) -> Dict[str, Tensor]:
    """Name -> parameter of a network, of those that an optimizer trains."""
    own = {id(p) for group in optimizer.param_groups for p in group['params']}
    found = {name: p for name, p in model.named_parameters() if id(p) in own}
    if not found:
        raise ValueError(
            f'the {type(optimizer).__name__} trains no parameter of this '
            f'{type(model).__name__}: give the optimizer of the search, and '
            'one made of export.model.parameters()')
    return found


def _is_like(value: Any, parameter: Tensor) -> bool:
    return torch.is_tensor(value) and value.shape == parameter.shape


def _copied(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value


def _cut(model: nn.Module, cut: Callable, states: Dict[str, dict],
         key: str) -> Dict[str, Tensor]:
    """One of the tensors of each parameter's state, cut like its weight."""
    twin = plain_copy(model)
    for name, parameter in twin.named_parameters():
        value = states.get(name, {}).get(key)
        # Never written, so it may share the optimizer's memory.
        parameter.data = torch.zeros_like(parameter) if not _is_like(
            value, parameter) else value
    return {
        # A part that was not cut still is the optimizer's own.
        name: parameter.detach().clone()
        for name, parameter in cut(twin).named_parameters()
    }
