# Copyright (c) dms_razor contributors. All rights reserved.
"""One update of the ratios with every step of an optimizer."""
from typing import Any, Callable, Dict, List, Optional, Tuple

from torch import Tensor
from torch.optim import Optimizer


def innermost(optimizer: Any) -> Optimizer:
    """PyTorch's optimizer, in the wrappers of accelerate, Lightning, mmengine.

    Raises:
        TypeError: There is none of PyTorch's.
    """
    seen: List[Any] = []
    while not any(optimizer is other for other in seen):
        seen.append(optimizer)
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


class Drive:
    """Calls an update once for each ``optimizer.step()``.

    Before the weights move; where the step is given a closure, which makes
    the gradients in the step and perhaps more than once (LBFGS), after it:
    with the gradient of the last call.

    Args:
        optimizer (Optimizer): PyTorch's, or a wrapper of one.
        update (Callable): What is called.
        drop (Callable): Forgets the gradient of the masks.

    Attributes:
        weights (list[Tensor]): What the optimizer trains.
    """

    def __init__(self, optimizer: Any, update: Callable[[], Any],
                 drop: Callable[[], None]) -> None:
        self.update, self.drop = update, drop
        self.optimizer = innermost(optimizer)
        self.after = False
        self.handles = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._behind)
        ]

    @property
    def weights(self) -> List[Tensor]:
        return [
            weight for group in self.optimizer.param_groups
            for weight in group['params'] if weight.requires_grad
        ]

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
