# Copyright (c) dms_razor contributors. All rights reserved.
"""Writes down what a search keeps while it goes on."""
import copy
from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS
from torch import Tensor

from ...core.budget import format_amount
from ...search import Search
from ...subnet.structure import structure_table
from ...watch.writer import structure_scalars
from ..resume import get_random_state, set_random_state
from .search import dms_of


@HOOKS.register_module()
class StructureLogHook(Hook):
    """Logs the cost that is asked for and reached, and what stages keep.

    Scalars go through mmengine's Visualizer, hence to TensorBoard and the
    like: ``dms/asked``, ``dms/current`` and ``dms/hard`` as shares of the
    supernet's cost, ``dms/kept/<stage>`` and ``dms/blocks/<stage>`` as shares
    of the stage, ``dms/moved_by_task``, ``dms/moved_by_resource`` and
    ``dms/resource_on`` (:class:`~dms_razor.core.account.Account`). The first
    two are in the log line as well. A table goes into the log now and then,
    with a sentence on who decides and the loss of the last batch, soft and
    hard (``dms/loss_soft``, ``dms/loss_hard``).

    Args:
        interval (int): Iterations between scalars. Defaults to 50.
        table_interval (int, optional): Iterations between tables. Defaults
            to 10 intervals; a last table is written after the training.
    """

    # Before LoggerHook (BELOW_NORMAL) writes the line.
    priority = 'NORMAL'

    def __init__(self,
                 interval: int = 50,
                 table_interval: Optional[int] = None) -> None:
        for name, value in (('interval', interval), ('table_interval',
                                                     table_interval)):
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}; give a number of '
                                 'iterations, at least 1')
        self.interval = interval
        self.table_interval = table_interval or 10 * interval
        self._batch: Any = None

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch=None) -> None:
        """Keep the batch for the losses: training mixes its labels."""
        if self.every_n_train_iters(runner, self.table_interval):
            self._batch = copy.deepcopy(data_batch)

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs: Optional[dict] = None) -> None:
        """Log, if it is time."""
        search = dms_of(runner).search
        if self.every_n_train_iters(runner, self.interval):
            scalars = structure_scalars(search)
            for name in ('dms/asked', 'dms/current'):
                runner.message_hub.update_scalar(f'train/{name}',
                                                 scalars.pop(name))
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        if self.every_n_train_iters(runner, self.table_interval):
            self._log_table(runner, search, runner.iter + 1)
            self._log_losses(runner, search)

    def _log_losses(self, runner: Runner, search: Search) -> None:
        model = dms_of(runner).architecture
        state = get_random_state()
        data = model.data_preprocessor(self._batch, True)
        set_random_state(state)
        self._batch = None

        def loss() -> Tensor:
            with runner.optim_wrapper.optim_context(runner.model):
                losses = model._run_forward(data, mode='loss')
            return model.parse_losses(losses)[0]

        soft, hard = search.soft_and_hard(loss)
        runner.logger.info(f'Loss of the last batch: {soft:.4f} soft, '
                           f'{hard:.4f} with what the ratios round to')
        runner.visualizer.add_scalars(
            {
                'dms/loss_soft': soft,
                'dms/loss_hard': hard
            },
            step=runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        """Log the last structure."""
        self._log_table(runner, dms_of(runner).search, runner.iter)

    def _log_table(self, runner: Runner, search: Search, step: int) -> None:
        whole = search.preflight().supernet[search.metric]
        costs = ', '.join(f'{name} {format_amount(value, search.metric)} '
                          f'({value / whole:.1%})'
                          for name, value in (('asked', search.current_target),
                                              ('now', search.current()),
                                              ('rounded',
                                               search.current(hard=True))))
        runner.logger.info(
            f'Structure after {step} iterations, {search.metric}: {costs}\n'
            f'{structure_table(search.structure())}')
        if search.bank.motion.account.steps:
            decided = search.decision()
            runner.logger.info(decided.text())
            for doubt in decided.doubts() if step >= runner.max_iters else ():
                runner.logger.warning(doubt)
