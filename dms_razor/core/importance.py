# Copyright (c) dms_razor contributors. All rights reserved.
"""Importance of elements (paper, equation 4 and Table 6).

An importance is any callable ``f(mask, grad, previous) -> importance``, all
float64 ``[E]``, that is never negative; it does its own averaging. ``grad``
is ``∂L_task/∂m``, the gradient of the task loss alone, already averaged over
the ranks of a distributed run (squaring first would make N ranks search
something else than one).

:data:`IMPORTANCES` makes those that have a name: an entry is called with the
layout and, if it has a moving average, with ``decay``. :func:`averaged` turns
the score of one step into such an entry.

Importances are kept in float64: those of pruned elements decay by 1 % a step
and would become equal, as float32 denormals, after some ten thousand steps.
"""
import inspect
from functools import partial
from typing import Callable, Optional, Union

from torch import Tensor

from ..errors import check_number
from ..moved import moved_names
from .layout import Layout
from .registry import Registry

Importance = Callable[[Tensor, Tensor, Tensor], Tensor]

IMPORTANCES = Registry('importance')
__getattr__ = moved_names(__name__)


def averaged(score: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """Entry of :data:`IMPORTANCES`: ``c ← decay·c + (1 − decay)·score``.

    Args:
        score (Callable): ``(mask, grad) -> [E]``, the importance that one
            step alone would give.
    """

    def entry(layout: Layout, decay: float = 0.99) -> Importance:
        check_number('decay of the importance', decay, below=1)
        return partial(_moving_average, score, decay)

    return entry


def make_importance(importance: Union[str, Importance],
                    layout: Layout,
                    decay: Optional[float] = None) -> Importance:
    """The importance of a search.

    Args:
        importance (str | Callable): A name of :data:`IMPORTANCES`, or an
            importance, which is returned as it is.
        layout (Layout): The units.
        decay (float, optional): Decay of the moving average; by default the
            entry's own, the paper's 0.99.

    Raises:
        ValueError: If the name is not known, or ``decay`` lies outside [0, 1)
            or is given to an importance that has no moving average.
    """
    named = not callable(importance)
    entry = IMPORTANCES.find(importance) if named else importance
    if decay is None:
        return entry(layout) if named else entry
    if not (named and 'decay' in inspect.signature(entry).parameters):
        raise ValueError(f'decay={decay} has no effect on the importance '
                         f'{importance!r}, which has no moving average of the '
                         'search: leave decay out')
    return entry(layout, decay=decay)


def taylor(mask: Tensor, grad: Tensor) -> Tensor:
    """First-order Taylor importance ``(m·g)²``, equation 4."""
    return (mask * grad).square()


def snip(mask: Tensor, grad: Tensor) -> Tensor:
    """SNIP's ``|m·g|``."""
    return (mask * grad).abs()


def fisher(mask: Tensor, grad: Tensor) -> Tensor:
    """Empirical Fisher information ``g²``."""
    return grad.square()


for _score in (taylor, snip, fisher):
    IMPORTANCES.register(_score.__name__)(averaged(_score))


@IMPORTANCES.register('taylor_no_average')
def latest_taylor(layout: Layout) -> Importance:
    """Taylor importance of the last step alone."""
    return partial(_moving_average, taylor, 0.)


@IMPORTANCES.register('index')
def index(layout: Layout) -> Importance:
    """The first element of a row is the most important, the last the least.

    Static: this is how slimmable networks choose their channels.
    """
    return partial(_by_place, layout.place_in_row)


# On module level, so that a bank can be pickled with its importance.


def _moving_average(score: Callable, decay: float, mask: Tensor, grad: Tensor,
                    previous: Tensor) -> Tensor:
    return previous * decay + score(mask, grad) * (1 - decay)


def _by_place(place: Tensor, mask: Tensor, grad: Tensor,
              previous: Tensor) -> Tensor:
    return 1 / (1 + place.to(mask))
