# Copyright (c) dms_razor contributors. All rights reserved.
"""What channel units and depth units have in common: a view of the bank."""
import random
from collections import defaultdict
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

import torch
from mmrazor.models.mutables import MutableChannelUnit
from mmrazor.models.mutables.mutable_channel.units.channel_unit import Channel
from mmrazor.registry import MODELS
from torch import nn

from ..core.bank import Bank


class BankUnit(MutableChannelUnit):
    """A unit of MMRazor that owns nothing: one ratio of a :class:`Bank`.

    Choices are read from the bank and written to it, so that evolution,
    sampling and ``set_choices`` see what the differentiable search sees.

    Args:
        num_channels (int): Channels of the unit, or blocks of a stage.
        bank (Bank): The bank of the network's space.
        index (int): Number of the unit in ``bank.layout.units``.
    """

    def __init__(self, num_channels: int, bank: Bank, index: int) -> None:
        super().__init__(num_channels)
        # Not a submodule: the mutator owns the bank.
        object.__setattr__(self, 'bank', bank)
        self.index = index

    @classmethod
    def from_bank(cls, bank: Bank, index: int) -> 'BankUnit':
        """The view of unit ``index`` of ``bank``."""
        return cls(bank.layout.units[index].channels, bank, index)

    @property
    def spec(self):
        """Unit: name, size, groups, step and bounds, as traced."""
        return self.bank.layout.units[self.index]

    @property
    def name(self) -> str:
        """str: Path of the first producing layer, or of the stage."""
        return self.spec.name

    @property
    def is_mutable(self) -> bool:
        """Whether the unit can keep more than one number of elements."""
        return self.spec.least < self.spec.most

    @property
    def ratio(self) -> float:
        """The pruning ratio a of the paper."""
        return float(self.bank.ratios[self.index])

    # choices: numbers of channels (or blocks), as everywhere in MMRazor

    @property
    def _grain(self) -> int:
        """Channels that come and go together."""
        return self.spec.groups * self.spec.step

    @property
    def current_choice(self) -> int:
        """Channels (or blocks) that the unit keeps: the hard count."""
        return int(self.bank.kept()[self.index]) * self._grain

    @current_choice.setter
    def current_choice(self, choice: int) -> None:
        """Keep ``choice`` channels, the most important ones, as 0-1 masks.

        Raises:
            ValueError: If the unit cannot keep just that many.
        """
        counts = self.bank.kept()
        counts[self.index] = self.elements_of(choice)
        self.bank.set_kept(counts)
        self.bank.mode = 'hard'

    @property
    def min_choice(self) -> int:
        """Fewest channels (or blocks) that the unit may keep."""
        return self.spec.least * self._grain

    @property
    def max_choice(self) -> int:
        """Most channels (or blocks) that the unit may keep."""
        return self.spec.most * self._grain

    def elements_of(self, choice: int) -> int:
        """Elements kept in each group when ``choice`` channels stay.

        Raises:
            ValueError: If the unit cannot keep just that many.
        """
        kept, rest = divmod(choice, self._grain)
        if not rest and self.spec.choices is not None and \
                kept not in self.spec.choices:
            raise ValueError(
                f'unit {self.name!r} cannot keep {choice}; its choices are '
                f'{[kept * self._grain for kept in self.spec.choices]}')
        if rest or not self.min_choice <= choice <= self.max_choice:
            raise ValueError(
                f'unit {self.name!r} cannot keep {choice} of '
                f'{self.num_channels}; choose a multiple of {self._grain} '
                f'from {self.min_choice} to {self.max_choice}')
        return int(kept)

    def choice_of(self, kept: int) -> int:
        """Channels (or blocks) of ``kept`` elements in each group."""
        return kept * self._grain

    @property
    def candidate_choices(self) -> List[int]:
        """Every choice, ascending: what MMRazor's predictor reads."""
        return [self.choice_of(kept) for kept in self.spec.allowed]

    def sample_choice(self) -> int:
        """A random choice, uniform over what the unit may keep."""
        return self.choice_of(random.choice(self.spec.allowed))

    def fix_chosen(self, choice: Optional[int] = None) -> None:
        """Write ``choice``; without one the present counts stay."""
        if choice is not None:
            self.current_choice = choice

    def relate(self, model: nn.Module, spans: Iterable['Span']) -> None:
        """Fill ``input_related`` and ``output_related`` from its spans."""
        # MMRazor's add_output_related compares with all channels before: a
        # wide attention layer has thousands of runs.
        for span in dict.fromkeys(spans):
            (self.output_related
             if span.is_output else self.input_related).append(
                 Channel(
                     span.path,
                     model.get_submodule(span.path), (span.start, span.stop),
                     is_output_channel=span.is_output))

    def prepare_for_pruning(self, model) -> None:
        """Nothing to do: the mutator masks all layers at once."""

    def config_template(self,
                        with_init_args: bool = False,
                        with_channels: bool = False) -> Dict[str, Any]:
        """The choice and, on demand, bounds and related channels."""
        config = dict(choice=self.current_choice)
        if with_init_args:
            config['init_args'] = dict(
                num_channels=self.num_channels,
                least=self.min_choice,
                most=self.max_choice,
                divisor=self.spec.step)
        if with_channels:
            config['channels'] = self._channel_dict()
        return config


# Channels that dependent layers share, pruned by one differentiable top-k.


@MODELS.register_module()
class DiffTopkChannelUnit(BankUnit):
    """A width unit: layers whose channels come and go together.

    ``output_related`` names the layers that produce the channels or keep
    them apart (convolution, BatchNorm), ``input_related`` those that take
    them in; the masks act there (METHOD: section 2).
    """

    mutable_prefix = 'channel'  # MMRazor's name for such a search group


class Span(NamedTuple):
    """Channels ``start`` to ``stop`` of a layer, all of one unit.

    Attributes:
        path (str): Of the layer.
        start (int): First channel.
        stop (int): Channel after the last.
        is_output (bool): Channels that the layer gives, else that it takes.
    """
    path: str
    start: int
    stop: int
    is_output: bool


def spans_by_unit(space) -> Dict[int, List[Span]]:
    """Unit number to contiguous runs of channels in the layers' weights."""
    found: Dict[int, List[Span]] = defaultdict(list)
    for sites in space.slice_sites.values():
        for site in sites:
            path, _, tensor = site.name.rpartition('.')
            if tensor != 'weight' or site.axis > 1 or site.groups > 1:
                continue
            unit = torch.where(
                site.index < 0, -1,
                space.layout.unit_of_element[site.index.clamp(min=0)])
            units, lengths = unit.unique_consecutive(return_counts=True)
            stops = lengths.cumsum(0).tolist()
            for i, start, stop in zip(units.tolist(), [0] + stops, stops):
                if i >= 0:
                    found[i].append(Span(path, start, stop, site.axis == 0))
    return found


# Residual blocks of one stage, pruned by one differentiable top-k.


@MODELS.register_module()
class DiffTopkDepthUnit(BankUnit):
    """A depth unit: the removable blocks of one stage.

    A choice is the number of blocks that stay, the most important ones;
    0 empties the stage. It relates no channels.
    """

    mutable_prefix = 'depth'  # MMRazor's name for such a search group

    @property
    def blocks(self) -> Tuple[str, ...]:
        """Paths of the removable blocks."""
        return self.spec.members
