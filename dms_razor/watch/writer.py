# Copyright (c) dms_razor contributors. All rights reserved.
"""Curves of a search for a logger: TensorBoard, mmengine, W&B, a function."""
from typing import Any, Callable, Dict, Optional

from ..errors import check_number
from ..subnet.structure import by_stage
from .status import status_of


def structure_scalars(search: Any) -> Dict[str, float]:
    """What there is to draw of a search now.

    Returns:
        dict: ``dms/asked``, ``dms/current`` and ``dms/hard`` as shares of the
        supernet's cost, ``dms/kept/<stage>`` and ``dms/blocks/<stage>`` as
        shares of the stage, ``dms/moved_by_task``, ``dms/moved_by_resource``
        and ``dms/resource_on`` of :class:`~dms_razor.core.account.Account`,
        and ``dms/loss``, if :meth:`Search.loss` has seen one.
    """
    status = status_of(search, decision=False)
    stages = by_stage(search.structure())
    account = search.bank.motion.account
    return {
        'dms/asked': status.asked / status.supernet,
        'dms/current': status.now / status.supernet,
        'dms/hard': status.rounded / status.supernet,
        'dms/moved_by_task': float(account.task.abs().mean()),
        'dms/moved_by_resource': float(account.resource.abs().mean()),
        'dms/resource_on': float(account.resource_on) / max(1, account.steps),
        **({} if status.loss is None else {
               'dms/loss': status.loss
           }),
        **{
            f'dms/kept/{stage.name}': stage.kept / stage.channels
            for stage in stages if stage.channels
        },
        **{
            f'dms/blocks/{stage.name}': stage.kept_blocks / stage.blocks
            for stage in stages if stage.blocks
        }
    }


def sender(writer: Any) -> Callable[[Dict[str, float], int], Any]:
    """How a logger takes numbers: ``send(scalars, step)``.

    Args:
        writer (Any): Something with ``add_scalar(name, value, step)``
            (TensorBoard's SummaryWriter, mmengine's Visualizer) or
            ``log(scalars, step=step)`` (a run of W&B), or a function
            ``f(scalars, step)``.

    Raises:
        TypeError: It is none of them.
    """
    add: Optional[Callable] = getattr(writer, 'add_scalar', None)
    if callable(add):

        def send(scalars: Dict[str, float], step: int) -> None:
            for name, value in scalars.items():
                add(name, value, step)

        return send
    if callable(getattr(writer, 'log', None)):
        return lambda scalars, step: writer.log(scalars, step=step)
    if callable(writer):
        return writer
    raise TypeError(
        f'{type(writer).__name__} takes no scalars: give a writer with '
        'add_scalar(name, value, step) or log(scalars, step=), or a function '
        'of scalars and step')


class WriterLog:
    """Writes the curves of a search; called with it after each step.

    Args:
        writer (Any): See :func:`sender`.
        every (int): Steps between two points; the last step is one.

    Raises:
        TypeError: The writer is of no kind that is known.
        ValueError: ``every`` is no whole number from 1 on.
    """

    def __init__(self, writer: Any, every: int = 10) -> None:
        check_number('every', every, 1, whole=True)
        self.send, self.every = sender(writer), every

    def __call__(self, search: Any) -> None:
        """A step is done."""
        step = search.step_count
        last = step == search.total_steps + search.width_only_steps
        if step % self.every == 0 or last:
            self.send(structure_scalars(search), step)
