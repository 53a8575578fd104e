# Copyright (c) dms_razor contributors. All rights reserved.
"""What can be read off a search: its cost, its structure, its subnets."""
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Union

import torch
from torch import Tensor, nn

from .core.bank import Bank
from .core.projection import project
from .core.schedule import TargetSchedule
from .core.target import check_target, parse_target
from .core.topk import hard_masks
from .masking import MaskReader, attach
from .preflight import Preflight
from .subnet import Export, export_subnet


class SearchView:
    """The reading half of :class:`dms_razor.search.Search`.

    Attributes:
        model (nn.Module): The supernet, with masked layers.
        space (Space): The traced space.
        bank (Bank): Ratios, importances and masks.
        metric (str): ``'macs'`` or ``'params'``.
        target (float): The final target, in units of ``metric``.
        schedule (TargetSchedule): Target by step.
        step_count (int): Steps that lie behind.
    """
    model: nn.Module
    space: Any
    bank: Bank
    metric: str
    target: float
    schedule: TargetSchedule
    step_count: int
    forward: Optional[Callable]
    reader: MaskReader
    _report: Preflight
    _losses: bool

    @property
    def resource(self):
        """ResourceModel: cost as a closed form in the kept counts."""
        return self.space.resource

    @property
    def current_target(self) -> float:
        """r_t, what the schedule asks for now (paper, eq. 10)."""
        return self.schedule(self.step_count)

    def current(self, hard: bool = False, metric: Optional[str] = None):
        """Cost of the network as it stands.

        Args:
            hard (bool): Of the hard counts k, else of the continuous
                (1 − a)·N that the loss sees. Defaults to False.
            metric (str, optional): Defaults to the search's own.

        Returns:
            float: MACs or parameters.
        """
        with torch.no_grad():
            return float(
                self.resource(
                    self.bank.counts(hard), self.bank.resource_masks(hard),
                    metric or self.metric))

    @property
    def at_target(self) -> bool:
        """Whether ratios have moved and the target has come to its end."""
        return (self.bank.updates > 0
                and self.schedule(self.step_count + 1) == self.target)

    def structure(self) -> List[Dict[str, Any]]:
        """What each unit keeps now: name, kind, ratio, kept, total.

        Channels for width, blocks for depth; hard counts.
        """
        kept = self.bank.kept().tolist()
        ratios = self.bank.ratios.tolist()
        return [
            dict(
                name=unit.name,
                kind=unit.kind,
                ratio=ratio,
                kept=k * unit.groups * unit.step,
                total=unit.channels)
            for unit, k, ratio in zip(self.space.layout.units, kept, ratios)
        ]

    def attach_masks(self) -> None:
        """Mask the layers, by name; again after modules were replaced.

        SyncBN conversion and the like put new modules in place of old ones.
        """
        self.reader = attach(self.model, self.space, lambda: self.bank.current)

    def unread_units(self) -> List[str]:
        """Units whose masks no layer has read since the masks were attached.

        Empty after a forward pass; otherwise the names of units whose ratios
        would move without any effect on the network.
        """
        element_of = self.space.layout.unit_of_element
        read = torch.zeros(self.space.layout.U, dtype=torch.bool)
        for site in self.space.mask_sites:
            if site.module in self.reader.read:
                read[element_of[site.index[site.index >= 0]]] = True
        for block in self.space.blocks:
            if any(tail.module in self.reader.read for tail in block.tails):
                read[element_of[block.element]] = True
        return [
            unit.name for unit, seen in zip(self.space.layout.units, read)
            if not seen
        ]

    def preflight(self) -> Preflight:
        """The report that was made before the start."""
        return self._report

    def project(self, target: Optional[float] = None) -> Tensor:
        """The hard counts nearest to the ratios that meet a budget.

        Changes nothing in the search. Depth stays as it is once frozen.

        Args:
            target (float, optional): In units of the metric; defaults to the
                search's final target.

        Returns:
            Tensor: Kept elements per group, int64 ``[U]``.

        Raises:
            TargetError: If no network of the space meets the target.
        """
        return project(
            self.space.layout,
            self.resource,
            self.bank.ratios,
            self.metric,
            self.target if target is None else target,
            ranks=self.bank.ranks,
            depth_kept=self.bank.kept() if self.bank.depth_frozen else None)

    def keep(self, kept: Optional[Tensor] = None) -> Tensor:
        """Which elements the network with these counts keeps.

        Args:
            kept (Tensor, optional): Counts, int64 ``[U]``; defaults to
                :meth:`project`.

        Returns:
            Tensor: bool ``[E]``, the k most important of each group.
        """
        kept = self.project() if kept is None else kept
        ranks = self.bank.ranks
        return hard_masks(kept.to(ranks.device), ranks, self.space.layout)

    @contextmanager
    def masks(self, mode: str = 'hard') -> Iterator[None]:
        """Run the network with other masks for a while.

        Args:
            mode (str): ``'hard'``, what the ratios round to (the default),
                ``'subnet'``, the network as it would be exported,
                ``'soft'``, as in training, or ``'off'``, the supernet as it
                was.
        """
        if mode == 'subnet':
            mode = 'given'
            if not self.bank.given:
                self.bank.give(self.keep())
        before, self.bank.mode = self.bank.mode, mode
        try:
            yield
        finally:
            self.bank.mode = before

    def export(self,
               out_dir: Union[str, Path],
               target: Union[None, float, str] = None,
               **kwargs: Any) -> Export:
        """Write the network that meets the target to a folder.

        Changes nothing in the search, so it can be called at any time and
        for several targets.

        Args:
            out_dir (str | Path): Folder to write; it appears whole.
            target (float | str, optional): Another budget than the search's.
            **kwargs: ``retrain``, ``picture``, ``inputs``; see
                :func:`dms_razor.subnet.export_subnet`.

        Returns:
            Export: ``model`` is the subnet, shrunk and without masks,
            ``report`` says what it costs.

        Raises:
            RuntimeError: If losses were made and the ratios never updated.
            TargetError: If no network of the space meets the target.
        """
        if self._losses and self.bank.updates == 0:
            raise RuntimeError(
                'this search has given losses and has not made a step: its '
                'ratios are where they began. Call search.attach(optimizer) '
                'before the loop, or search.step() after each backward.')
        budget = self.budget(target)
        return export_subnet(
            out_dir,
            self.model,
            self.space,
            self.keep(self.project(budget)),
            target=budget,
            metric=self.metric,
            forward=self.forward,
            **kwargs)

    def budget(self, target: Union[None, float, str] = None) -> float:
        """A target in units of the metric; by default the search's own.

        Args:
            target (float | str, optional): ``0.8``, ``'80%'``, ``'2.0G'``…

        Raises:
            TargetError: If it is unreadable or out of reach.
        """
        if target is None:
            return self.target
        whole = self._report.supernet[self.metric]
        figure = parse_target(target, whole, self.metric)
        check_target(figure, whole, self._report.minimum[self.metric],
                     self.metric)
        return figure
