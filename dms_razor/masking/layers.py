# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers whose weights are multiplied by masks while they run.

``conv(W, x * m) = conv(W * m, x)``: masking the weight instead of the
activation is exact, costs O(weights) instead of O(activations) and keeps no
activation for the backward pass (METHOD section 2).

Where the weight of a linear layer rests (``requires_grad=False``, as beneath
LoRA) it is the other way round: the product of mask and weight would have to
be kept, and its gradient, as large as the weight, be worked out. The layer's
input is masked there; nothing is kept of it but the input. Quantised weights
(:mod:`dms_razor.adapters.quantised`) always rest.

A layer is masked by giving the very same object a subclass of its own class,
as :mod:`torch.nn.utils.parametrize` does. Its parameters keep their names and
identity, so optimizers, checkpoints, ``isinstance`` rules, EMA and SyncBN
conversion see an ordinary layer; only during its own ``forward`` do
``weight`` and ``bias`` read as the masked tensors.
"""
import copy
import functools
import warnings
from dataclasses import dataclass, field
from typing import (Any, Callable, ContextManager, Dict, List, Optional, Set,
                    Tuple)

import torch
from torch import Tensor, nn

from ..adapters.quantised import is_quantised_linear
from ..adapters.registry import remake
from ..network.compiling import compiling
from .input_mask import InputMask
from .inputs import masked_input
from .masks import Masks
from .norms import NormInterceptor, masked_layer_norm
from .weights import WeightInterceptor

#: What a masked layer has beside its own attributes.
OWN = ('_dms_masks', '_dms_shown')
#: Parameters that scale a layer's result: those a block's mask multiplies.
SCALED = ('weight', 'bias')


def _no_masks() -> None:
    """What a layer reads whose search is elsewhere."""


@dataclass(eq=False)
class LayerMasks:
    """All masks of one layer.

    Attributes:
        read (Callable): Returns the masks, or None: the bank's reader.
        inputs (dict[str, list[InputMask]]): Parameter name -> its masks.
        norm (InputMask): Masks of the channels that a norm mixes.
        plain_norm (bool): Whether all that the norm does is to call
            PyTorch's layer norm.
        intercept (Callable): What lets it read them: of a norm, or a router.
        scales (list[int]): Elements whose masks scale the layer's result:
            residual blocks that end here.
        computed (set[str]): Parameters of which the layer computes its weight:
            what it computes reads the masks.
        early (bool): Hooks before the layer's forward are shown masked
            parameters too.
        lends (set[str]): Paths of modules inside the layer whose parameters
            it reads itself: they are masked while it runs.
        follow (Callable, optional): Told the device when the layer itself,
            not a copy of it, was moved.
        owner (Callable, optional): Returns that layer, a weak reference.
        ready (optional): What it is to see in this pass, :mod:`.together`.
    """
    read: Callable[[], Optional[Masks]]
    inputs: Dict[str, List[InputMask]] = field(default_factory=dict)
    scales: List[int] = field(default_factory=list)
    norm: Optional[InputMask] = None
    plain_norm: bool = False
    intercept: Callable[[Tensor], ContextManager] = NormInterceptor
    computed: Set[str] = field(default_factory=set)
    early: bool = False
    lends: Set[str] = field(default_factory=set)
    follow: Optional[Callable[[torch.device], Any]] = None
    owner: Callable[[], Optional[nn.Module]] = _no_masks
    ready: Optional[Any] = None

    def moved(self, layer: nn.Module) -> None:
        """After a layer was given another device or type."""
        own = next((p for p in layer._parameters.values() if p is not None),
                   None)
        if self.follow and own is not None and self.owner() is layer \
                and not own.is_meta:
            self.follow(own.device)

    def made_for(self, layer: nn.Module) -> Optional[tuple]:
        """What a layer is to see, if it was made at the pass's beginning:
        parameters by name, and the masks that its norm reads."""
        if self.ready is None or compiling():
            return None
        # Taken before it is looked at: another thread may begin a pass.
        masks, made = self.read(), self.ready.made
        fits = masks is not None and self.ready.fits(layer, masks.flat)
        return made if fits else None

    def masks_at(self, *tensors: Optional[Tensor]) -> Optional[Masks]:
        """The masks, where the first tensor is; None for "no masks"."""
        masks = self.read()
        there = next((x for x in tensors if x is not None), None)
        return masks if masks is None or there is None else masks.at(there)

    @property
    def names(self) -> Tuple[str, ...]:
        """Parameters that are shown masked."""
        scaled = SCALED if self.scales else ()
        shown = (name for name in self.inputs if name not in self.computed)
        return tuple(dict.fromkeys((*scaled, *shown)))

    def __deepcopy__(self, memo: dict) -> 'LayerMasks':
        # A copy of the network (EMA keeps one) reads the same bank.
        return self

    def __reduce__(self) -> tuple:
        # A file of the network has no bank: what is left of a hook does
        # nothing there.
        return LayerMasks, (_no_masks, )

    def at_input(self, layer: nn.Module) -> bool:
        """Whether a layer's input is masked instead of its weight.

        Masks along the rows, as of the dims of heads, are none of its input.
        """
        if self.early or self.computed:
            return False
        weight = layer._parameters.get('weight')
        return (weight is not None and not weight.requires_grad
                and (is_plain_linear(layer) or is_quantised_linear(layer))
                and all(mask.axis == 1
                        for mask in self.inputs.get('weight', ())))

    def masked_input(self, args: tuple, kwargs: dict) -> Tuple[tuple, dict]:
        """Arguments of a layer, the first of them masked, and scaled."""
        own = self.inputs.get('weight', ())
        if not (own or self.scales):
            return args, kwargs
        masks = self.masks_at(args[0] if args else next(iter(kwargs.values())))
        if masks is None:
            return args, kwargs
        factors = [mask.vector(masks) for mask in own]
        if self.scales:
            factors.append(masks.product(self.scales))
        factor = functools.reduce(torch.mul, factors)
        if args:
            x = masked_input(args[0], factor.to(args[0].dtype))
            return (x, *args[1:]), kwargs
        name, x = next(iter(kwargs.items()))
        return args, {**kwargs, name: masked_input(x, factor.to(x.dtype))}

    def show(self,
             parameters: Dict[str, Any],
             at_input: bool = False) -> Optional[Dict[str, Tensor]]:
        """The tensors that the layer is to see, None for its own ones.

        Args:
            parameters (dict): Its own.
            at_input (bool): Whether its input is masked, and its weight not.
        """
        masks = self.masks_at(*parameters.values())
        if masks is None:
            return None
        shown = {}
        scale = masks.product(self.scales) if self.scales else None
        for name in self.names:
            if at_input and name == 'weight':
                continue
            tensor = parameters.get(name)
            if tensor is not None:
                # One pass over it: the scale goes with the first mask.
                rest = scale if name in SCALED else None
                for mask in self.inputs.get(name, ()):
                    tensor, rest = mask(tensor, masks, rest), None
                shown[name] = tensor if rest is None else \
                    tensor * rest.to(tensor.dtype)
        return shown

    def scale_output(self, module: nn.Module, args: tuple, out: Any) -> Any:
        """Forward hook: the layer's result times its blocks' masks.

        Of a tuple, such as that of ``nn.MultiheadAttention``, the first.
        """
        if isinstance(out, tuple):
            return (self.scale_output(module, args, out[0]), *out[1:])
        masks = self.masks_at(out)
        if masks is None:
            return out
        for element in self.scales:
            out = out * masks.run(element, 1).to(out.dtype)
        return out

    def interceptor(self, parameters: Dict[str,
                                           Any]) -> Optional[ContextManager]:
        """Lets a norm, or what computes a weight, read masks."""
        if self.norm is None and not self.computed:
            return None
        masks = self.masks_at(*parameters.values())
        if masks is None:
            return None
        if self.norm is not None:
            return self.intercept(self.norm.vector(masks))
        return WeightInterceptor([(parameters[name], masks, self.inputs[name])
                                  for name in self.computed])


class MaskedLayer:
    """Mixin in front of a layer's own class; see the module's docstring."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own forward on its masked parameters."""
        masks = self._dms_masks
        made = masks.made_for(self)
        if made is not None:
            return self._dms_forward(*made, args, kwargs)
        at_input = masks.at_input(self)
        if at_input:
            args, kwargs = masks.masked_input(args, kwargs)
        # No generators as contexts here: torch.compile cannot read them.
        before = _show(self, at_input)
        try:
            interceptor = masks.interceptor(self._parameters)
            if interceptor is None:
                return super().forward(*args, **kwargs)
            with interceptor:
                return super().forward(*args, **kwargs)
        finally:
            _put_back(before)

    def _dms_forward(self, shown: Dict[str, Tensor], norm: Optional[Tensor],
                     args: tuple, kwargs: dict) -> Any:
        before = self._dms_shown
        object.__setattr__(self, '_dms_shown', shown)
        try:
            if norm is None:
                return super().forward(*args, **kwargs)
            if self._dms_masks.plain_norm and len(args) == 1 and not kwargs:
                # Sparing what a mode takes, some 15 us.
                return masked_layer_norm(args[0], norm, self.weight, self.bias,
                                         self.eps, True)
            with self._dms_masks.intercept(norm):
                return super().forward(*args, **kwargs)
        finally:
            object.__setattr__(self, '_dms_shown', before)

    def _apply(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Where the layer goes its masks go."""
        moved = super()._apply(*args, **kwargs)
        self._dms_masks.moved(self)
        return moved

    def __deepcopy__(self, memo: dict) -> nn.Module:
        """A copy in memory reads the same masks."""
        own = getattr(super(), '__deepcopy__', None)
        return own(memo) if own else copy._reconstruct(
            self, memo,
            *super().__reduce_ex__(4))

    def __reduce_ex__(self, protocol: int) -> tuple:
        """What ``torch.save(model)`` writes: the layer without its masks,
        which are the search's."""
        warnings.warn(
            'the network that is saved here is being searched: the file holds '
            'the whole supernet without masks. Save search.state_dict() '
            'beside its weights to go on, or search.export() the subnet.',
            stacklevel=2)
        mro, state = type(self).__mro__, super().__reduce_ex__(protocol)[2]
        plain = mro[mro.index(MaskedLayer) + 1]
        # Not the usual __newobj__, which insists on the object's own class.
        return (*remake(plain), {
            name: value
            for name, value in state.items() if name not in OWN
        })

    def _dms_parameter(self, name: str) -> Optional[Tensor]:
        shown = self.__dict__.get('_dms_shown')
        if shown is not None and name in shown:
            return shown[name]
        if name not in self._parameters:  # e.g. reparametrised since
            raise AttributeError(
                f"'{type(self).__name__}' has no parameter '{name}'")
        return self._parameters[name]


class EarlyMaskedLayer(MaskedLayer):
    """One whose weight a hook computes before the forward."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The hooks, too, are shown the masked parameters."""
        before = _show(self)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            _put_back(before)


Shown = Tuple[nn.Module, Optional[Dict[str, Tensor]]]


def _show(layer: MaskedLayer, at_input: bool = False) -> List[Shown]:
    """Mask a layer, and those that it reads from; returns what they showed.
    """
    before = []
    for one in (layer,
                *map(layer.get_submodule, sorted(layer._dms_masks.lends))):
        before.append((one, one._dms_shown))
        object.__setattr__(
            one, '_dms_shown',
            one._dms_masks.show(one._parameters, at_input and one is layer))
    return before


def _put_back(before: List[Shown]) -> None:
    """Let layers show what they showed before."""
    for one, shown in before:
        object.__setattr__(one, '_dms_shown', shown)


def is_plain_linear(layer: nn.Module) -> bool:
    """Whether a layer is ``x @ weight.T + bias`` and nothing else."""
    kind = type(layer)
    if isinstance(layer, MaskedLayer):
        kind = kind.__mro__[kind.__mro__.index(MaskedLayer) + 1]
    return kind.forward is nn.Linear.forward


def _flat_weights(layer: nn.RNNBase) -> List[Tensor]:
    """The parameters of a recurrent layer, as they are shown now."""
    return [getattr(layer, name) for name in layer._flat_weights_names]


def _set_flat_weights(layer: nn.RNNBase, weights: List[Tensor]) -> None:
    """What PyTorch keeps, for the time when masks are gone."""
    layer.__dict__['_flat_weights'] = weights


_TYPES: Dict[tuple, type] = {}


def masked_type(layer: nn.Module,
                names: Tuple[str, ...],
                early: bool = False) -> type:
    """The masked subclass of a layer's class, made once and cached.

    Args:
        layer (nn.Module): The layer.
        names (tuple[str]): Parameters that it is to show masked.
        early (bool): Whether hooks before its forward see them.
    """
    key, mixin = (type(layer), names, early), \
        EarlyMaskedLayer if early else MaskedLayer
    if key not in _TYPES:
        body: Dict[str, Any] = {
            name:
            property(functools.partial(MaskedLayer._dms_parameter, name=name))
            for name in names
        }
        if isinstance(layer, nn.RNNBase):
            # What it reads its parameters from.
            body['_flat_weights'] = property(_flat_weights, _set_flat_weights)
        body['__module__'] = type(layer).__module__
        _TYPES[key] = type(f'Masked{type(layer).__name__}',
                           (mixin, type(layer)), body)
    return _TYPES[key]
