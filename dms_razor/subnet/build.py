# Copyright (c) dms_razor contributors. All rights reserved.
"""Build a subnet from the standard network and a manifest, without tracing.

The standard network is built at full size, checked against the manifest, and
shrunk in place. Nothing is cut silently: any disagreement between network,
manifest and weights is an error that names what differs.
"""
import copy
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Union

import torch
from torch import nn

from ..adapters.registry import make_slim
from ..counting import Count, count_macs, count_params
from ..errors import SubnetError, listed
from ..network import (fingerprint, make_inputs, named_tensors,
                       refuse_no_network, refuse_wrapped, shape_differences,
                       state_shapes, tensors_of)
from .manifest import Manifest, joined
from .restore import unchanged_on_failure
from .slicing import get_width, memory_format, replace_by_identity, set_width
from .weights import load_weights


def build_subnet(model: nn.Module,
                 subnet: Union[str, Path, Manifest],
                 weights: Union[None, str, Path, Mapping] = None,
                 *,
                 part: str = '',
                 init: Optional[Callable[[nn.Module], Any]] = None,
                 forward: Optional[Callable] = None) -> nn.Module:
    """Shrink the standard network to a subnet.

    Args:
        model (nn.Module): The supernet as its author's code builds it; it is
            shrunk in place.
        subnet (str | Path | Manifest): The subnet.json of an export.
        weights (str | Path | Mapping, optional): A checkpoint of the subnet,
            e.g. the subnet.pth beside the manifest, or a state dict. Without
            it the network starts from scratch: see :func:`apply_manifest`.
        part (str): Build only this part of the subnet, e.g. ``'backbone'``;
            ``model`` is then that part of the supernet.
        init (callable, optional): ``init(model)`` initialises the shrunk
            network; for networks whose author does so after construction.
        forward (callable, optional): ``forward(model, *inputs)`` when the
            network is not simply called; the MACs are counted with it.

    Returns:
        nn.Module: ``model``, shrunk.

    Raises:
        SubnetError: Manifest, network or weights do not belong together, or
            the network does not cost what the manifest says. It is as it was
            then, after any error.
        TypeError: ``model`` is no network, such as its class.
        ValueError: Both ``weights`` and ``init`` are given, or the network is
            wrapped, e.g. in ``DataParallel``.
    """
    if not isinstance(subnet, Manifest):
        subnet = Manifest.load(subnet)
    manifest = subnet.part(part)
    if init is not None and weights is not None:
        raise ValueError('init would be overwritten by the weights. Pass one '
                         'of the two.')
    refuse_no_network(model, 'build_subnet')
    refuse_wrapped(model)
    check_supernet(model, manifest)
    with unchanged_on_failure(model):
        _shrink(model, manifest, init, weights is None)
        if weights is not None:
            load_weights(model, weights, part)
        check_cost(model, manifest, forward)
    return model


def apply_manifest(model: nn.Module,
                   manifest: Manifest,
                   *,
                   init: Optional[Callable[[nn.Module], Any]] = None,
                   reset: bool = True) -> None:
    """Shrink a network in place to the shapes of a manifest.

    With ``reset``, layers whose weights shrank are initialised anew by their
    own ``reset_parameters``, since the usual spread of the values depends on
    the width. Tensors that are one value per channel (norms, layer scales,
    biases alone) and modules that cannot reset themselves keep their first
    entries.

    Args:
        model (nn.Module): The supernet, plain.
        manifest (Manifest): The subnet.
        init (callable, optional): Called with the shrunk network at the end.
        reset (bool): Whether shrunken layers are initialised anew.

    Raises:
        SubnetError: ``model`` is not the manifest's supernet. It is as it was
            then.
    """
    check_supernet(model, manifest)
    with unchanged_on_failure(model):
        _shrink(model, manifest, init, reset)


def _shrink(model: nn.Module, manifest: Manifest, init: Optional[Callable],
            reset: bool) -> None:
    """See :func:`apply_manifest`, of a network that was checked."""
    _check_paths(model, manifest)
    replace_by_identity(model, manifest.removed, manifest.stand_ins)
    shapes, shrunk = manifest.shapes, set()
    for name, tensor in named_tensors(model).items():
        shape = shapes.get(name, tensor.shape)
        if len(shape) == tensor.dim() and list(shape) != list(tensor.shape):
            shrunk.add(name)
            # .data keeps the Parameter object, also for those who share it
            part = tensor.data[tuple(map(slice, shape))]
            tensor.data = part.clone(memory_format=memory_format(tensor))
    for path, module in manifest.modules.items():
        part = model.get_submodule(path)
        if 'slim' in module:
            try:
                make_slim(part, module['slim'])
            except ValueError as error:
                raise SubnetError(str(error)) from error
        for name, width in module['attributes'].items():
            if not 0 <= width <= get_width(part, path, name):
                raise SubnetError(
                    f'{name} of {path!r} is {width} in the manifest and '
                    f'{get_width(part, path, name)} in the supernet, which '
                    'is less. The manifest is inconsistent: export the '
                    'subnet again.')
            set_width(part, path, name, width)
    found = state_shapes(model)
    differences = shape_differences(
        {
            name: shape
            for name, shape in shapes.items() if name in found
        }, found)
    if differences:
        raise SubnetError(
            f'{type(model).__name__} was shrunk by its manifest, but '
            f'{listed(differences)}. The manifest is inconsistent: export '
            'the subnet again.')
    for path, module in model.named_modules() if reset else ():
        again = getattr(module, 'reset_parameters',
                        getattr(module, '_reset_parameters', None))
        if again is not None and any(
                parameter.dim() > 1 and joined(path, name) in shrunk
                for name, parameter in module.named_parameters(recurse=False)):
            again()
    if init is not None:
        init(model)


def _check_paths(model: nn.Module, manifest: Manifest) -> None:
    """Refuse modules that a network has not got."""
    there = {path for path, _ in model.named_modules(remove_duplicate=False)}
    lost = [
        path for path in (*manifest.modules, *manifest.removed)
        if path not in there
    ]
    if lost:
        raise SubnetError(
            f'{type(model).__name__} has no module {listed(lost)}, '
            'of which its manifest speaks. Build it from the config of the '
            'supernet that was searched.')


def check_supernet(model: nn.Module, manifest: Manifest) -> None:
    """Refuse a network that is not the supernet of a manifest.

    Raises:
        SubnetError: Its tensors have other names or shapes.
    """
    found = state_shapes(model)
    if fingerprint(found) != manifest.model['fingerprint']:
        differences = shape_differences(manifest.model['tensors'], found)
        raise SubnetError(
            f'{type(model).__name__} is not the network that this subnet was '
            f'cut from ({manifest.model["type"]}): {listed(differences, 3)}. '
            'Build it from the config of the supernet that was searched.')


def check_cost(model: nn.Module,
               manifest: Manifest,
               forward: Optional[Callable] = None) -> None:
    """Refuse a built subnet that does not cost what its manifest says.

    Shapes say nothing of strides and input sizes; MACs do. Of a part,
    ``manifest`` is the part's; ``forward`` is that of :func:`build_subnet`.

    Raises:
        SubnetError: MACs or parameters differ.
    """
    params = count_params(model)
    expected = manifest.params.get('counted', params)
    if params != expected:
        raise SubnetError(
            f'The built {type(model).__name__} has {params:,} parameters, '
            f'its manifest says {expected:,}. Parameters are shared '
            'differently: build the network that was searched.')
    if 'counted' not in manifest.macs:
        return
    count = _count(model, manifest, forward)
    expected = manifest.macs['counted'] * manifest.macs.get('samples', 1)
    if count.macs != expected:
        layers = [
            f'{path or "(itself)"}: {count.by_module.get(path, 0):,} instead '
            f'of {module["macs"]:,}'
            for path, module in manifest.modules.items()
            if count.by_module.get(path, 0) != module['macs']
        ]
        raise SubnetError(
            f'The built {type(model).__name__} takes {count.macs:,} MACs, its '
            f'manifest says {expected:,} ({listed(layers, 3)}). '
            'Strides or the like differ: build it from the config of the '
            'supernet that was searched.')


def _count(model: nn.Module, manifest: Manifest,
           forward: Optional[Callable]) -> Count:
    """MACs on the manifest's inputs, as the network is or else as a copy.

    A network in half precision does not take the inputs that were traced, and
    one on the meta device may have to look at numbers: a copy of it in the
    inputs' own precision, on a real device, costs the same.
    """
    try:
        return count_macs(model, make_inputs(manifest.inputs, model), forward)
    except SubnetError:
        inputs = make_inputs(manifest.inputs, model)
        floating = [t for t in tensors_of(inputs) if t.is_floating_point()]
        dtype = floating[0].dtype if floating else torch.float32
        own = [t for t in model.parameters() if t.is_floating_point()]
        if all(t.dtype == dtype and not t.is_meta for t in own):
            raise
        twin = copy.deepcopy(model)
        if any(t.is_meta for t in own):
            twin.to_empty(device='cpu')
            with torch.no_grad():
                for tensor in named_tensors(twin).values():
                    tensor.zero_()
        twin.to(dtype)
        return count_macs(twin, make_inputs(manifest.inputs, twin), forward)
