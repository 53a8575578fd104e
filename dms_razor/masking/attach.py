# Copyright (c) dms_razor contributors. All rights reserved.
"""Puts masks into a network by name, and takes them out again."""
import weakref
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Set, Union

import torch
from torch import Tensor, nn

from ..adapters.low_rank import is_adapted, masked_parts
from ..adapters.quantised import (hold_packing, is_quantised_linear,
                                  packed_weights, release_packing)
from ..core.bank import Bank
from ..core.budget import AUTO
from ..network import refuse_no_network
from ..space import MaskSite, NormSite, Space
from .experts import SoftmaxInterceptor
from .input_mask import InputMask
from .layers import OWN, LayerMasks, MaskedLayer, masked_type
from .masks import Cuts, Masks, MaskSource
from .norms import is_plain_layer_norm
from .together import Together, detach


class MaskReader:
    """What masked layers read, with a note of which of them did.

    Args:
        source (Bank | Callable): A bank, or what returns the flat masks
            ``[E]``, or None for "no masks": the layers then use their own
            weights.
        cuts (Cuts): Where they are cut.
        model (nn.Module): The network.

    Attributes:
        source (Callable): Returns the flat masks.
        follow (Callable, optional): Moves the bank to another device.
        read (set[str]): Paths of the layers that have read since
            :meth:`reset`.
        shapes (dict[str, torch.Size]): Of the network's parameters.
    """

    def __init__(self, source: Union[Bank, Callable[[], Optional[Tensor]]],
                 cuts: Cuts, model: nn.Module) -> None:
        self.follow = source.to if isinstance(source, Bank) else None
        self.source = (lambda: source.current) if self.follow else source
        self.cut = MaskSource(lambda: self.source(), cuts)
        self.read: Set[str] = set()
        packed = packed_weights(model)
        self.shapes = {
            name: p.shape
            for name, p in model.named_parameters() if id(p) not in packed
        }

    def of(self, path: str) -> Optional[Masks]:
        """The masks, read by the layer at ``path``."""
        self.read.add(path)
        return self.cut()

    def check(self, model: nn.Module) -> None:
        """Refuse a network whose layers were replaced by others since.

        New parameters and those of another name, such as LoRA's, are none of
        them.

        Raises:
            ValueError: Parameters have other shapes.
        """
        other = [
            f'{name} {tuple(self.shapes[name])}, now {tuple(weight.shape)}'
            for name, weight in model.named_parameters()
            if self.shapes.get(name, weight.shape) != weight.shape
        ]
        if other:
            raise ValueError(
                'the network has changed since its search was made: '
                f'{"; ".join(other[:3])}. Replace layers (a new head, say) '
                'first, then make the search of the network as it is to be')

    def reset(self) -> None:
        """Forget which layers have read."""
        self.read.clear()

    def unread_units(self, space: Space) -> List[str]:
        """Units whose masks no layer has read since :meth:`reset`.

        Empty after a forward pass; otherwise the names of units whose ratios
        would move without any effect on the network.
        """
        element_of = space.layout.unit_of_element
        read = torch.zeros(space.layout.U, dtype=torch.bool)
        for site in space.mask_sites:
            if site.module in self.read:
                read[element_of[site.index[site.index >= 0]]] = True
        for site in space.norm_sites:
            # All other norms stand beside layers that read the same masks.
            if site.op == 'softmax' and site.module in self.read:
                read[element_of[site.index[site.index >= 0]]] = True
        for block in space.blocks:
            if any(tail.module in self.read for tail in block.tails):
                read[element_of[block.element]] = True
        return [
            unit.name for unit, seen in zip(space.layout.units, read)
            if not seen
        ]


def _mask(model: nn.Module, path: str, layer: nn.Module,
          masks: LayerMasks) -> None:
    """Let one layer read masks; if it cannot, none of the model does."""
    try:
        layer.__class__ = masked_type(layer, masks.names, masks.early)
    except TypeError as error:  # a class made in another way than by Python
        unmask(model)
        raise RuntimeError(
            f'the layer "{path}" cannot be masked ({error}). Declare its '
            'units fixed.') from error
    masks.owner = weakref.ref(layer)
    object.__setattr__(layer, '_dms_masks', masks)
    object.__setattr__(layer, '_dms_shown', None)


def _add_site(site: MaskSite, own: LayerMasks, cuts: Cuts) -> None:
    """Let a layer's parameter read masks."""
    own.inputs.setdefault(site.tensor, []).append(
        InputMask(site.axis, site.index, site.groups, cuts))
    own.early |= site.how == 'early'
    if site.how == 'statistics':
        own.computed.add(site.tensor)


def _add_norm(site: NormSite, own: LayerMasks, cuts: Cuts,
              modules: Dict[str, nn.Module]) -> None:
    """Let a norm, or the softmax of a router, read masks."""
    own.norm = InputMask(0, site.index, 1, cuts)
    if site.op == 'softmax':
        own.intercept = SoftmaxInterceptor
    else:
        own.plain_norm = is_plain_layer_norm(modules[site.module])


def is_masked(model: nn.Module, space: Space) -> bool:
    """Whether all layers that read masks are there as they were masked.

    They are not where something has replaced them or has been put around
    them, such as the adapters of LoRA.

    Args:
        model (nn.Module): The network of ``space``.
        space (Space): Where masks act.
    """
    modules = dict(model.named_modules())
    return all(
        isinstance(modules.get(path), MaskedLayer)
        for site in (*space.mask_sites, *space.norm_sites)
        for path in masked_parts(modules, site.module))


def _hook(module: nn.Module, hook: Callable) -> None:
    """Hook a module; :func:`unmask` finds it again."""
    handle = module.register_forward_hook(hook)
    object.__setattr__(module, '_dms_hook', handle.id)


def _rows_of(site: MaskSite, cuts: Cuts, reader: MaskReader) -> Callable:
    """Forward hook: masks the result of a layer whose weight is packed, in
    the place of the rows of its weight and its bias."""
    mask = InputMask(0, site.index, 1, cuts)

    def hook(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        masks = reader.of(site.module)
        return out if masks is None else out * mask.vector(masks.at(out)).to(
            out.dtype)

    return hook


#: Of what PyTorch's encoder runs as one operation in eval mode -> what keeps
#: it from doing so. (Of hooks, which do, too, PyTorch 2.1 takes no notice.)
_WAYS_OUT = {
    nn.TransformerEncoderLayer: ('activation_relu_or_gelu', 0),
    nn.TransformerEncoder: ('use_nested_tensor', False),
}


def _hold_to_masks(path: str, module: nn.Module,
                   layers: Dict[str, LayerMasks]) -> None:
    """Let torch run a module with masked layers as it is written.

    It would run its encoder layers in eval mode as one operation, on their
    bare weights, and their stack would get them nested tensors of what is
    padded, which then can run in no other way.
    """
    start = f'{path}.' if path else ''
    if not any(layer.startswith(start) for layer in layers):
        return
    for kind, (name, value) in _WAYS_OUT.items():
        if isinstance(module, kind) and hasattr(module, name):
            object.__setattr__(module, '_dms_ways',
                               {name: getattr(module, name)})
            setattr(module, name, value)


def _register(modules: Dict[str, nn.Module], layers: Dict[str, LayerMasks],
              hooks: Dict[str, Callable]) -> None:
    """Put hooks into modules, and keep them all as they are to be run."""
    for path, module in modules.items():
        hold_packing(module)
        _hold_to_masks(path, module, layers)
    for path, hook in hooks.items():
        _hook(modules[path], hook)


def attach(model: nn.Module, space: Space,
           source: Union[Bank, Callable[[], Optional[Tensor]]]) -> MaskReader:
    """Let the layers of ``model`` read masks.

    What is attached is taken out first: call it again when modules have been
    replaced, e.g. by SyncBN conversion, or other layers put around them.

    Args:
        model (nn.Module): The network of ``space``, or a copy of it.
        space (Space): Where masks act.
        source (Bank | Callable): A bank, which from then on goes where the
            network goes; or what returns the flat masks ``[E]`` or None.

    Returns:
        MaskReader: Tells which layers have read their masks.

    Raises:
        RuntimeError: A module of the space is not in the model.
    """
    unmask(model)
    cuts = Cuts(space.layout)
    reader = MaskReader(source, cuts, model)
    modules = dict(model.named_modules())
    layers: Dict[str, LayerMasks] = {}
    hooked: Dict[str, LayerMasks] = {}
    hooks: Dict[str, Callable] = {}

    def masks_of(path: str,
                 own: Dict[str, LayerMasks],
                 name: Optional[str] = None) -> LayerMasks:
        if path not in modules:
            raise RuntimeError(
                f'the search space names the layer "{path}", which this '
                f'{type(model).__name__} does not have. Trace the model anew '
                'after changing it.')
        read = partial(reader.of, name or path)
        return own.setdefault(path, LayerMasks(read, follow=reader.follow))

    for site in space.mask_sites:
        for path in masked_parts(modules, site.module, site.axis):
            if site.axis == 0 and is_quantised_linear(modules.get(path)):
                hooks[path] = _rows_of(site, cuts, reader)
            else:
                _add_site(site, masks_of(path, layers, site.module), cuts)
        for path in site.readers:
            start = len(path) + 1 if path else 0
            masks_of(path, layers).lends.add(site.module[start:])
    for site in space.norm_sites:
        _add_norm(site, masks_of(site.module, layers), cuts, modules)
    for block in space.blocks:
        for tail in block.tails:
            fold = tail.fold and not is_adapted(modules.get(tail.module))
            masks_of(tail.module,
                     layers if fold else hooked).scales.append(block.element)
    for path, masks in layers.items():
        _mask(model, path, modules[path], masks)
    hooks.update((path, own.scale_output) for path, own in hooked.items())
    _register(modules, layers, hooks)
    Together(model, lambda: reader.source()).attach()
    return reader


def unmask(model: nn.Module) -> nn.Module:
    """Take all masks out of ``model``: every layer is what it was before.

    Args:
        model (nn.Module): A network, masked or not; also a deep copy of one.

    Returns:
        nn.Module: The same network.
    """
    for module in model.modules():
        if isinstance(module, MaskedLayer):
            bases = type(module).__mro__
            module.__class__ = bases[bases.index(MaskedLayer) + 1]
        for name in OWN:
            module.__dict__.pop(name, None)
        release_packing(module)
        vars(module).update(module.__dict__.pop('_dms_ways', {}))
        hook = module.__dict__.pop('_dms_hook', None)
        if hook is not None:
            module._forward_hooks.pop(hook, None)
        detach(module)
    return model


def refuse_masked(model: nn.Module) -> None:
    """Raise ValueError if a search has masks in ``model`` already.

    TypeError if it is no network at all.
    """
    refuse_no_network(model, 'a search')
    for name, module in model.named_modules():
        if isinstance(module, MaskedLayer):
            raise ValueError(
                f'the layer "{name}" already has the masks of a search. '
                'close() that search first, or search a copy of the network '
                'that was made before it.')


def make_bank(model: nn.Module,
              space: Space,
              bank: Optional[Bank] = None,
              loss_weight: Union[float, str] = AUTO,
              **settings: Any) -> Bank:
    """The bank of a space, on the device of the model.

    Args:
        model (nn.Module): The supernet.
        space (Space): Its space.
        bank (Bank, optional): A bank of this space, instead of a new one.
        loss_weight (float | str): λ_res. With 'auto' so is ``lr``, by default.
        **settings: ``importance``, ``decay``, ``selector``, ``lr``, ``seed``;
            see :class:`~dms_razor.core.bank.Bank`.

    Raises:
        ValueError: The bank is one of other units, or ``lr`` is 'auto' with a
            weight that is a number.
    """
    if bank is not None:
        if bank.layout != space.layout:
            raise ValueError('the bank is one of other units than those of '
                             'this network; make it of space.layout')
        return bank
    weight = next((p for p in model.parameters() if p.is_floating_point()),
                  torch.zeros(()))
    # Low precision is for activations: masks stay in float32 at least.
    dtype = torch.promote_types(weight.dtype, torch.float32)
    settings = {**(dict(lr=AUTO) if loss_weight == AUTO else {}), **settings}
    if settings.get('lr') == AUTO and loss_weight != AUTO:
        raise ValueError(
            f"lr='auto' beside a loss_weight of {loss_weight}: such steps go "
            "by the task's gradient, and carry the resource loss far past its "
            "target; leave both at 'auto' or give both as numbers")
    # On the meta device nothing could be learnt; a plan is made there.
    device = 'cpu' if weight.is_meta else weight.device
    return Bank(space.layout, dtype=dtype, **settings).to(device)
