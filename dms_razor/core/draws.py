# Copyright (c) dms_razor contributors. All rights reserved.
"""Random numbers of a search that a resumed search draws again."""
import copy
from typing import Dict, Union

import torch
from torch import Tensor

from .selectors import Selector

# Added to the seed: the order of the elements is drawn from the seed itself.
_STREAM = 2**31


class Draws:
    """Uniform random numbers, one for each of ``count`` things.

    Drawn on the CPU from a generator of their own: the same on every device
    and every rank, whatever else draws.

    Args:
        count (int): How many.
        seed (int): Seed of the generator.
        device (torch.device): Where the numbers are needed.

    Attributes:
        uniform (Tensor): The numbers in (0, 1), float64 ``[count]``; new ones
            after :meth:`draw`.
    """

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.uniform = torch.empty(count, dtype=torch.float64, device=device)
        # A state and no generator: those of older PyTorch cannot be copied.
        self._next = torch.Generator().manual_seed(seed + _STREAM).get_state()
        self.draw()

    def draw(self) -> None:
        """Draw again."""
        self.load(self._next)

    @property
    def gumbel(self) -> Tensor:
        """Gumbel noise, ``[count]``."""
        return -(-self.uniform.log()).log()

    @property
    def logistic(self) -> Tensor:
        """Logistic noise, the difference of two Gumbels, ``[count]``."""
        return self.uniform.logit()

    def state(self) -> Tensor:
        """State of the generator before the present draw, uint8."""
        return self._before.clone()

    def load(self, state: Tensor) -> None:
        """Draw what was drawn from this state.

        Raises:
            ValueError: If it is no state of a generator. Nothing is changed.
        """
        generator = torch.Generator()
        before = state.detach().cpu().clone()
        try:
            generator.set_state(before)
        except RuntimeError as error:
            raise ValueError('"draws" of the saved search are no state of a '
                             f'random number generator: {error}') from None
        uniform = torch.rand(
            len(self.uniform), generator=generator, dtype=torch.float64)
        # 0 is possible and has no logarithm; 1 is not.
        self.uniform = uniform.clamp(min=2**-60).to(self.uniform.device)
        self._before, self._next = before, generator.get_state()


class DrawnSelector(Selector):
    """A selector whose masks are drawn: noise, anew with every update.

    Attributes:
        draws (Draws): The noise; a subclass makes it.
    """
    draws: Draws

    def step(self, grad: Tensor, lr: Union[float, Tensor]) -> None:
        """Plain SGD, then new noise for the next update."""
        super().step(grad, lr)
        self.draws.draw()

    def state(self) -> Dict[str, Tensor]:
        """The logits, and where the noise was drawn from."""
        return dict(super().state(), draws=self.draws.state())

    def load(self, state: Dict[str, Tensor]) -> None:
        """Continue with the same noise; ValueError if it cannot be."""
        draws = copy.copy(self.draws)
        draws.load(state['draws'])
        super().load(state)
        self.draws = draws
