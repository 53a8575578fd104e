# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling of any ``nn.Module`` in any training loop.

:class:`Search` ties all parts together; the OpenMMLab algorithm uses it too.
"""
from contextlib import contextmanager
from pathlib import Path
from typing import (Any, Callable, Dict, Iterator, List, Mapping, Optional,
                    Tuple, Union)

import torch
from torch import Tensor, nn

from .core.bank import Bank
from .core.budget import (FALL, HARDEN, TargetSchedule, check_shares,
                          metric_asked, no_schedule)
from .core.constraint import Constraint
from .core.decision import Decision, decide, share_of_projection
from .core.dropped import DroppedSteps
from .core.latency import needed
from .core.projection import project
from .core.search_state import restore_search, saved_search
from .core.steps import resolved
from .errors import check_whole, refuse_beside, refuse_unknown
from .masking.attach import attach, is_masked, make_bank, refuse_masked, unmask
from .masking.optimizers import Drive
from .moved import moved_names
from .preflight import Preflight, preflight
from .space import Space
from .subnet.checks import check_counts
from .subnet.export import Export, export_subnet
from .timing.gate import choose
from .trace import trace
from .tracing.options import Options
from .watch import (Progress, Status, Watchers, WriterLog, check_finished,
                    check_loss, soft_and_hard, status_of)

__getattr__ = moved_names(__name__)


class Search:
    """One search: a network, its masks, and the budget it has to meet.

    The constructor traces the network and puts the masks into its layers.
    After :meth:`attach` every ``optimizer.step()`` also updates the pruning
    ratios, by plain SGD with an own step size (paper, eq. 5 and A.3.5).

    Args:
        model (nn.Module): The supernet; its layers are masked in place.
        example_inputs (Any): What the model's forward takes, of the shape
            MACs are counted for: a tensor, a tuple or list of arguments, a
            mapping of keyword arguments. Needed unless ``space`` is given.
        target (float | str): 0.5, ``'50%'``, ``'2.0G'`` or 4.1e9.
        metric (str, optional): What ``target`` limits: ``'macs'`` (default),
            ``'params'`` or another of :data:`dms_razor.core.METRICS`.
        constraints (Mapping, optional): In place of both, several targets:
            ``dict(macs='50%', params='2M')``; see :mod:`.core.limits`.
        latency_table (str, optional): What ``tools/measure_latency.py`` wrote.
        total_steps (int, optional): Steps of the search proper, warm-up
            included. May come later, by :meth:`set_length`.
        warmup_steps (int): Leading steps with the supernet's cost as target.
        width_only_steps (int): If not 0, depth freezes after ``total_steps``
            and only widths move, as long as the loop goes on.
        lr (float | str): Step size of the ratios. By default 'auto', see
            :mod:`dms_razor.core.step_size`; the paper's is 5e-3.
        loss_weight (float | str): λ_res. By default 'auto', see
            :mod:`dms_razor.core.multiplier`; the paper's is 1.
        fall (float): Share of the search proper in which the target falls;
            then it rests. By default a third; 1 in the paper.
        harden (float): Share of all steps, the last, with hard masks in the
            network, see :meth:`Bank.harden`. A tenth; 0 in the paper.
        importance, decay, selector, seed: What elements are ranked by and
            what is learnt, see :class:`dms_razor.core.Bank`.
        forward (callable, optional): ``forward(model, *example_inputs)`` when
            the network is not simply called.
        constraint (callable, optional): Replaces ``loss_weight ·
            constraint_loss`` of the current and the target cost. Its own
            ``loss_weight``, if it has one, is the pre-flight's.
        space (Space, optional): A traced space, instead of tracing.
        bank (Bank, optional): A bank of that space, instead of a new one.
        **tracing: What may be removed (``units``, ``depth``, ``width`` …) and
            how it is found out, see :func:`dms_razor.trace.trace`.

    Raises:
        ValueError: If nothing can be pruned, the target is unreadable or out
            of reach, the network is already being searched, its MACs cannot
            be counted, or arguments contradict each other.

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
                 metric: Optional[str] = None,
                 constraints: Optional[Mapping] = None,
                 latency_table: Union[None, str, Path] = None,
                 total_steps: Optional[int] = None,
                 warmup_steps: int = 0,
                 width_only_steps: int = 0,
                 lr: Union[None, float, str] = None,
                 loss_weight: Union[None, float, str] = None,
                 fall: float = FALL,
                 harden: float = HARDEN,
                 importance: Union[None, str, Callable] = None,
                 decay: Optional[float] = None,
                 selector: Union[None, str, Callable] = None,
                 seed: Optional[int] = None,
                 forward: Optional[Callable] = None,
                 constraint: Optional[Callable] = None,
                 space: Optional[Space] = None,
                 bank: Optional[Bank] = None,
                 **tracing: Any) -> None:
        refuse_unknown('Search', tracing, Search, trace, Options)
        tracing = resolved(tracing, latency_table)
        tracing = refuse_beside(
            'space', space, example_inputs=example_inputs, **tracing)
        learning = dict(importance=importance, decay=decay, selector=selector)
        learning = refuse_beside('bank', bank, lr=lr, seed=seed, **learning)
        refuse_beside('constraint', constraint, loss_weight=loss_weight)
        refuse_masked(model)
        self.model, self.forward = model, forward
        self.metric = metric_asked(target, metric, constraints)
        self.fall, self.harden = check_shares(fall, harden)
        asked = constraints or (self.metric, )
        tracing.setdefault('metrics', needed(asked, latency_table))
        space = space or trace(model, forward=forward, **tracing)
        self.space = space.limiting(asked, latency_table)
        self.constraint = Constraint(self.space.resource, self.metric,
                                     constraint, loss_weight)
        check_counts(model, self.space)
        self.learning = {k: learning.get(k) for k in ('decay', 'seed')}
        self.bank = make_bank(model, self.space, bank, self.constraint.weight,
                              **learning)
        drive = dict(lr=self.bank.lr, loss_weight=self.constraint.weight)
        drive['selector'] = self.bank.selector
        self._report = found = preflight(self.space, target, self.metric,
                                         constraints, **drive).check()
        self.metric, self.target = found.metric, float(found.target)
        self.limits = self.constraint.limits = found.limits
        self.resource = (self.limits or self.space).resource
        self.dropped, self.watchers = DroppedSteps(), Watchers()
        self._handle, self.made_losses, self._projected = None, False, 0.
        self.own_clock, self.schedule = True, no_schedule
        self.step_count = self.total_steps = self.width_only_steps = 0
        if total_steps is not None or warmup_steps or width_only_steps:
            self.set_length(total_steps, warmup_steps, width_only_steps)
        self.attach_masks()

    def set_length(self,
                   total_steps: int,
                   warmup_steps: int = 0,
                   width_only_steps: int = 0) -> None:
        """Start the schedule, or again; arguments as for the constructor."""
        check_whole(
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            width_only_steps=width_only_steps)
        self.schedule = TargetSchedule(self._report.supernet[self.metric],
                                       self.target, total_steps, warmup_steps,
                                       self.fall)
        self.total_steps, self.width_only_steps = total_steps, width_only_steps
        self.bank.motion.auto.length = total_steps - warmup_steps
        self.step_count = 0
        self._report.total_steps = total_steps - warmup_steps

    @property
    def current_target(self) -> float:
        """r_t, what the schedule asks for now (paper, eq. 10)."""
        return self.schedule(self.step_count)

    @property
    def at_target(self) -> bool:
        """Whether ratios have moved and the target falls no further."""
        return self.bank.updates > 0 and (self.schedule is no_schedule
                                          or self.schedule(self.step_count + 1)
                                          <= self.target)

    @torch.no_grad()
    def current(self,
                hard: bool = False,
                metric: Optional[str] = None) -> float:
        """Cost of the network as it stands, in the search's metric or
        another; ``hard``: of the counts k, not of the continuous (1 − a)·N."""
        counts, masks = self.bank.counts(hard), self.bank.resource_masks(hard)
        return float(self.resource(counts, masks, metric or self.metric))

    def structure(self) -> List[Dict[str, Any]]:
        """Name, kind, ratio, kept and total of each unit, hard counts."""
        return self.space.layout.structure(self.bank.kept(), self.bank.ratios)

    def preflight(self) -> Preflight:
        """The report that was made before the start."""
        return self._report

    def budget(self, target: Union[None, float, str] = None) -> float:
        """A target in units of the metric, or TargetError."""
        return self.target if target is None else self._report.amount(target)

    def attach_masks(self) -> None:
        """Mask the layers, by name; again after modules were replaced."""
        self.reader = attach(self.model, self.space, self.bank)

    def unread_units(self) -> List[str]:
        """Units whose masks no layer has read since they were attached."""
        return self.reader.unread_units(self.space)

    @contextmanager
    def masks(self, mode: str = 'hard') -> Iterator[None]:
        """Run the network with other masks: one of :attr:`Bank.mode`, or
        'subnet', as it would be exported."""
        if mode == 'subnet' and not self.bank.given:
            self.bank.give(self.keep())
        before = self.bank.mode
        self.bank.mode = 'given' if mode == 'subnet' else mode
        try:
            yield
        finally:
            self.bank.mode = before

    def soft_and_hard(self, loss: Callable[[], Any]) -> Tuple[float, float]:
        """See :func:`dms_razor.watch.rounding.soft_and_hard`."""
        return soft_and_hard(self, loss)

    def close(self) -> nn.Module:
        """Let go of optimizer and network; the network is plain again."""
        self._release()
        return unmask(self.model)

    def _release(self) -> None:
        if self.attached:
            self._handle = self._handle.remove()

    @property
    def attached(self) -> bool:
        """Whether an optimizer drives the ratios."""
        return self._handle is not None

    def attach(self, optimizer: torch.optim.Optimizer) -> 'Search':
        """Let every ``optimizer.step()``, also of a wrapper, update ratios
        once, closures included; not if a ``GradScaler`` skips it. Errors are
        those of :class:`.masking.optimizers.Drive`."""
        self._release()
        self.reader.check(self.model)
        if not is_masked(self.model, self.space):  # LoRA, put in since
            self.attach_masks()
        self._handle = Drive(optimizer, self.step,
                             lambda: self.bank.drop_gradient(), self.model)
        return self

    def loss(self, task_loss: Tensor) -> Tensor:
        """The loss to call backward on (paper, eq. 5), L_task + λ_res·L_res.
        L_res is a mere number in it: the ratios get its gradient directly."""
        self.watchers.see(task_loss)
        check_loss(task_loss)
        return task_loss + self.resource_term().to(task_loss.dtype)

    def resource_term(self) -> Tensor:
        """λ_res·L_res as a number and the bank's anchor, once for each loss;
        its backward is the moment to see that the step before was skipped."""
        self.made_losses = True
        value = self.constraint.term(self.bank, self.current_target)
        anchor = self.bank.loss_anchor()
        if anchor.requires_grad:
            grads = self._handle.gradients if self.attached else tuple
            anchor.register_hook(lambda _: self.dropped.look(
                self.bank, grads(), self.step_count))
        return value.to(anchor.dtype) + anchor

    def step(self) -> bool:
        """Update importance and ratios from the gradients of one step.

        Called by the optimizer's hook; by hand, after backward, only in a loop
        without an optimizer (ratios alone, the paper's DMS_p-). False if the
        gradient was not finite; :mod:`dms_razor.core.dropped` says the rest.
        """
        done = self.constraint.update(self.bank, self.current_target)
        self.dropped.count(done, self.step_count)
        if self.own_clock:
            self.advance(self.step_count + 1)
        self.watchers.tell(self)
        return done

    def advance(self, step: int) -> None:
        """Set the clock to so many steps, and freeze depth in time.

        A loop with a clock of its own sets ``search.own_clock = False`` first.
        """
        self.step_count = step
        self._harden_in_time()
        if (self.width_only_steps and step >= self.total_steps
                and not self.bank.depth_frozen):
            self.freeze_depth()

    def _harden_in_time(self) -> None:
        steps = self.total_steps + self.width_only_steps
        self.bank.harden(0 < steps * self.harden >= steps - self.step_count)

    def freeze_depth(self) -> None:
        """Project onto the budget; from here on only widths move."""
        kept = self.project()
        self._projected = share_of_projection(self.bank, self.resource,
                                              self.metric, kept)
        self.bank.set_kept(kept)
        self.bank.freeze_depth()

    def decision(self, left: int = 0) -> Decision:
        """Who decided what would be exported now, ``left`` steps too early."""
        return decide(self.bank, self.resource, self.metric, self.target,
                      self._report.resource_only, self._projected,
                      self.constraint.weight, left)

    def state_dict(self) -> Dict[str, Any]:
        """Everything a resumed search needs, in tensors."""
        return saved_search(self)

    def load_state_dict(self,
                        state: Dict[str, Any],
                        with_changes: bool = False) -> None:
        """Take up a state that :meth:`state_dict` gave; else ValueError, and
        nothing is changed. So it is if the search was begun with another
        target, length, … than this one, unless ``with_changes``."""
        restore_search(self, state, with_changes)
        self._harden_in_time()

    def project(self, target: Optional[float] = None) -> Tensor:
        """Kept elements a group of the best network in a budget, ``[U]``:
        :func:`dms_razor.core.project`; ``target`` is in units of the metric.
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
        """The selection, bool ``[E]``: the k most important of each group;
        k is ``kept``, int64 ``[U]``, by default that of :meth:`project`."""
        return self.bank.hard(self.project() if kept is None else kept)

    def export(self,
               out_dir: Union[str, Path],
               target: Union[None, float, str] = None,
               **kwargs: Any) -> Export:
        """Write the network that meets the target; the search can go on.

        ``out_dir`` appears whole, ``target`` may be another budget; the rest:
        :func:`.timing.gate.choose`, :func:`dms_razor.subnet.export_subnet`.

        Raises:
            RuntimeError, ValueError: :func:`.watch.finished.check_finished`.
            TargetError: If no network of the space meets the target.
        """
        refuse_unknown('export', kwargs, Search.export, export_subnet, choose)
        left = check_finished(self)
        budget = self.budget(target)
        searched = self.bank.motion.account.steps > 0 and budget == self.target
        return export_subnet(
            out_dir,
            self.model,
            target=budget,
            metric=self.metric,
            limits=self.limits and self.limits.upto(budget),
            forward=self.forward,
            decision=self.decision(left) if searched else None,
            **choose(self, budget, **kwargs))

    def status(self) -> Status:
        """Where the search stands and who decides; print it."""
        return status_of(self)

    def __repr__(self) -> str:
        return self.status().text()

    def on_step(self, callback: Callable[['Search'], Any]) -> Callable:
        """Call ``callback(search)`` after each step; returns what ends it."""
        return self.watchers.add(callback)

    def show_progress(self, **settings: Any) -> Callable:
        """Show a bar, or lines: :class:`dms_razor.watch.Progress`."""
        return self.on_step(Progress(**settings))

    def log_to(self, writer: Any, every: int = 10) -> Callable:
        """Write curves for a logger: :class:`dms_razor.watch.WriterLog`."""
        return self.on_step(WriterLog(writer, every))
