# Copyright (c) dms_razor contributors. All rights reserved.
"""Importance of elements (paper, equation 4 and Table 6).

All metrics work on the masks: ``g = ∂L_task/∂m`` is the gradient of the task
loss alone, already averaged over the ranks of a distributed run (squaring
first would make N ranks search something else than one).

Importances are kept in float64: those of pruned elements decay by 1 % a step
and would become equal, as float32 denormals, after some ten thousand steps.
"""
from typing import Callable, Dict

from torch import Tensor

# Each takes masks, their gradient and the element's place in its row, all
# [E], and returns one figure an element, [E], never negative.
Metric = Callable[[Tensor, Tensor, Tensor], Tensor]


def taylor(mask: Tensor, grad: Tensor, place: Tensor) -> Tensor:
    """First-order Taylor importance ``(m·g)²``, equation 4."""
    return (mask * grad).square()


def snip(mask: Tensor, grad: Tensor, place: Tensor) -> Tensor:
    """SNIP's ``|m·g|``."""
    return (mask * grad).abs()


def fisher(mask: Tensor, grad: Tensor, place: Tensor) -> Tensor:
    """Empirical Fisher information ``g²``."""
    return grad.square()


def index(mask: Tensor, grad: Tensor, place: Tensor) -> Tensor:
    """The first element of a row is the most important, the last the least.

    Static: this is how slimmable networks choose their channels.
    """
    return 1 / (1 + place.to(mask.dtype))


METRICS: Dict[str, Metric] = dict(
    taylor=taylor,
    taylor_no_average=taylor,
    snip=snip,
    fisher=fisher,
    index=index)

_WITHOUT_AVERAGE = ('taylor_no_average', 'index')


def check_metric(name: str) -> None:
    """Raise ValueError, with the known names, if ``name`` is no metric."""
    if name not in METRICS:
        raise ValueError(f'importance "{name}" is not known, use one of '
                         f'{", ".join(METRICS)}')


def update(current: Tensor,
           mask: Tensor,
           grad: Tensor,
           place: Tensor,
           metric: str = 'taylor',
           decay: float = 0.99) -> Tensor:
    """One step of the moving average, ``c ← decay·c + (1 − decay)·metric``.

    Args:
        current (Tensor): Importance so far, float64 ``[E]``.
        mask (Tensor): Masks of this step, float64 ``[E]``.
        grad (Tensor): Gradient of the task loss in the masks, float64
            ``[E]``.
        place (Tensor): Place of the element in its row, int64 ``[E]``.
        metric (str): A key of :data:`METRICS`. Defaults to 'taylor'.
        decay (float): Decay of the moving average. Defaults to 0.99.

    Returns:
        Tensor: New importance, float64 ``[E]``. 'taylor_no_average' and
        'index' have no memory.
    """
    figure = METRICS[metric](mask, grad, place)
    if metric in _WITHOUT_AVERAGE:
        return figure
    return current * decay + figure * (1 - decay)
