# Copyright (c) dms_razor contributors. All rights reserved.
"""The budget as a constraint that holds exactly, in every step.

The paper weighs the resource loss with a λ_res that is chosen by hand: too
small, and the target is missed; too large, and the resource alone decides the
structure. Here each step finds the λ that it takes. The numbers first move
along the gradient of the task, then by the smallest shift along the gradient
of the resource after which the network costs what the schedule asks for:

    a ← a − lr·g_task,   a ← a − s·∂log(r_c)/∂a   with s so that r_c = r_t

``s = lr·λ``, the Lagrange multiplier of the step. It may be negative: a
network that came out below its target grows back to it. Where numbers have
step sizes of their own, both moves are scaled by them; so ratios rest where
the task gains as much from a unit of resource as in every other unit.
"""
from typing import Callable, Optional, Tuple, Union

import torch
from torch import Tensor

CLOSE = 1e-6  # of log(r_c / r_t)
_TRIES = 40


def meet_budget(numbers: Tensor,
                low: Union[float, Tensor],
                high: Union[float, Tensor],
                excess: Callable[[Tensor], Tensor],
                scale: Union[float, Tensor] = 1.) -> Tensor:
    """Shift numbers by the least that makes them cost what they may.

    Args:
        numbers (Tensor): What a selector learns, float64 ``[n]``.
        low, high (Tensor | float): Bounds of the numbers.
        excess (Callable): ``numbers -> log(r_c / r_t)``, a scalar that is
            differentiable in the numbers.
        scale (float | Tensor): Relative size of the numbers' steps, ``[n]``
            or one for all. Defaults to 1.

    Returns:
        Tensor: The shifted numbers, ``[n]``, with ``|excess| < CLOSE``; where
        the bounds do not allow that, the nearest that was found.
    """
    numbers = numbers.clamp(low, high)
    over, slope = _value_and_slope(excess, numbers)
    way = 1. if over > 0 else -1.
    direction = slope * scale
    # What a bound blocks takes no part in the first guess.
    ahead = numbers - way * torch.finfo(slope.dtype).eps * direction.sign()
    free = (ahead >= low) & (ahead <= high)
    steep = float((slope * direction)[free].sum())
    if abs(over) < CLOSE or steep == 0.:
        return numbers

    def at(shift: float) -> Tuple[float, Tensor]:
        moved = (numbers - shift * direction).clamp(low, high)
        return float(excess(moved)), moved

    return _root(at, over, over / steep)


def _value_and_slope(excess: Callable, numbers: Tensor):
    with torch.inference_mode(False), torch.enable_grad():
        leaf = numbers.clone().requires_grad_()
        value = excess(leaf)
        slope, = torch.autograd.grad(value, leaf)
    return float(value.detach()), slope


@torch.no_grad()
def _root(at: Callable, over: float, guess: float) -> Tensor:
    """Where ``at`` is 0: doubled until bracketed, then regula falsi.

    The Illinois variant: the value of an end that stays twice is halved, so
    that both ends close in.
    """
    near, value_near = 0., over
    far, value_far, best = guess, None, None
    side: Optional[int] = None
    for _ in range(_TRIES):
        value, moved = at(far if value_far is None else guess)
        if best is None or abs(value) < abs(best[0]):
            best = value, moved
        if abs(value) < CLOSE:
            break
        if value_far is None:
            if value * over > 0:
                near, value_near, far = far, value, 2 * far
                continue
            value_far = value
        elif value * over > 0:
            near, value_near = guess, value
            value_far, side = value_far * (.5 if side == 0 else 1), 0
        else:
            far, value_far = guess, value
            value_near, side = value_near * (.5 if side == 1 else 1), 1
        guess = far - value_far * (far - near) / (value_far - value_near)
    return best[1]
