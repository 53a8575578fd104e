# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling of any ``nn.Module`` in any training loop.

Nothing of OpenMMLab is needed here: :class:`Search` ties the tracer, the bank
of ratios and masks, the resource model and the export together for a loop of
one's own. The OpenMMLab algorithm uses the same class.
"""
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import (Any, Callable, Dict, Iterable, Iterator, List, Optional,
                    Union)

import torch
from torch import Tensor, nn

from .core.bank import Bank, check_lr, make_bank
from .core.budget import (TargetSchedule, check_target, check_weight,
                          constraint_loss, parse_target)
from .core.projection import project
from .core.topk import hard_masks
from .masking.attach import MaskReader, attach, unmask
from .masking.layers import MaskedLayer
from .preflight import Preflight, preflight
from .subnet.checks import check_counts
from .subnet.export import Export, export_subnet
from .trace import trace


def drop_stale_gradient(bank: Bank, weights: Iterable[Tensor]) -> bool:
    """Forget what the masks hold of a step that was skipped.

    A ``GradScaler`` that sees infinities skips ``optimizer.step`` and with it
    the bank's update. ``zero_grad`` clears the weights, which it knows, and
    not the masks, which it does not. Between the micro-batches of one
    accumulated step, however, the weights do have gradients.

    Args:
        bank (Bank): The search's state.
        weights (Iterable[Tensor]): What the optimizer trains.

    Returns:
        bool: Whether something was dropped.
    """
    if bank.masks.grad is None:
        return False
    weights = list(weights)
    # zero_grad(set_to_none=False) leaves zeros.
    cleared = bool(weights) and not any(
        weight.grad is not None and bool(weight.grad.any())
        for weight in weights)
    stale = cleared or not bool(bank.masks.grad.isfinite().all())
    if stale:
        bank.drop_gradient()
    return stale


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


class SearchStep(SearchView):
    """The moving half of :class:`dms_razor.search.Search`.

    Attributes:
        constraint (callable): Weighted resource loss of the current and the
            target cost.
        total_steps (int): Length of the search proper.
        width_only_steps (int): Length of the phase with frozen depth.
        own_clock (bool): Whether :meth:`step` moves the target's clock.
    """
    constraint: Callable
    total_steps: int
    width_only_steps: int
    own_clock: bool = True
    _handle = None
    _term: Optional[Tensor] = None
    _losses: bool = False
    _weights: List[nn.Parameter] = []

    @property
    def attached(self) -> bool:
        """Whether an optimizer drives the ratios."""
        return self._handle is not None

    def attach(self, optimizer: torch.optim.Optimizer) -> 'SearchStep':
        """Let every ``optimizer.step()`` update the ratios first.

        A step that a ``GradScaler`` skips because of infinite gradients
        skips the ratios too.

        Args:
            optimizer (torch.optim.Optimizer): The weights' optimizer; it does
                not get to know the ratios.

        Returns:
            Search: self.
        """
        if self._handle is not None:
            self._handle.remove()
        self._weights = [
            weight for group in optimizer.param_groups
            for weight in group['params'] if weight.requires_grad
        ]
        self._handle = optimizer.register_step_pre_hook(self._before_step)
        return self

    def loss(self, task_loss: Tensor) -> Tensor:
        """The loss to call backward on (paper, eq. 5): L_task + λ_res·L_res.

        Args:
            task_loss (Tensor): The task's loss, a scalar.

        Returns:
            Tensor: A scalar with the task's gradient. L_res is in it as a
            number; its gradient goes to the ratios in closed form.
        """
        return task_loss + self.resource_term().to(task_loss.dtype)

    def resource_term(self) -> Tensor:
        """λ_res·L_res as a number, with the anchor that measures loss scales.

        To be added once to each loss that is backpropagated. The anchor p − p
        is zero; its gradient is the factor by which AMP and gradient
        accumulation scale the loss, and the bank divides by it.

        Returns:
            Tensor: A scalar.
        """
        self._losses = True
        drop_stale_gradient(self.bank, self._weights)
        if self._term is None:
            with torch.no_grad():
                self._term = self._resource_loss(self.bank.counts(),
                                                 self.bank.resource_masks())
        anchor = self.bank.loss_anchor()
        return self._term.to(anchor.dtype) + anchor

    def step(self) -> bool:
        """Update importance and ratios from the gradients of one step.

        Called by the optimizer's hook; call it by hand, after backward, only
        in a loop without an optimizer (ratios alone, the paper's DMS_p-).

        Returns:
            bool: False if the gradient was not finite and was dropped.
        """
        done = self.bank.update(self._resource_loss)
        self._term = None
        if self.own_clock:
            self.advance(self.step_count + 1)
        return done

    def advance(self, step: int) -> None:
        """Set the clock of the target schedule, and freeze depth in time.

        :meth:`step` moves the clock by itself. A loop whose schedule counts
        something else, such as iterations of which several make one optimizer
        step, sets ``search.own_clock = False`` and calls this.

        Args:
            step (int): Steps that lie behind.
        """
        self.step_count = step
        self._term = None
        if (self.width_only_steps and step >= self.total_steps
                and not self.bank.depth_frozen):
            self.freeze_depth()

    def freeze_depth(self) -> None:
        """Project onto the budget and fix which blocks stay.

        From here on depth is hard in the forward pass and in the resource,
        and only widths move (METHOD: section 3).
        """
        kept = self.project()
        self.bank.set_kept(kept)
        self.bank.freeze_depth()
        self._term = None

    def _before_step(self, optimizer, args, kwargs) -> None:
        """The optimizer's pre-hook."""
        self.step()

    def _resource_loss(self, counts: Tensor, masks: Tensor) -> Tensor:
        """λ_res·L_res of soft counts (U, ) and masks (E, ); a scalar."""
        cost = self.space.resource(counts, masks, self.metric)
        return self.constraint(cost, self.current_target)


class Search(SearchStep):
    """One search: a network, its masks, and the budget it has to meet.

    The constructor traces the network, puts the masks into its layers and
    refuses a target that cannot be met. After :meth:`attach` every
    ``optimizer.step()`` also updates the pruning ratios, by plain SGD with an
    own step size (paper, eq. 5 and appendix A.3.5).

    Args:
        model (nn.Module): The supernet; its layers are masked in place.
        example_inputs (Tensor | tuple): What the model's forward takes, of
            the shape MACs are counted for. Needed unless ``space`` is given.
        target (float | str): 0.5, ``'50%'``, ``'2.0G'`` or 4.1e9.
        metric (str): What ``target`` limits, ``'macs'`` or ``'params'``.
        total_steps (int): Steps of the search proper, warm-up included.
        warmup_steps (int): Leading steps with the supernet's cost as target.
        width_only_steps (int): Steps after ``total_steps`` in which depth is
            frozen and hard and only widths move. Used to know whether depth
            freezes; the search goes on as long as the loop does.
        lr (float): Step size of the ratios.
        loss_weight (float): λ_res, the weight of the resource loss.
        importance (str): A name of :mod:`dms_razor.core.importance`.
        decay (float): Moving average of the importance.
        units (dict, optional): ``{name pattern: dict(fixed=True)}`` or
            ``divisor``, ``least``, ``most``, ``choices``; see
            :func:`tracing.trace`.
        depth (bool): Whether blocks may be removed.
        width (bool): Whether channels may be removed.
        heads (bool): Whether attention heads may be removed.
        qk (bool): Whether query/key dims may be removed.
        v (bool): Whether value dims may be removed.
        seed (int): Of the order in which equally important elements go.
        forward (callable, optional): ``forward(model, *example_inputs)`` when
            the network is not simply called.
        constraint (callable, optional): Replaces ``loss_weight ·
            constraint_loss``; gets the current and the target cost.
        space (Space, optional): A traced space, instead of tracing.
        bank (Bank, optional): A bank of that space, instead of a new one.

    Raises:
        ValueError: If nothing can be pruned or the target is unreadable,
            above the supernet or below the smallest network of the space;
            the network is already being searched, or its MACs cannot be
            counted.

    Example:
        >>> search = Search(model, images[:1], target=0.5, total_steps=900)
        >>> search.attach(optimizer)
        >>> for images, labels in loader:
        ...     optimizer.zero_grad()
        ...     search.loss(criterion(model(images), labels)).backward()
        ...     optimizer.step()
        >>> subnet = search.export('subnet').model
    """

    def __init__(self,
                 model: nn.Module,
                 example_inputs: Any = None,
                 target: Union[float, str] = 0.5,
                 *,
                 metric: str = 'macs',
                 total_steps: int,
                 warmup_steps: int = 0,
                 width_only_steps: int = 0,
                 lr: float = 5e-3,
                 loss_weight: float = 1.0,
                 importance: str = 'taylor',
                 decay: float = .99,
                 units: Optional[Dict[str, dict]] = None,
                 depth: bool = True,
                 width: bool = True,
                 heads: bool = True,
                 qk: bool = True,
                 v: bool = True,
                 seed: int = 0,
                 forward: Optional[Callable] = None,
                 constraint: Optional[Callable] = None,
                 space=None,
                 bank: Optional[Bank] = None) -> None:
        check_lr(lr)
        check_weight(loss_weight)
        if target is None:
            raise ValueError('a search needs a target: a share (0.5, "50%") '
                             'or an amount ("2.0G", 4.1e9)')
        masked = next((name for name, module in model.named_modules()
                       if isinstance(module, MaskedLayer)), None)
        if masked is not None and bank is None:
            raise ValueError(
                f'the layer "{masked}" already has the masks of a search. '
                'close() that search first, or search a copy of the network '
                'that was made before it.')
        traced = space is None
        if traced:
            space = trace(
                model,
                example_inputs,
                forward=forward,
                units=units,
                depth=depth,
                width=width,
                heads=heads,
                qk=qk,
                v=v)
        self.space, self.metric, self.forward = space, metric, forward
        self._report = preflight(
            space,
            target,
            metric,
            lr=lr if bank is None else bank.lr,
            loss_weight=loss_weight).check()
        if traced:
            check_counts(model, space)
        self.target = self._report.target
        self.set_length(total_steps, warmup_steps, width_only_steps)
        if bank is None:
            bank = make_bank(
                model,
                space,
                importance=importance,
                decay=decay,
                lr=lr,
                seed=seed)
        self.model, self.bank = model, bank
        self.constraint = constraint or partial(
            weighted_constraint, weight=loss_weight)
        self.attach_masks()

    def set_length(self,
                   total_steps: int,
                   warmup_steps: int = 0,
                   width_only_steps: int = 0) -> None:
        """Start the target schedule again with another length.

        Args: as for the constructor.

        Raises:
            ValueError: If a length is no whole number or below 0, or there
                are no steps in which the target falls.
        """
        for name, length in (('total_steps', total_steps), ('warmup_steps',
                                                            warmup_steps),
                             ('width_only_steps', width_only_steps)):
            if not isinstance(length, Integral) or length < 0:
                raise ValueError(f'{name} is {length!r}; give a whole number '
                                 'of steps, not below 0')
        self.schedule = TargetSchedule(self._report.supernet[self.metric],
                                       self.target, total_steps, warmup_steps)
        self.total_steps = total_steps
        self.width_only_steps = width_only_steps
        self.step_count = 0
        self._report.total_steps = total_steps - warmup_steps

    # state

    def state_dict(self) -> Dict[str, Any]:
        """Everything a resumed search needs, in tensors."""
        return dict(
            bank=self.bank.state_dict(),
            step_count=torch.tensor(self.step_count))

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Take up a state that :meth:`state_dict` gave.

        Raises:
            ValueError: If it is not the state of a search in this space.
        """
        missing = [key for key in ('bank', 'step_count') if key not in state]
        if missing:
            raise ValueError(
                f'the search state lacks {missing}; load the dict that '
                'Search.state_dict() returned')
        self.bank.load_state_dict(state['bank'])
        self.step_count = int(state['step_count'])
        self._term = None

    def close(self) -> nn.Module:
        """Let go of optimizer and network; the network is plain again."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        unmask(self.model)
        return self.model


def weighted_constraint(current: Tensor, target: float,
                        weight: float) -> Tensor:
    """λ_res·log(r_c / r_t) above the target, else 0 (paper, eq. 6, 7)."""
    return weight * constraint_loss(current, target)
