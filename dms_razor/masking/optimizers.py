# Copyright (c) dms_razor contributors. All rights reserved.
"""One update of the ratios with every step of an optimizer."""
from typing import (Any, Callable, Dict, Iterable, Iterator, List, Optional,
                    Tuple)

from torch import Tensor, nn
from torch.optim import Optimizer

from .sharded import gradients_of


def innermost(optimizer: Any) -> Optimizer:
    """PyTorch's optimizer, in the wrappers of accelerate, Lightning, mmengine.

    Raises:
        TypeError: There is none of PyTorch's.
        ValueError: See :func:`refuse_engines`.
    """
    seen: List[Any] = []
    while not any(optimizer is other for other in seen):
        seen.append(optimizer)
        refuse_engines(optimizer)
        inner = getattr(optimizer, 'optimizer', None)
        if inner is not None and hasattr(inner, 'step'):
            optimizer = inner
    if not hasattr(optimizer, 'register_step_pre_hook') or not hasattr(
            optimizer, '_optimizer_step_pre_hooks'):
        raise TypeError(
            f'a search cannot follow the steps of a {type(seen[0]).__name__}, '
            'which is no optimizer of PyTorch and wraps none: call '
            'search.step() yourself, before each of its steps')
    return optimizer


#: Packages whose engines step, scale and reduce in ways of their own.
_ENGINES = ('deepspeed', 'colossalai')


def refuse_engines(*parts: Any) -> None:
    """Refuse DeepSpeed and the like, which take the loop over.

    ZeRO puts the weights into flat partitions, each rank's optimizer steps on
    its own, and the loss is scaled inside of the engine: no step of a whole
    network is there that a search could follow. None was tried.

    Args:
        *parts: Networks, optimizers and what wraps them.

    Raises:
        ValueError: One is of such a package, or mmengine's wrapper of one.
    """
    for part in parts:
        for kind in type(part).__mro__:
            package, name = kind.__module__.partition('.')[0], kind.__name__
            if package in _ENGINES or name.removeprefix(
                    'MM').lower().startswith(_ENGINES):
                raise ValueError(
                    f'a search cannot follow {name}, of an engine that has '
                    'steps and partitions of its own (DeepSpeed ZeRO and the '
                    'like): train the search with DistributedDataParallel, '
                    'the default of --launcher (leave out strategy), or with '
                    "accelerate's own; the exported network, which is "
                    'smaller, may be trained with it')


def refuse_flat(weights: Iterable[Tensor]) -> None:
    """Refuse weights that FSDP1 has put, many layers' together, into one.

    Layers have no weights of their own then, and nothing in them is a channel
    of the space; neither masks nor the export would find them.

    Args:
        weights (Iterable[Tensor]): Parameters of the network that trains.

    Raises:
        ValueError: Some are of FSDP1.
    """
    # torch's own mark, on flat parameters and on the views into them alike
    if any(getattr(weight, '_fsdp_flattened', False) for weight in weights):
        raise ValueError(
            'the weights lie in FullyShardedDataParallel (FSDP1), which '
            'flattens many layers into one, so that no channel can be '
            'searched or exported: train the search with '
            'DistributedDataParallel, the default of --launcher (leave out '
            'model_wrapper_cfg and strategy); the exported network, which is '
            'smaller, may be trained with FSDP')


def refuse_strangers(weights: Iterable[Tensor], model: nn.Module) -> None:
    """Refuse an optimizer that trains something else than the network.

    Each of its steps would move the ratios, and no weight: a search that looks
    as any other, of a network that learns nothing.

    Args:
        weights (Iterable[Tensor]): What the optimizer trains.
        model (nn.Module): The network that is searched.

    Raises:
        ValueError: None of them is a parameter of the network, though some of
            its parameters are to be trained.
    """
    own = {id(p) for p in model.parameters() if p.requires_grad}
    trained = {id(weight) for weight in weights}
    if own and trained and not own & trained:
        raise ValueError(
            f'the optimizer trains {len(trained)} parameters, none of the '
            f'{len(own)} of this {type(model).__name__}: perhaps they are '
            'those of another instance or of a copy. Make the optimizer of '
            'model.parameters() of the very network that was given to the '
            'search, after whatever replaces them')


class Drive:
    """Calls an update once for each ``optimizer.step()``.

    Before the weights move; where the step is given a closure, which makes
    the gradients in the step and perhaps more than once (LBFGS), after it:
    with the gradient of the last call.

    Args:
        optimizer (Optimizer): PyTorch's, or a wrapper of one.
        update (Callable): What is called.
        drop (Callable): Forgets the gradient of the masks.
        model (nn.Module): The network that is searched.

    Attributes:
        weights (list[Tensor]): What the optimizer trains.

    Raises:
        TypeError, ValueError: See :func:`innermost`, :func:`refuse_flat`,
            :func:`refuse_strangers`.
    """

    def __init__(self, optimizer: Any, update: Callable[[], Any],
                 drop: Callable[[], None], model: nn.Module) -> None:
        self.update, self.drop, self.model = update, drop, model
        self.optimizer = innermost(optimizer)
        refuse_flat(self.weights)
        refuse_strangers(self.weights, model)
        self.after = False
        self.handles = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._behind)
        ]

    @property
    def weights(self) -> List[Tensor]:
        # MMEngine's groups are dictionaries that look at what they give; of
        # hundreds of them that takes longer than all else here.
        return [
            weight for group in self.optimizer.param_groups
            for weight in dict.__getitem__(group, 'params')
            if weight.requires_grad
        ]

    def gradients(self) -> Iterator[Optional[Tensor]]:
        """Of what the optimizer trains; see :func:`.sharded.gradients_of`."""
        return gradients_of(self.model, self.weights)

    def remove(self) -> None:
        """Let go of the optimizer."""
        for handle in self.handles:
            handle.remove()

    def _before(self, optimizer: Optimizer, args: Tuple,
                kwargs: Dict) -> Optional[Tuple[Tuple, Dict]]:
        # The optimizer itself is the first of the arguments.
        closure = args[1] if len(args) > 1 else kwargs.get('closure')
        self.after = closure is not None
        if closure is None:
            self.update()
            return None
        closure = self._last_of(closure)
        if len(args) > 1:
            return (args[0], closure, *args[2:]), kwargs
        return args, {**kwargs, 'closure': closure}

    def _behind(self, optimizer: Optimizer, args: Tuple, kwargs: Dict) -> None:
        if self.after:
            self.after = False
            self.update()

    def _last_of(self, closure: Callable) -> Callable:
        """The closure; each call but the first forgets the one before.

        What was accumulated before the step belongs to its first call.
        """
        again = False

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal again
            if again:
                self.drop()
            again = True
            return closure(*args, **kwargs)

        return call
