# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling of any ``nn.Module`` in any training loop.

Nothing of OpenMMLab is needed here: :class:`Search` ties the tracer, the bank
of ratios and masks, the resource model and the export together for a loop of
one's own. The OpenMMLab algorithm uses the same class.
"""
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Union

import torch
from torch import Tensor, nn

from .core.bank import Bank
from .core.constraint import constraint_loss
from .core.schedule import TargetSchedule
from .masking import unmask
from .preflight import preflight
from .search_view import SearchView
from .stale_gradient import drop_stale_gradient
from .tracing import trace


class Search(SearchView):
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
            ``divisor``, ``least``, ``most``; see :func:`tracing.trace`.
        depth (bool): Whether blocks may be removed.
        width (bool): Whether channels may be removed.
        seed (int): Of the order in which equally important elements go.
        forward (callable, optional): ``forward(model, *example_inputs)`` when
            the network is not simply called.
        constraint (callable, optional): Replaces ``loss_weight ·
            constraint_loss``; gets the current and the target cost.
        space (Space, optional): A traced space, instead of tracing.
        bank (Bank, optional): A bank of that space, instead of a new one.

    Raises:
        ValueError: If nothing can be pruned or the target is unreadable,
            above the supernet or below the smallest network of the space.

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
                 seed: int = 0,
                 forward: Optional[Callable] = None,
                 constraint: Optional[Callable] = None,
                 space=None,
                 bank: Optional[Bank] = None) -> None:
        if space is None:
            space = trace(
                model,
                example_inputs,
                forward=forward,
                units=units,
                depth=depth,
                width=width)
        self.space, self.metric, self.forward = space, metric, forward
        self._report = preflight(
            space,
            target,
            metric,
            lr=lr if bank is None else bank.lr,
            loss_weight=loss_weight).check()
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
        self.own_clock = True
        self._weights: List[nn.Parameter] = []
        self._handle = None
        self._term: Optional[Tensor] = None
        self.attach_masks()

    def set_length(self,
                   total_steps: int,
                   warmup_steps: int = 0,
                   width_only_steps: int = 0) -> None:
        """Start the target schedule again with another length.

        Args: as for the constructor.
        """
        self.schedule = TargetSchedule(self._report.supernet[self.metric],
                                       self.target, total_steps, warmup_steps)
        self.total_steps = total_steps
        self.width_only_steps = width_only_steps
        self.step_count = 0
        self._report.total_steps = total_steps - warmup_steps

    # the loop's side

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

    # private

    def _before_step(self, optimizer, args, kwargs) -> None:
        """The optimizer's pre-hook."""
        self.step()

    def _resource_loss(self, counts: Tensor, masks: Tensor) -> Tensor:
        """λ_res·L_res of soft counts (U, ) and masks (E, ); a scalar."""
        cost = self.space.resource(counts, masks, self.metric)
        return self.constraint(cost, self.current_target)


def make_bank(model: nn.Module, space, **settings: Any) -> Bank:
    """The bank of a space, on the device of the model.

    Args:
        model (nn.Module): The supernet.
        space (Space): Its space.
        **settings: ``importance``, ``decay``, ``lr``, ``seed``; see
            :class:`Bank`.
    """
    weight = next(model.parameters())
    # Low precision is for activations: masks stay in float32 at least.
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return Bank(space.layout, dtype=dtype, **settings).to(weight.device)


def weighted_constraint(current: Tensor, target: float,
                        weight: float) -> Tensor:
    """λ_res·log(r_c / r_t) above the target, else 0 (paper, eq. 6, 7)."""
    return weight * constraint_loss(current, target)
