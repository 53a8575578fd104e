# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling of any ``nn.Module`` in any training loop.

Nothing of OpenMMLab is needed here: :class:`Search` ties the tracer, the bank
of ratios and masks, the resource model and the export together for a loop of
one's own. The OpenMMLab algorithm uses the same class.
"""
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Union

import torch
from torch import Tensor, nn

from .core.bank import Bank
from .core.budget import (TargetSchedule, check_steps, check_weight,
                          constraint_loss)
from .core.gradient import LossTerm
from .core.projection import project
from .core.resource import ResourceModel
from .core.topk import hard_masks
from .errors import refuse_beside
from .masking.attach import attach, refuse_masked, unmask
from .moved import moved_names
from .preflight import Preflight, preflight
from .space import Space
from .subnet.checks import check_counts
from .subnet.export import Export, export_subnet
from .trace import trace

__getattr__ = moved_names(__name__)


class Search:
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
        metric (str): What ``target`` limits: ``'macs'``, ``'params'`` or
            another name of :data:`dms_razor.core.METRICS`.
        total_steps (int, optional): Steps of the search proper, warm-up
            included. May come later, by :meth:`set_length`.
        warmup_steps (int): Leading steps with the supernet's cost as target.
        width_only_steps (int): Steps after ``total_steps`` in which depth is
            frozen and hard and only widths move. Used to know whether depth
            freezes; the search goes on as long as the loop does.
        lr (float): Step size of the ratios. Defaults to 5e-3.
        loss_weight (float): λ_res, the weight of the resource loss. Defaults
            to 1.
        importance, decay, selector, seed: What elements are ranked by and
            what is learnt; see :class:`dms_razor.core.Bank`.
        units, depth, width, heads, qk, v: What may be removed; see
            :func:`dms_razor.trace.trace`.
        forward (callable, optional): ``forward(model, *example_inputs)`` when
            the network is not simply called.
        constraint (callable, optional): Replaces ``loss_weight ·
            constraint_loss``; gets the current and the target cost. The
            pre-flight reads its ``loss_weight``, if it has one.
        space (Space, optional): A traced space, instead of tracing.
        bank (Bank, optional): A bank of that space, instead of a new one.

    Attributes:
        model (nn.Module): The supernet, with masked layers.
        space (Space): The traced space.
        bank (Bank): Ratios, importances and masks.
        metric (str): What the target limits.
        target (float): The final target, in units of ``metric``.
        step_count (int): Steps that lie behind.
        total_steps, width_only_steps (int): Length of the two phases.
        constraint (callable): Weighted resource loss of the current and the
            target cost.
        own_clock (bool): Whether :meth:`step` moves the target's clock.

    Raises:
        ValueError: If nothing can be pruned or the target is unreadable,
            above the supernet or below the smallest network of the space;
            the network is already being searched, its MACs cannot be
            counted, or arguments contradict each other.

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
                 total_steps: Optional[int] = None,
                 warmup_steps: int = 0,
                 width_only_steps: int = 0,
                 lr: Optional[float] = None,
                 loss_weight: Optional[float] = None,
                 importance: Union[None, str, Callable] = None,
                 decay: Optional[float] = None,
                 selector: Union[None, str, Callable] = None,
                 units: Optional[Dict[str, dict]] = None,
                 depth: Optional[bool] = None,
                 width: Optional[bool] = None,
                 heads: Optional[bool] = None,
                 qk: Optional[bool] = None,
                 v: Optional[bool] = None,
                 seed: Optional[int] = None,
                 forward: Optional[Callable] = None,
                 constraint: Optional[Callable] = None,
                 space: Optional[Space] = None,
                 bank: Optional[Bank] = None) -> None:
        learnt = given(
            importance=importance,
            decay=decay,
            selector=selector,
            lr=lr,
            seed=seed)
        tracing = given(
            units=units, depth=depth, width=width, heads=heads, qk=qk, v=v)
        refuse_beside('space', space, example_inputs=example_inputs, **tracing)
        refuse_beside('bank', bank, **learnt)
        refuse_beside('constraint', constraint, loss_weight=loss_weight)
        if target is None:
            raise ValueError('a search needs a target: a share (0.5, "50%") '
                             'or an amount ("2.0G", 4.1e9)')
        weight = check_weight(
            getattr(constraint, 'loss_weight', 1.) if loss_weight is
            None else loss_weight)
        refuse_masked(model)
        self.model, self.forward, self.metric = model, forward, metric
        self.constraint = constraint or partial(constraint_loss, weight=weight)
        self.space = space or trace(
            model, example_inputs, forward=forward, **tracing)
        check_counts(model, self.space)
        self.bank = bank or make_bank(model, self.space, **learnt)
        self._report = preflight(
            self.space,
            target,
            metric,
            lr=self.bank.lr,
            loss_weight=weight,
            selector=self.bank.selector).check()
        self.target = self._report.target
        self.own_clock, self.step_count = True, 0
        self._term = LossTerm(self.bank, self._resource_loss)
        self._handle = self._schedule = None
        self.total_steps = self.width_only_steps = 0
        if total_steps is not None or warmup_steps or width_only_steps:
            self.set_length(total_steps, warmup_steps, width_only_steps)
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
        check_steps(
            'number of steps',
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            width_only_steps=width_only_steps)
        self._schedule = TargetSchedule(self._report.supernet[self.metric],
                                        self.target, total_steps, warmup_steps)
        self.total_steps = total_steps
        self.width_only_steps = width_only_steps
        self.step_count = 0
        self._report.total_steps = total_steps - warmup_steps

    # what it is and costs now

    @property
    def resource(self) -> ResourceModel:
        """Cost as a closed form in the kept counts."""
        return self.space.resource

    @property
    def schedule(self) -> TargetSchedule:
        """Target by step; RuntimeError as long as there is no length."""
        if self._schedule is None:
            raise RuntimeError('this search has no length yet, so that its '
                               'target cannot fall: give total_steps, or call '
                               'set_length before the loop')
        return self._schedule

    @property
    def current_target(self) -> float:
        """r_t, what the schedule asks for now (paper, eq. 10)."""
        return self.schedule(self.step_count)

    @property
    def at_target(self) -> bool:
        """Whether ratios have moved and the target has come to its end.

        A search that was loaded to be evaluated, without a length, has.
        """
        fallen = (
            self._schedule is None
            or self._schedule(self.step_count + 1) == self.target)
        return self.bank.updates > 0 and fallen

    @torch.no_grad()
    def current(self,
                hard: bool = False,
                metric: Optional[str] = None) -> float:
        """Cost of the network as it stands.

        Args:
            hard (bool): Of the hard counts k, else of the continuous
                (1 − a)·N that the loss sees. Defaults to False.
            metric (str, optional): Defaults to the search's own.
        """
        counts, masks = self.bank.counts(hard), self.bank.resource_masks(hard)
        return float(self.resource(counts, masks, metric or self.metric))

    def structure(self) -> List[Dict[str, Any]]:
        """What each unit keeps now: name, kind, ratio, kept, total.

        Channels for width, blocks for depth; hard counts.
        """
        return self.space.layout.structure(self.bank.kept(), self.bank.ratios)

    def preflight(self) -> Preflight:
        """The report that was made before the start."""
        return self._report

    def budget(self, target: Union[None, float, str] = None) -> float:
        """A target in units of the metric; by default the search's own.

        Args:
            target (float | str, optional): ``0.8``, ``'80%'``, ``'2.0G'``…

        Raises:
            TargetError: If it is unreadable or out of reach.
        """
        return (self.target if target is None else self._report.amount(target))

    # masks in the network

    def attach_masks(self) -> None:
        """Mask the layers, by name; again after modules were replaced.

        SyncBN conversion and the like put new modules in place of old ones.
        """
        self.reader = attach(self.model, self.space, lambda: self.bank.current)

    def unread_units(self) -> List[str]:
        """Units whose masks no layer has read since they were attached."""
        return self.reader.unread_units(self.space)

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

    def close(self) -> nn.Module:
        """Let go of optimizer and network; the network is plain again."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        return unmask(self.model)

    # a training loop's part

    @property
    def attached(self) -> bool:
        """Whether an optimizer drives the ratios."""
        return self._handle is not None

    def attach(self, optimizer: torch.optim.Optimizer) -> 'Search':
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
        self._term.weights = [
            weight for group in optimizer.param_groups
            for weight in group['params'] if weight.requires_grad
        ]
        self._handle = optimizer.register_step_pre_hook(self._before_step)
        return self

    def _before_step(self, optimizer, args, kwargs) -> None:
        self.step()

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
        """
        return self._term()

    def _resource_loss(self, counts: Tensor, masks: Tensor) -> Tensor:
        """λ_res·L_res of soft counts [U] and masks [E]; a scalar."""
        cost = self.resource(counts, masks, self.metric)
        return self.constraint(cost, self.current_target)

    def step(self) -> bool:
        """Update importance and ratios from the gradients of one step.

        Called by the optimizer's hook; call it by hand, after backward, only
        in a loop without an optimizer (ratios alone, the paper's DMS_p-).

        Returns:
            bool: False if the gradient was not finite and was dropped.
        """
        done = self.bank.update(self._resource_loss)
        self._term.forget()
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
        self._term.forget()
        if (self.width_only_steps and step >= self.total_steps
                and not self.bank.depth_frozen):
            self.freeze_depth()

    def freeze_depth(self) -> None:
        """Project onto the budget and fix which blocks stay.

        From here on depth is hard in the forward pass and in the resource,
        and only widths move (METHOD: section 3).
        """
        self.bank.set_kept(self.project())
        self.bank.freeze_depth()
        self._term.forget()

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
        self._term.forget()

    # the network that is found

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
            depth_kept=self.bank.frozen_kept)

    def keep(self, kept: Optional[Tensor] = None) -> Tensor:
        """Which elements the network with these counts keeps.

        Args:
            kept (Tensor, optional): Counts, int64 ``[U]``; defaults to
                :meth:`project`.

        Returns:
            Tensor: bool ``[E]``, the k most important of each group.
        """
        kept = self.project() if kept is None else kept
        return hard_masks(kept, self.bank.ranks, self.space.layout)

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
        if self._term.used and self.bank.updates == 0:
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


def given(**arguments: Any) -> Dict[str, Any]:
    """Arguments that are not None: those that a caller has given."""
    return {k: value for k, value in arguments.items() if value is not None}


def make_bank(model: nn.Module, space: Space, **settings: Any) -> Bank:
    """The bank of a space, on the device of the model."""
    weight = next(model.parameters())
    # Low precision is for activations: masks stay in float32 at least.
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return Bank(space.layout, dtype=dtype, **settings).to(weight.device)
