# Copyright (c) dms_razor contributors. All rights reserved.
"""The masked weights of all layers of a forward pass, made at its beginning.

A small operation on a GPU takes as long to be asked for as a convolution, and
a masked layer asks for some ten of them, forward and backward. Made together,
at the beginning of the network's forward, all products of weights and masks
are one kernel, and so are their gradients; under autocast they are in its
type at once, as the layers would cast them.

On a CPU a loop spares passes over memory.

What cannot be made so, each layer does for itself (:mod:`.layers`): where
there is no Triton (on a GPU) or no Numba (on a CPU), in networks of more than
:data:`MOST` such weights, whose products should not all be there at once, or
of so few that nothing is gained on a CPU, and layers that are called outside
of the network's own forward, or under another autocast, or whose weights have
changed since it began. A change that autograd is not told of, in the memory
of ``weight.data``, is seen in the next pass.
"""
import contextlib
import weakref
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..network.compiling import compiling
from .layers import LayerMasks, MaskedLayer
from .memory import recorded
from .products import Chosen, Group, Vectors, entries_of
from .sharded import is_sharded

try:
    from . import fused_weights
except ImportError:  # PyTorch was built without Triton
    fused_weights = None
try:
    from . import compiled_weights
    from .compiled import worth_it
except ImportError:  # there is no Numba
    compiled_weights = None

#: The most weights that are masked together.
MOST = 2**26
#: About so many are masked by one node of autograd: gradients of its weights
#: are there all at once, and several ranks send them in pieces like that.
PIECE = 2**23
#: Types of weights that operations of PyTorch multiply.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Layers of these forwards cast their parameters under autocast.
CAST = (nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward,
        nn.Conv3d.forward)


@dataclass(eq=False)
class Ready:
    """What a layer is shown in a pass.

    Attributes:
        layer (Callable): Returns the layer, a weak reference.
        parameters (dict[str, Tensor]): Those that are shown masked.
        home (Together): What made it.
        made (tuple, optional): What is shown in their places, by name, and
            the masks of the channels that a norm mixes, if it does: taken
            and given up at once, as other threads may begin passes.
        states (list): What tells whether a parameter has changed.
        graded (bool, optional): Whether all of the layer's calls in this pass
            were with gradients, None before the first.
    """
    layer: Callable[[], Optional[nn.Module]]
    parameters: Dict[str, Tensor]
    home: 'Together'
    made: Optional[Tuple[Dict[str, Tensor], Optional[Tensor]]] = None
    states: List[Tuple] = field(default_factory=list)
    graded: Optional[bool] = None

    def drop(self) -> None:
        """Forget a pass."""
        self.made, self.graded = None, None

    def begin(self) -> None:
        """Note what the parameters are at the beginning of a pass."""
        self.states = list(map(_state, self.parameters.values()))

    def fits(self, layer: nn.Module, flat: Tensor) -> bool:
        """Whether this is for a layer, its parameters and the masks of now.

        After the network's forward it is for what activation checkpointing
        runs again, in backward, if that ran with gradients before. In the
        older way it does not, and backward of the part that runs again would
        free what all parts share: such layers mask themselves.
        """
        home = self.home
        if home.flat is not flat or self.layer() is not layer:
            return False
        if home.running:
            self.graded = self.graded is not False and torch.is_grad_enabled()
        elif not _in_backward():
            return False
        own = layer._parameters
        return bool(self.graded) and home.cast == _autocast() and all(
            own.get(name) is p and _state(p) == state
            for (name, p), state in zip(self.parameters.items(), self.states))


def _state(parameter: Tensor) -> Tuple[int, int]:
    return parameter.data_ptr(), parameter._version


def _in_backward() -> bool:
    task = getattr(torch._C, '_current_graph_task_id', None)
    return task is not None and task() != -1


class _Hook:
    """A hook of the network: of that alone, not of copies or files of it."""

    def __init__(self, call: Callable) -> None:
        self.call = call

    def __call__(self, *args: Any) -> None:
        self.call(*args)

    def __deepcopy__(self, memo: dict) -> '_Hook':
        return self

    def __reduce__(self) -> tuple:
        # What takes anything and does nothing, without this package.
        return getattr, (contextlib.nullcontext(), '__exit__')


class Together:
    """Makes the masked weights of a network's layers, pass by pass.

    Args:
        model (nn.Module): The network, masked.
        source (Callable): Returns the flat masks ``[E]``, or None.

    Attributes:
        running (bool): Whether the network's forward runs.
        flat (Tensor, optional): The masks of the last pass.
        cast (torch.dtype, optional): What autocast casts to in it.
    """

    def __init__(self, model: nn.Module,
                 source: Callable[[], Optional[Tensor]]) -> None:
        self.model, self.source = weakref.ref(model), source
        self.running = False
        self.flat: Optional[Tensor] = None
        self.cast: Optional[torch.dtype] = None
        self._made: Tuple = ()
        self._signature: Optional[tuple] = None
        self.layers = [
            weakref.ref(layer) for layer in model.modules()
            if isinstance(layer, MaskedLayer)
        ]

    def attach(self) -> None:
        """Hook the network."""
        model = self.model()
        model.register_forward_pre_hook(_Hook(self.begin))
        # Also where the forward fails, or checkpointing stops early.
        model.register_forward_hook(_Hook(self.end), always_call=True)

    def begin(self, model: nn.Module, args: tuple) -> None:
        """Before the network's forward."""
        # A copy of the network has these hooks, too.
        if compiling() or self.model() is not model:
            return
        self._drop()
        self.running = True
        if not torch.is_grad_enabled() or recorded():
            return
        flat = self.source()
        if flat is None or not flat.requires_grad or not usable(flat):
            return
        layers = [layer for layer in (ref() for ref in self.layers) if layer]
        self.cast = _autocast()
        signature = self._signed(layers)
        if signature != self._signature:
            self._signature = None
            self._made = self._plan(layers, flat)
            self._signature = signature
        if self._made:
            self._show(flat)

    def end(self, model: nn.Module, args: tuple, out: Any) -> None:
        """After it."""
        if not compiling() and self.model() is model:
            self.running = False

    def _drop(self) -> None:
        """Let go of the products of the pass before."""
        self.flat = None
        for ready, _ in self._made[2] if self._made else ():
            ready.drop()

    @staticmethod
    def _signed(layers: List[MaskedLayer]) -> tuple:
        """What a plan depends on."""
        return (_autocast(),
                *((id(p), p.data_ptr(), p.dtype, p.stride(), p.requires_grad)
                  for layer in layers
                  for p in layer._parameters.values() if p is not None))

    def _plan(self, layers: List[MaskedLayer], flat: Tensor) -> tuple:
        """Groups, the index of all masks, and who is shown what."""
        for layer in layers:
            layer._dms_masks.ready = None
        if is_sharded(self.model()):  # it gets its weights layer by layer
            return ()
        vectors, groups, shown = Vectors(), [], []
        # Groups do not know for whom their products are: a graph that leads
        # back to what it has made would never be given up.
        places: Dict[int, List[Tuple[Ready, str]]] = {}
        norms: List[Tuple[Ready, int]] = []
        for layer in layers:
            found = self._layer(layer, vectors, flat)
            if found is None:
                continue
            ready, parts = found
            for name, entries in parts.items():
                weight = ready.parameters[name]
                group = _group_for(groups, weight, _dtype_of(layer, weight))
                group.add(weight, entries)
                places.setdefault(id(group), []).append((ready, name))
            norm = layer._dms_masks.norm
            layer._dms_masks.ready = ready
            shown.append((ready, norm))
        kernels, size = kernels_for(flat), sum(group.size for group in groups)
        if not shown or not getattr(kernels, 'LEAST', 0) <= size <= MOST:
            for layer in layers:
                layer._dms_masks.ready = None
            return ()
        sizes = [vectors.length]
        for ready, norm in shown:
            if norm is not None:
                start = vectors.add([norm.index])
                norms.append(ready)
                sizes.append(vectors.length - start)
        for group in groups:
            group.finish(kernels)
        return ([(group, places[id(group)]) for group in groups],
                vectors.index().to(flat.device), shown, sizes, norms)

    def _layer(self, layer: MaskedLayer, vectors: Vectors,
               flat: Tensor) -> Optional[Tuple[Ready, Dict]]:
        """What a layer is to be shown, None if it is to do so itself."""
        own: LayerMasks = layer._dms_masks
        if own.owner() is not layer or own.early or own.computed or \
                own.lends or isinstance(layer, nn.RNNBase) or \
                own.at_input(layer):
            return None
        parameters = {
            name: layer._parameters[name]
            for name in own.names if layer._parameters.get(name) is not None
        }
        parts, kinds = {}, getattr(kernels_for(flat), 'KINDS', FLOATS)
        for name, weight in parameters.items():
            if type(weight) is not nn.Parameter or \
                    weight.device != flat.device or \
                    weight.dtype not in kinds or \
                    weight.layout is not torch.strided:
                return None
            scales = own.scales if name in ('weight', 'bias') else ()
            entries = entries_of(weight, own.inputs.get(name, ()), scales,
                                 vectors)
            if entries is None:
                return None
            parts[name] = entries
        return Ready(weakref.ref(layer), parameters, self), parts

    def _show(self, flat: Tensor) -> None:
        """Make all products, and show them."""
        groups, index, shown, sizes, norms = self._made
        with torch.autocast(flat.device.type, enabled=False):
            masks = Chosen.apply(flat, index)
            masks, *rest = masks.split(sizes)
            vectors = {id(ready): one for ready, one in zip(norms, rest)}
            products: Dict[int, Dict[str, Tensor]] = {}
            for group, places in groups:
                for (ready, name), product in zip(places, group(masks)):
                    products.setdefault(id(ready), {})[name] = product
        for ready, _ in shown:
            ready.made = products.get(id(ready), {}), vectors.get(id(ready))
            ready.begin()
        self.flat = flat


def usable(flat: Tensor) -> bool:
    """Whether it is worth while where the masks are."""
    if kernels_for(flat) is None:
        return False
    # What is captured as a graph of the GPU cannot be given addresses.
    return not flat.is_cuda or not torch.cuda.is_current_stream_capturing()


def kernels_for(flat: Tensor) -> Optional[ModuleType]:
    """What makes products there, None for PyTorch's operations."""
    if flat.is_cuda:
        return fused_weights
    if flat.device.type != 'cpu' or compiled_weights is None:
        return None
    return compiled_weights if worth_it() else None


def _dtype_of(layer: nn.Module, weight: Tensor) -> torch.dtype:
    """What a layer reads its parameter as."""
    bases, cast = type(layer).__mro__, _autocast()
    own = bases[bases.index(MaskedLayer) + 1]
    # Autocast leaves float64 as it is. On a CPU layers cast for themselves.
    if cast is None or own.forward not in CAST or not weight.is_cuda or \
            weight.dtype == torch.float64:
        return weight.dtype
    return cast


def _autocast() -> Optional[torch.dtype]:
    """What autocast casts to on a GPU now, None without it."""
    if not torch.is_autocast_enabled():
        return None
    asked = getattr(torch, 'get_autocast_dtype', None)  # from torch 2.4
    return asked('cuda') if asked else torch.get_autocast_gpu_dtype()


def _group_for(groups: List[Group], weight: Tensor, out: torch.dtype) -> Group:
    """The last group of such weights, a new one if that is large."""
    for group in reversed(groups):
        if group.out == out and group.weights[0].dtype == weight.dtype:
            if group.size + weight.numel() <= PIECE:
                return group
            break
    groups.append(Group(out))
    return groups[-1]


def detach(module: nn.Module) -> None:
    """Take the hooks off a network, or a copy of one."""
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for number, hook in list(hooks.items()):
            if isinstance(hook, _Hook):
                del hooks[number]
