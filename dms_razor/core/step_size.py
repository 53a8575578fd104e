# Copyright (c) dms_razor contributors. All rights reserved.
"""How far the ratios move in a step when ``lr`` is 'auto'.

The paper's 5e-3 is a number for 50,000 steps of a network whose gradients
have a certain size. A search of 300 steps with it moves by nothing but its
resource loss; and the gradients of ratios differ by a factor of a thousand
between networks, and with the scale of the loss. So both are taken out:

    a_u ← a_u − (TRAVEL / T)·g_u / rms(g_u)

T is the length of the search and ``rms(g_u)`` the root of a moving average of
``g_u²``. A gradient of constant sign moves its ratio by ``TRAVEL`` over the
whole search, however long that is; noise adds up to ``TRAVEL / √T``, so that a
longer search is a quieter one. The shift that meets the budget
(:mod:`.multiplier`) is scaled alike: so where the ratios come to rest, the
gain of the task for each unit of resource is the same in all units, whatever
the scale.
"""
from typing import Dict, Optional

import torch
from torch import Tensor

TRAVEL = 2.
_DECAY, _FLOOR = .99, .01


class AutoStep:
    """Step sizes of a search, one for each number that is learnt.

    Args:
        numbers (Tensor): What is learnt, ``[n]``; for the shape.
        span (float): About what a number moves by from all to nothing; 1 of
            a ratio.

    Attributes:
        length (int, optional): T, steps of the search.
        square (Tensor): Moving average of g², float64 ``[n]``.
        seen (int): Gradients in it.
    """

    def __init__(self, numbers: Tensor, span: float = 1.) -> None:
        self.span = span
        self.length: Optional[int] = None
        self.square = torch.zeros_like(numbers)
        self.seen = 0

    @property
    def travel(self) -> float:
        """What a number moves in a step by a gradient of average size.

        Raises:
            RuntimeError: If the length of the search is not known.
        """
        if self.length is None:
            raise RuntimeError(
                "lr='auto' needs the length of the search: give "
                'total_steps, call set_length, or give an lr')
        return TRAVEL * self.span / max(1, self.length)

    def see(self, grad: Tensor) -> None:
        """Take a gradient of the task, ``[n]``, into the average."""
        self.seen += 1
        # A plain average at first, so that the first steps are no larger.
        share = max(1 - _DECAY, 1 / self.seen)
        self.square = self.square + share * (grad.square() - self.square)

    def sizes(self) -> Tensor:
        """Step sizes, to be multiplied with the gradient; ``[n]``.

        What the task hardly sees has no more than ``1 / _FLOOR`` times the
        step of an average number.
        """
        scale = self.square.sqrt()
        floor = _FLOOR * self.square.mean().sqrt()
        scale = torch.maximum(scale, floor)
        return torch.where(scale > 0, self.travel / scale, 0.)

    def state(self) -> Dict[str, Tensor]:
        """Copies of the averages, for a saved search."""
        return dict(
            step_square=self.square.clone(), step_seen=torch.tensor(self.seen))

    def load(self, state: Dict[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self.square = state['step_square'].detach().to(
            self.square.device, copy=True)
        self.seen = int(state['step_seen'])
