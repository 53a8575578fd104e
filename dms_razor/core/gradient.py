# Copyright (c) dms_razor contributors. All rights reserved.
"""The gradient of the masks: where it comes from, and when it is stale."""
from typing import Callable, Iterable, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor


def check_gradient(bank) -> None:
    """Raise RuntimeError, with the reason, if masks or anchor have none."""
    if bank.masks.grad is None:
        raise RuntimeError('the masks have no gradient: ' + (
            'since the last update the loss was not worked out by the network '
            'that is searched. Call loss.backward() before the step, on a '
            'loss of that very network (not of a copy made before the '
            'search), run without torch.no_grad() and not detached' if bank.
            mode == 'soft' else f'layers read them in mode '
            f'"{bank.mode}", set bank.mode = "soft" to train'))
    if bank.scale.grad is None:
        raise RuntimeError(
            'the scale of the loss is not known: call backward on '
            'search.loss(loss) instead of the loss; with a bank alone, '
            'add bank.loss_anchor() to it (it is 0, its gradient is the '
            'scale)')


def taken_gradient(bank) -> Tensor:
    """∂L_task/∂m, float64 ``[E]`` on the CPU; the bank forgets it.

    Raises:
        RuntimeError: See :func:`check_gradient`.
    """
    check_gradient(bank)
    # One transfer: it waits until the backward pass is through.
    both = torch.cat(
        [bank.masks.grad.double(),
         bank.scale.grad.double().reshape(1)]).cpu()
    bank.drop_gradient()
    return both[:-1] / both[-1]


def slopes_of(
        bank,
        grad: Tensor,
        resource_loss: Optional[Callable] = None) -> Tuple[Tensor, Tensor]:
    """∂L_task/∂a and ∂(L_task + λ_res·L_res)/∂a.

    Args:
        bank (Bank): The search's state.
        grad (Tensor): ∂L_task/∂m, float64 ``[E]``.
        resource_loss (callable, optional): See :meth:`.bank.Bank.update`.

    Returns:
        tuple[Tensor, Tensor]: Of all numbers that a bank learns, float64
        ``[n]``; the same one twice without a resource loss.
    """
    graph = bank.graph
    task = graph.task_slope(grad)
    if resource_loss is None:
        return task, task
    slope = graph.resource(bank, resource_loss)[1]
    return task, task if slope is None else task + slope


def at_numbers(bank, resource: Callable, numbers: Tensor) -> Tensor:
    """``resource`` of what such numbers keep, differentiable in them."""
    return resource(
        bank.counts(ratios=numbers), bank.resource_masks(ratios=numbers))


def mean_over_ranks(vector: Tensor, device: torch.device) -> Tensor:
    """Mean of ``vector`` over all ranks; itself outside distributed runs.

    The sum is the same, bit by bit, on every rank.

    Args:
        vector (Tensor): On the CPU, ``[n]``.
        device (torch.device): That of the network, through which alone NCCL
            sends.
    """
    if not _is_one_of_several():
        return vector
    vector = vector.to(device)
    dist.all_reduce(vector)
    return vector.cpu() / dist.get_world_size()


def from_first_rank(vector: Tensor, device: torch.device) -> Tensor:
    """``vector`` of rank 0, on every rank; itself outside distributed runs.

    Whatever is worked out on each rank for itself may differ in the last bit
    where processors add up in another order, and over many steps by more.
    Arguments as of :func:`mean_over_ranks`.
    """
    if not _is_one_of_several():
        return vector
    vector = vector.to(device).contiguous()
    dist.broadcast(vector, 0)
    return vector.cpu()


def _is_one_of_several() -> bool:
    return (dist.is_available() and dist.is_initialized()
            and dist.get_world_size() > 1)


def drop_stale_gradient(bank, gradients: Iterable[Optional[Tensor]]) -> bool:
    """Forget what the masks hold of a step that was skipped.

    A ``GradScaler`` that sees infinities skips ``optimizer.step`` and with it
    the bank's update. ``zero_grad`` clears the weights, which it knows, and
    not the masks, which it does not. Between the micro-batches of one
    accumulated step, however, the weights do have gradients, NaN or not. To
    be asked when backward begins: before it a loop may clear the weights at
    any moment.

    Args:
        bank (Bank): The search's state.
        gradients (Iterable[Tensor, optional]): Of what the optimizer trains.
            Without any, all is taken to be of one step.

    Returns:
        bool: Whether something was dropped.
    """
    if bank.masks.grad is None:
        return False
    # zero_grad(set_to_none=False) leaves zeros.
    grads = list(gradients)
    stale = bool(grads) and not any(grad is not None and grad.any()
                                    for grad in grads)
    if stale:
        bank.drop_gradient()
    return stale
