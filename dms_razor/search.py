# Copyright (c) dms_razor contributors. All rights reserved.
"""Differentiable Model Scaling of any ``nn.Module`` in any training loop.

Nothing of OpenMMLab is needed here: :class:`Search` ties the tracer, the bank
of ratios and masks, the resource model and the export together for a loop of
one's own. The OpenMMLab algorithm uses the same class.
"""
from functools import partial
from numbers import Integral
from typing import Any, Callable, Dict, Optional, Union

import torch
from torch import Tensor, nn

from .core.bank import Bank, check_lr
from .core.constraint import check_weight, constraint_loss
from .core.schedule import TargetSchedule
from .masking import unmask
from .masking.layers import MaskedLayer
from .preflight import preflight
from .search_step import SearchStep
from .subnet.costs import check_supernet
from .tracing import trace


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
            check_supernet(model, space, forward)
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
