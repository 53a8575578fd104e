# Copyright (c) dms_razor contributors. All rights reserved.
"""A subnet's weights: tensors in a file, loaded without running its code."""
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Union

import torch
from torch import Tensor, nn

from ..compat.checkpoint import load_checkpoint, load_url
from ..errors import SubnetError, listed
from ..moved import moved_names
from ..network import named_tensors, shape_differences, state_shapes
from .files import whole_file

__getattr__ = moved_names(__name__)
#: Names under which checkpoints have a state dict, mmengine's first.
_UNDER = ('state_dict', 'model', 'model_state_dict')
#: What averages of torch and mmengine count beside the weights.
_COUNTS = ('n_averaged', 'steps')


def save_weights(model: nn.Module, path: Union[str, Path]) -> None:
    """Write a network's state dict, which appears whole.

    Args:
        model (nn.Module): The subnet.
        path (str | Path): Where to, e.g. ``subnet.pth``. The file holds one
            flat dict of tensors on the CPU: ``torch.load`` takes it with
            ``weights_only=True`` and mmengine's ``load_checkpoint`` as it
            is.
    """
    with whole_file(path) as temporary:
        torch.save(
            {
                name: value.detach().cpu().clone()
                for name, value in model.state_dict().items()
                if isinstance(value, Tensor)
            }, temporary)


def read_weights(source: Union[str, Path, Mapping],
                 part: str = '') -> Dict[str, Tensor]:
    """Read a state dict.

    Args:
        source (str | Path | Mapping): A checkpoint's file or web address,
            with the state dict as it is or under ``'state_dict'`` (mmengine)
            or ``'model'``, or what such a file holds.
        part (str): Select the weights below this path and name them
            relative to it.

    Returns:
        dict[str, Tensor]: Name to tensor, without the ``module.`` that
        distributed training puts in front.

    Raises:
        SubnetError: There is no such file, it is damaged, it would run code,
            or there is no state dict in it.
    """
    state: Any = source
    if not isinstance(source, Mapping):
        load = load_url if '://' in str(source) else load_checkpoint
        try:
            state = load(str(source), map_location='cpu')
        except (OSError, RuntimeError) as error:  # each names the remedy
            raise SubnetError(str(error)) from error
    under = next((name for name in _UNDER if isinstance(state, Mapping)
                  and isinstance(state.get(name), Mapping)), None)
    state = state if under is None else state[under]
    if not isinstance(state, Mapping) or not any(
            isinstance(value, Tensor) for value in state.values()):
        entries = f', its entries are {listed(state)}' \
            if isinstance(state, Mapping) and state else ''
        raise SubnetError(
            f'{_named(source)} holds no weights as it is nor under '
            f'{listed(map(repr, _UNDER))}{entries}. Name a checkpoint of this '
            'subnet, e.g. its subnet.pth, or give the state dict itself.')
    return _below(
        part, {
            name.removeprefix('module.'): value
            for name, value in state.items() if isinstance(value, Tensor)
        })


def load_weights(model: nn.Module,
                 source: Union[str, Path, Mapping],
                 part: str = '') -> None:
    """Load weights that must be exactly those of a network, or nothing.

    Arguments and errors are those of :func:`matching_weights`.
    """
    weights = matching_weights(model, source, part)
    _leave_meta(model, weights)
    state = OrderedDict(weights)
    # Names and shapes are those of this code, so its versions are too: a file
    # of tensors does not hold them, and some modules (MNASNet) ask for theirs.
    state._metadata = model.state_dict()._metadata  # type: ignore
    # strict=False: entries that are no tensors are left out here
    model.load_state_dict(state, strict=False)


def with_weights(model: nn.Module, weights: Any) -> nn.Module:
    """Give a network other weights, such as their moving average.

    Args:
        model (nn.Module): A copy of the network, to be changed.
        weights (nn.Module | Mapping | str | Path): A network of the same
            tensors, also one inside of ``.module`` (of timm's ``ModelEmaV3``,
            torch's ``AveragedModel``, mmengine's averages), its state dict, or
            a checkpoint.

    Returns:
        nn.Module: ``model``.

    Raises:
        SubnetError: They are of another network, or not finite.
    """
    own = state_shapes(model)
    while isinstance(weights, nn.Module):
        state, inner = weights.state_dict(), getattr(weights, 'module', None)
        outer = set(state) != set(own) and isinstance(inner, nn.Module)
        weights = inner if outer else state
    found = {
        name: value
        for name, value in read_weights(weights).items()
        if name in own or name not in _COUNTS
    }
    differences = shape_differences(own, {
        name: list(value.shape)
        for name, value in found.items()
    })
    if differences:
        raise SubnetError(
            f'weights= are not those of the {type(model).__name__} that was '
            f'searched: {listed(differences, 3)}. Give the average of this '
            'very network, made while it was searched, or its state dict.')
    load_weights(model, found)
    return model


def _leave_meta(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give what is on the meta device memory on the CPU, to load into.

    Parameters that are shared stay shared.

    Raises:
        SubnetError: A buffer is on the meta device that no checkpoint holds.
    """
    meta = {n: t for n, t in named_tensors(model).items() if t.is_meta}
    lost = [name for name in meta if name not in weights]
    if lost:
        raise SubnetError(
            f'{listed(lost)} of {type(model).__name__} lie on the meta device '
            'and in no checkpoint, so that they would have no numbers: build '
            'the network on a real device.')
    made: Dict[int, Tensor] = {}
    for name, old in meta.items():
        path, _, own = name.rpartition('.')
        new = made.get(id(old))
        if new is None:
            new = torch.empty_like(old, device='cpu')
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, old.requires_grad)
            made[id(old)] = new
        setattr(model.get_submodule(path), own, new)


def matching_weights(model: nn.Module,
                     source: Union[str, Path, Mapping],
                     part: str = '',
                     origin: str = '') -> Dict[str, Tensor]:
    """Read weights that must be exactly those of a network.

    Of the checkpoint of a distillation they are the student's.

    Args:
        model (nn.Module): The built subnet.
        source, part: See :func:`read_weights`, also for what is returned.
        origin (str): Where ``source`` comes from, for the message.

    Raises:
        SubnetError: A name or shape differs.
    """
    own, weights = state_shapes(model), read_weights(source)
    if not student_prefix(own):
        weights = _below(student_prefix(weights), weights)
    weights = _below(part, weights)
    differences = shape_differences(own, {
        name: list(value.shape)
        for name, value in weights.items()
    })
    if differences:
        raise SubnetError(
            f'{origin or _named(source)} is not of this '
            f'{type(model).__name__}: {listed(differences, 3)}. Name a '
            'checkpoint of this very subnet: its subnet.pth, or one of its '
            'training.')
    _check_numbers(model, weights, origin or _named(source))
    return weights


def _check_numbers(model: nn.Module, weights: Mapping[str, Tensor],
                   origin: str) -> None:
    """Refuse weights that a network cannot take, or that are NaN.

    Raises:
        SubnetError: Some are; they are named.
    """
    learnt, wrong = dict(model.named_parameters(remove_duplicate=False)), []
    for name, own in model.state_dict().items():
        if not isinstance(own, Tensor):
            continue
        value, learns = weights[name], name in learnt
        numbers = learns or name.endswith(('.running_mean', '.running_var'))
        if (value.layout != torch.strided or value.is_meta
                or value.is_quantized
                or value.is_complex() != own.is_complex() or
            (learns and value.is_floating_point() != own.is_floating_point())
                or (numbers and not torch.isfinite(value).all())):
            wrong.append(name)
    if wrong:
        raise SubnetError(
            f'{origin}: {listed(wrong)} hold numbers that are NaN, infinite '
            'or of another kind than the network has. Name a checkpoint from '
            'before the training diverged, or copy the file again.')


def student_prefix(names: Iterable[str]) -> str:
    """What stands before the student's names in a distillation's checkpoint.

    Args:
        names (Iterable[str]): Names of a state dict.

    Returns:
        str: ``'architecture.'``, MMRazor's name of the student beside a
        ``teacher``; empty where there are not both.
    """
    parts = {name.partition('.')[0] for name in names}
    return 'architecture.' if {'architecture', 'teacher'} <= parts else ''


def _below(part: str, weights: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """The weights of a part, named relative to it; of '' all."""
    prefix = part.rstrip('.') + '.' if part else ''
    return {
        name[len(prefix):]: value
        for name, value in weights.items() if name.startswith(prefix)
    }


def _named(source: Any) -> str:
    if isinstance(source, Mapping):
        return 'The state dict'
    return f'Checkpoint {str(source)!r}'
