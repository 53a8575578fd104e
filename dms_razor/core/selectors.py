# Copyright (c) dms_razor contributors. All rights reserved.
"""What a search learns: the numbers that say how many elements stay.

A :class:`Selector` owns the learnable numbers of a search: how many there
are, where they begin, how they step and in which bounds, and their saved
state. From them it gives soft masks, which the network reads, and expected
counts, which the resource loss reads, both differentiable in the numbers. The
:class:`~.bank.Bank` keeps what all selectors share: importance and ranks, the
mask leaf and its gradient, frozen depth.

A selector is one class under one name::

    @SELECTORS.register('mine')
    class Mine(Selector):
        ...

    Search(..., selector='mine')

Here stands the paper's, ``'dms'``. Those that it is compared with have a
module each: :mod:`.straight_through`, :mod:`.gates`, :mod:`.number_choice`
and :mod:`.thresholds`.
"""
from typing import Any, Callable, Dict, Union

import torch
from torch import Tensor

from ..errors import check_number
from .budget import AUTO
from .layout import Layout
from .registry import Registry
from .topk import nearest_counts, ratio_bounds, soft_masks

SELECTORS = Registry('selector')


class Selector:
    """Base of all selectors: :meth:`soft`, :meth:`counts`, :meth:`set_kept`.

    Where the network's masks are drawn or hard, :meth:`expected` says what
    the resource reads instead.

    Args:
        layout (Layout): The units.
        seed (int): For selectors that begin or draw at random. Defaults to 0.

    Attributes:
        numbers (Tensor): The learnable numbers, float64 ``[n]``.
        low, high (Tensor | float): Bounds of the numbers, ``[n]`` or one for
            all. Without bounds by default.
        span (float): About what a number moves by from all to nothing: 1,
            as ratios, by default.
        state_name (str): What a saved search calls the numbers.
        possible (tuple): Where numbers of a saved search lie. The bounds are
            no measure, they may change when a search is resumed.
    """
    numbers: Tensor
    low: Any = -float('inf')
    high: Any = float('inf')
    span = 1.
    state_name = 'numbers'
    possible = (torch.finfo(torch.float64).min, torch.finfo(torch.float64).max)

    def __init__(self, layout: Layout, seed: int = 0) -> None:
        self.layout = layout

    def soft(self, numbers: Tensor, ranks: Tensor) -> Tensor:
        """Masks that the network reads, differentiable in the numbers.

        Args:
            numbers (Tensor): The numbers, or a leaf in their place, ``[n]``.
            ranks (Tensor): Rank of each element in its row, int64 ``[E]``.

        Returns:
            Tensor: In [0, 1], float64 ``[E]``.
        """
        raise NotImplementedError

    def expected(self, numbers: Tensor, ranks: Tensor, soft: Tensor) -> Tensor:
        """Masks that the resource reads, the blocks' above all.

        Those of the network, unless these are hard or drawn at random.

        Args:
            numbers (Tensor): The numbers, or a leaf in their place, ``[n]``.
            ranks (Tensor): Rank of each element in its row, int64 ``[E]``.
            soft (Tensor): What :meth:`soft` gives for the same, ``[E]``.

        Returns:
            Tensor: In [0, 1], differentiable and without jumps in the
            numbers, float64 ``[E]``.
        """
        return soft

    def counts(self, numbers: Tensor) -> Tensor:
        """Expected counts, differentiable: elements that a group keeps.

        Args:
            numbers (Tensor): The numbers, or a leaf in their place, ``[n]``.

        Returns:
            Tensor: float64 ``[U]``.
        """
        raise NotImplementedError

    def set_kept(self, kept: Tensor, units: Tensor) -> None:
        """Move the numbers so that units keep what they are told.

        Args:
            kept (Tensor): Counts that :meth:`kept` then gives, int64 ``[U]``.
            units (Tensor): The units that are set; the others stay; bool
                ``[U]``.
        """
        raise NotImplementedError

    def kept(self) -> Tensor:
        """The whole number k that each group keeps, int64 ``[U]``."""
        return nearest_counts(self.counts(self.numbers), self.layout)

    def score(self, importance: Tensor) -> Tensor:
        """What elements are ranked by, ``[E]``: the k highest stay.

        The importance, unless the selector knows better.
        """
        return importance

    def step(self, grad: Tensor, lr: Union[float, Tensor]) -> None:
        """Plain SGD within the bounds (paper, appendix A.3.5).

        Args:
            grad (Tensor): Gradient of both losses in the numbers, ``[n]``.
            lr (float | Tensor): Step size, one for all or ``[n]``; 0 in the
                first update, before there is an importance.
        """
        self.numbers = (self.numbers - lr * grad).clamp(self.low, self.high)

    @property
    def ratios(self) -> Tensor:
        """Pruning ratio of each unit, float64 ``[U]``.

        What reports show and what the projection onto a budget moves.
        """
        return self.ratios_of(self.numbers)

    def ratios_of(self, numbers: Tensor) -> Tensor:
        """The pruning ratios that such numbers mean, float64 ``[U]``."""
        return 1 - self.counts(numbers) / self.layout.size

    def state(self) -> Dict[str, Tensor]:
        """Copies of everything that a resumed search needs, tensors only."""
        return {self.state_name: self.numbers.clone()}

    def load(self, state: Dict[str, Tensor]) -> None:
        """Continue from :meth:`state`; names, shapes and types are checked.

        Raises:
            ValueError: If a number is impossible. Nothing is changed.
        """
        numbers = state[self.state_name].detach().to(
            self.numbers.device, copy=True)
        least, most = self.possible
        if not ((numbers >= least) & (numbers <= most)).all():
            raise ValueError(f'"{self.state_name}" of the saved search lie '
                             f'outside [{least}, {most}]')
        self.numbers = numbers


@SELECTORS.register('dms')
class DifferentiableTopk(Selector):
    """One pruning ratio a unit (paper, section 3.1)."""
    state_name, possible = 'ratios', (0, 1)

    def __init__(self, layout: Layout, seed: int = 0) -> None:
        super().__init__(layout, seed)
        # Ratios start at 0 even where a unit may not keep all its elements
        # (most < N): nothing is pruned by the random order. The first update
        # clamps them into their bounds.
        self.numbers = torch.zeros(
            layout.U, dtype=torch.float64, device=layout.device)
        self.low, self.high = ratio_bounds(layout)

    def soft(self, numbers: Tensor, ranks: Tensor) -> Tensor:
        """Equation 3."""
        return soft_masks(numbers, ranks, self.layout)

    def counts(self, numbers: Tensor) -> Tensor:
        """The continuous ``(1 − a)N``."""
        return (1 - numbers) * self.layout.size

    def set_kept(self, kept: Tensor, units: Tensor) -> None:
        """Ratios of exactly ``1 − k/N``."""
        self.numbers = torch.where(units, 1 - kept.double() / self.layout.size,
                                   self.numbers)

    @property
    def ratios(self) -> Tensor:
        """The pruning ratios a, float64 ``[U]``: the numbers themselves."""
        return self.numbers

    @ratios.setter
    def ratios(self, ratios: Tensor) -> None:
        self.numbers = ratios


def check_lr(lr: Union[float, str]) -> None:
    """Raise ValueError unless ``lr`` is 'auto', or positive and finite."""
    if lr != AUTO:
        check_number('lr of the ratios, unless it is "auto",', lr, above=True)


def make_selector(selector: Union[str, Callable, Selector], layout: Layout,
                  seed: int) -> Selector:
    """The selector of a search.

    Args:
        selector (str | Callable | Selector): A name of :data:`SELECTORS`, a
            class (or anything that is called as one, with layout and seed) or
            a selector of this layout.
        layout (Layout): The units.
        seed (int): Handed to the class.

    Raises:
        ValueError: If the name is not known, or the selector is one of other
            units.
    """
    if isinstance(selector, str):
        selector = SELECTORS.find(selector)
    if not isinstance(selector, Selector):
        return selector(layout, seed=seed)
    if selector.layout != layout:
        raise ValueError(f'the {type(selector).__name__} selector is made for '
                         'other units than those of this network; give its '
                         'class, the search makes it')
    return selector
