# Copyright (c) dms_razor contributors. All rights reserved.
"""The mutator: a network's units as MMRazor sees them, over one bank."""
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

from mmrazor.models.mutators import ChannelMutator
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..core.bank import Bank
from ..search import Search
from ..space import Space
from .example_input import example_image
from .units import (BankUnit, DiffTopkChannelUnit, DiffTopkDepthUnit,
                    spans_by_unit)


@MODELS.register_module()
class DMSMutator(ChannelMutator):
    """Finds the units of a network and masks its layers.

    Unlike the stock :class:`ChannelMutator` it runs the network once on an
    example input and follows the channels (see :mod:`dms_razor.tracing`), so
    it needs no symbolic tracing, and it prunes depth as well as width. No
    layer is replaced: its class is swapped for a masked subclass, weights
    and flags stay.

    Args:
        input_shape (Sequence[int] | int, optional): Shape of an example
            input, with or without the batch axis, or the side of a square
            image. Without it, :meth:`prepare_from_supernet` needs
            ``example_inputs``.
        units, only, frozen, width, depth, heads, qk, v, experts, layers: What
            may be removed, see :class:`dms_razor.tracing.options.Options`.
        importance, decay, selector, seed: What elements are ranked by and
            what is learnt, see :class:`dms_razor.core.Bank`.
        lr (float | str): Step size of the ratios. Defaults to 'auto', see
            :class:`dms_razor.Search`.
        channel_unit_cfg (dict): ``dict(type='DiffTopkChannelUnit')`` or a
            subclass; in ``units`` it may carry choices, as
            :meth:`config_template` writes them.
        depth_unit_cfg (dict): The same for depth.
        init_cfg (dict, optional): See mmengine's ``BaseModule``.
    """

    def __init__(self,
                 input_shape: Union[None, int, Sequence[int]] = None,
                 units: Optional[Dict[str, dict]] = None,
                 only: Union[None, str, Sequence[str]] = None,
                 frozen: Optional[bool] = None,
                 width: Optional[bool] = None,
                 depth: Optional[bool] = None,
                 heads: Optional[bool] = None,
                 qk: Optional[bool] = None,
                 v: Optional[bool] = None,
                 experts: Optional[bool] = None,
                 layers: Optional[str] = None,
                 importance: Union[None, str, Callable] = None,
                 decay: Optional[float] = None,
                 selector: Union[None, str, Callable] = None,
                 lr: Union[None, float, str] = None,
                 seed: Optional[int] = None,
                 channel_unit_cfg: dict = dict(type='DiffTopkChannelUnit'),
                 depth_unit_cfg: dict = dict(type='DiffTopkDepthUnit'),
                 init_cfg: Optional[dict] = None) -> None:
        # MMRazor's parser is never asked; 'Predefined' is its least
        # demanding configuration.
        super().__init__(
            channel_unit_cfg=dict(
                channel_unit_cfg,
                type=MODELS.get(channel_unit_cfg['type']).__name__),
            parse_cfg=dict(type='Predefined'),
            init_cfg=init_cfg)
        self.depth_unit_class = MODELS.get(depth_unit_cfg['type'])
        self.input_shape = input_shape
        self.search_args = dict(
            units=units,
            only=only,
            frozen=frozen,
            width=width,
            depth=depth,
            heads=heads,
            qk=qk,
            v=v,
            experts=experts,
            layers=layers,
            importance=importance,
            decay=decay,
            selector=selector,
            lr=lr,
            seed=seed)
        self.search: Optional[Search] = None

    @property
    def space(self) -> Optional[Space]:
        """Space: The traced space; None before the network is prepared."""
        return self.search and self.search.space

    @property
    def bank(self) -> Optional[Bank]:
        """Bank: Ratios and masks; None before the network is prepared."""
        return self.search and self.search.bank

    def prepare_from_supernet(self,
                              supernet: nn.Module,
                              example_inputs: Any = None,
                              target: Union[float, str] = 1.,
                              **settings: Any) -> Search:
        """Make the search of a network, and a unit for each of its ratios.

        Args:
            supernet (nn.Module): The network.
            example_inputs (Any, optional): What its forward takes; defaults
                to an image of ``input_shape``.
            target (float | str): Budget. Defaults to the whole network, with
                which MMRazor samples and sets choices.
            **settings: Other arguments of :class:`dms_razor.Search`.

        Returns:
            Search: The search, of which this mutator is a view.

        Raises:
            ValueError: If there is no example input, the network fails on
                it, a pattern of ``units`` matches nothing, nothing can be
                pruned, or the target is out of reach.
        """
        if example_inputs is None:
            example_inputs = example_image(self.input_shape, supernet)
        self.search = Search(supernet, example_inputs, target, **settings,
                             **self.search_args)
        spans = spans_by_unit(self.space)
        self.units = nn.ModuleList(
            (self.depth_unit_class if spec.kind == 'depth' else self.unit_class
             ).from_bank(self.bank, index)
            for index, spec in enumerate(self.space.layout.units))
        for unit in self.units:
            unit.relate(supernet, spans.get(unit.index, ()))
        self._name2unit = {unit.name: unit for unit in self.units}
        self._name2module = dict(supernet.named_modules())
        for name, config in self.units_cfg.items():
            if 'choice' in config:
                self.set_choices({name: config['choice']})
        return self.search

    # choices

    @property
    def search_groups(self) -> Dict[int, List[BankUnit]]:
        """Each unit that can change, as a group of its own."""
        return {i: [unit] for i, unit in enumerate(self.mutable_units)}

    @property
    def channel_units(self) -> List[DiffTopkChannelUnit]:
        """The width units."""
        return [u for u in self.units if not isinstance(u, DiffTopkDepthUnit)]

    @property
    def depth_units(self) -> List[DiffTopkDepthUnit]:
        """The depth units."""
        return [u for u in self.units if isinstance(u, DiffTopkDepthUnit)]

    def set_choices(self, choices: Dict[str, int]) -> None:
        """Set what units keep, all in one write to the bank.

        Args:
            choices (dict): Unit name to channels or blocks kept; units that
                are not named stay.

        Raises:
            KeyError: If there is no unit of that name.
            ValueError: If a unit cannot keep that many.
        """
        self.bank.set_kept(self.counts_of(choices))
        self.bank.mode = 'hard'

    def counts_of(self, choices: Dict[str, int]) -> Tensor:
        """Kept elements per group, int64 (U, ), with ``choices`` made.

        Errors are those of :meth:`set_choices`.
        """
        counts = self.bank.kept()
        for name, choice in choices.items():
            if name not in self._name2unit:
                raise KeyError(
                    f'there is no unit {name!r} in this network; the names '
                    'are those of mutator.choice_template')
            unit = self._name2unit[name]
            counts[unit.index] = unit.elements_of(choice)
        return counts

    def choices_of(self, kept: Tensor) -> Dict[str, int]:
        """What :meth:`counts_of` takes, of each unit that can change.

        Args:
            kept (Tensor): Kept elements per group, int64 (U, ).
        """
        return {
            unit.name: unit.choice_of(int(kept[unit.index]))
            for unit in self.mutable_units
        }

    def sample_choices(self, kind: str = 'random') -> Dict[str, int]:
        """A random choice for each unit that can change.

        Args:
            kind (str): ``'random'``, ``'max'`` or ``'min'``.
                Defaults to ``'random'``.

        Returns:
            dict[str, int]: Unit name to channels or blocks kept.
        """
        picks = dict(
            random=lambda unit: unit.sample_choice(),
            max=lambda unit: unit.max_choice,
            min=lambda unit: unit.min_choice)
        if kind not in picks:
            raise ValueError(f'there is no sampling of kind {kind!r}; use one '
                             f'of {list(picks)}')
        return {unit.name: picks[kind](unit) for unit in self.mutable_units}

    def resource_of(self,
                    choices: Dict[str, int],
                    metric: str = 'macs') -> float:
        """What a network would cost, without touching the bank.

        Args:
            choices (dict): As for :meth:`set_choices`.
            metric (str): What is counted. Defaults to ``'macs'``.

        Returns:
            float: In units of the metric.
        """
        counts = self.counts_of(choices)
        return float(
            self.space.resource(counts.double(),
                                self.bank.hard(counts).double(), metric))

    def config_template(self,
                        only_mutable_units: bool = False,
                        with_unit_init_args: bool = False,
                        with_channels: bool = False) -> Dict[str, Any]:
        """A config that builds this mutator with its present choices."""
        units = self.mutable_units if only_mutable_units else self.units
        return dict(
            type=f'mmrazor.{type(self).__name__}',
            input_shape=self.input_shape,
            **self.search_args,
            channel_unit_cfg=dict(
                type=self.unit_class.__name__,
                units={
                    unit.name:
                    unit.config_template(with_unit_init_args, with_channels)
                    for unit in units
                }),
            depth_unit_cfg=dict(type=self.depth_unit_class.__name__))
