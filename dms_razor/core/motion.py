# Copyright (c) dms_razor contributors. All rights reserved.
"""How the numbers of a search move in a step, and who moved them."""
from typing import Any, Callable, Dict, Optional, Tuple, Union

import torch
from torch import Tensor

from .account import Account
from .budget import AUTO
from .layout import Layout
from .multiplier import meet_budget
from .selectors import Selector
from .step_size import AutoStep


class Motion:
    """One step: along a gradient, and then, if wanted, onto the budget.

    Args:
        selector (Selector): Owns the numbers.
        layout (Layout): The units.
        lr (float | str): Step size, or 'auto'.

    Attributes:
        lr (float | str): May be changed during a search.
        auto (AutoStep): What ``lr='auto'`` goes by.
        account (Account): By what task and resource have moved the ratios.
    """

    def __init__(self, selector: Selector, layout: Layout,
                 lr: Union[float, str]) -> None:
        self.lr = lr
        self.auto = AutoStep(selector.numbers, selector.span)
        self.account = Account(layout)
        self._sizes: Union[float, Tensor] = 0.
        self._booked: Optional[Tuple[Tensor, Tensor]] = None

    def along(self, selector: Selector, slope: Tensor, task: Tensor,
              still: bool) -> None:
        """Step along ``slope``.

        Args:
            selector (Selector): Owns the numbers.
            slope (Tensor): Gradient of both losses in the numbers, ``[n]``.
            task (Tensor): The task's part of it, ``[n]``.
            still (bool): Whether the numbers rest, in the first update.
        """
        self._sizes = 0.
        if not still and self.lr == AUTO:
            self.auto.see(task)
            self._sizes = self.auto.sizes()
        elif not still:
            self._sizes = self.lr
        before = selector.numbers
        alone = (before - self._sizes * task).clamp(selector.low,
                                                    selector.high)
        self._booked = before, alone
        selector.step(slope, self._sizes)

    def meet(self, selector: Selector, excess: Callable[[Tensor],
                                                        Tensor]) -> None:
        """Shift the numbers until ``excess(numbers)`` is 0."""
        selector.numbers = meet_budget(selector.numbers, selector.low,
                                       selector.high, excess, self._sizes)

    def book(self, selector: Selector) -> None:
        """Write down who moved the ratios in this step."""
        self.account.add(
            *map(selector.ratios_of, (*self._booked, selector.numbers)))

    def state(self) -> Dict[str, Tensor]:
        """Copies of what a resumed search needs."""
        return {**self.account.state(), **self.auto.state()}

    def completed(self, state: Any) -> Any:
        """A saved state, with nothing in place of what 0.1 did not save."""
        if not isinstance(state, dict):
            return state
        nothing = {
            name: torch.zeros_like(value)
            for name, value in self.state().items()
        }
        return {**nothing, **state}

    def load(self, state: Dict[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self.account.load(state)
        self.auto.load(state)
