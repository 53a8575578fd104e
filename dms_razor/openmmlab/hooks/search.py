# Copyright (c) dms_razor contributors. All rights reserved.
"""The hook that drives a search inside mmengine's training loops."""
from typing import Dict, Optional

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmrazor.engine.runner import EvolutionSearchLoop
from mmrazor.registry import HOOKS
from torch import Tensor

from ...errors import check_number
from ...masking.optimizers import refuse_engines, refuse_flat
from ..algorithm import DMS
from ..calibration import LentStatistics
from ..checkpoints import as_supernet, check_weights, compare_weights
from ..example_input import input_shape_from_config
from ..resume import (get_random_state, restore_before_next_batch,
                      set_random_state)


def dms_of(runner: Runner) -> DMS:
    """The DMS algorithm that a runner trains, without its wrappers.

    Raises:
        TypeError: If it trains something else.
    """
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    if not isinstance(model, DMS):
        raise TypeError(
            f'the hooks of a search need a model of type DMS, not '
            f'{type(model).__name__}; set model=dict(type=\'mmrazor.DMS\', '
            'architecture=…) or remove them from custom_hooks')
    return model


@HOOKS.register_module()
class DMSHook(Hook):
    """Drives the search of a :class:`DMS` model; it cannot do without.

    Before training it traces the network (if the config does not state its
    input shape), prints the pre-flight and lets the weights' optimizer drive
    the ratios. During training it moves the target (paper, eq. 10) and
    freezes depth when the width-only phase begins. It saves the search in
    checkpoints, as ``checkpoint['dms']``, together with the state of the
    random generators, so that a resumed run draws what an unbroken one would.
    A plain model's checkpoint in ``load_from`` becomes the supernet.

    Args:
        allow_partial (bool): Whether ``load_from`` may lack weights of the
            supernet outside its head. Defaults to False.
        bn_batches (int): Training batches from which every validation of the
            hard network takes its BatchNorm statistics; 0 leaves those of
            the soft one. Defaults to 20.
        resume_with_changes (bool): Whether a search may be resumed with
            another target, length, importance, … than it was begun with.
            Defaults to False.
    """

    # Before EMAHook (NORMAL) copies the model and reads checkpoints.
    priority = 'HIGH'

    def __init__(self,
                 allow_partial: bool = False,
                 bn_batches: int = 20,
                 resume_with_changes: bool = False) -> None:
        check_number('bn_batches of DMSHook', bn_batches, whole=True)
        self.allow_partial, self.bn_batches = allow_partial, bn_batches
        self.resume_with_changes = resume_with_changes
        self._statistics = LentStatistics()
        self._random_state: Optional[dict] = None
        self._before_val: Dict[str, Tensor] = {}
        self._first_step = True

    # before the first step

    def before_run(self, runner: Runner) -> None:
        """Make the search, where the algorithm did not do it itself.

        Wrapping the model comes between the two: SyncBN conversion puts new
        modules in place of masked ones, so that masks are attached anew.
        """
        refuse_engines(runner.model, getattr(runner, 'strategy', None))
        refuse_flat(runner.model.parameters())
        model = dms_of(runner)
        if model.search is None:
            model.prepare(input_shape_from_config(runner.cfg))
        else:
            model.search.attach_masks()

    def before_train(self, runner: Runner) -> None:
        """Fit the schedule to the loop and hook into the optimizer."""
        model = dms_of(runner)
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            raise TypeError(
                'a search needs one optimizer for the whole network, not an '
                f'{type(runner.optim_wrapper).__name__}; use a single '
                'optim_wrapper, with paramwise_cfg where parts differ')
        loop, search = runner.train_loop, model.search
        self._fit(runner)
        search.own_clock = False
        search.advance(loop.iter)
        search.attach(runner.optim_wrapper.optimizer)
        search.reader.reset()
        self._first_step = True
        runner.logger.info(search.preflight().text())
        length = search.total_steps + search.width_only_steps
        if length < .9 * loop.max_iters:
            runner.logger.warning(
                f'The search ends after {length:,} of {loop.max_iters:,} '
                'iterations; the rest would train a network whose structure '
                'is found. Shorten the training (train_cfg.max_epochs) or '
                'lengthen the search (model.search).')

    @staticmethod
    def _fit(runner: Runner) -> None:
        """Give the search the length of the training."""
        loop = runner.train_loop
        dms_of(runner).set_length(
            loop.max_iters, None
            if isinstance(loop, IterBasedTrainLoop) else len(loop.dataloader))

    def before_train_epoch(self, runner: Runner) -> None:
        """After a resume, put the random generators where they were."""
        if self._random_state is not None:
            restore_before_next_batch(runner.train_loop, self._random_state)
            self._random_state = None

    # every step

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch=None) -> None:
        """Set the clock of the target; freeze depth when it is time."""
        search = dms_of(runner).search
        frozen = search.bank.depth_frozen
        search.advance(runner.iter)
        if search.bank.depth_frozen and not frozen:
            runner.logger.info(
                'Depth is frozen, the network projected onto its budget: '
                f'{search.current(hard=True) / search.target:.2%} of the '
                'target. From here on only widths move.')

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs: Optional[dict] = None) -> None:
        """After the first step, make sure that every unit was masked."""
        unread = (
            dms_of(runner).search.unread_units() if self._first_step else [])
        self._first_step = False
        if unread:
            raise RuntimeError(
                f'the masks of {len(unread)} units took no part in the first '
                f'step: {", ".join(unread[:5])}. Their layers were replaced '
                'after the search had masked them, or training does not run '
                'them; replace modules before the runner starts, or fix these '
                'units with mutator.units={name: dict(fixed=True)}')

    # validation draws from the generators as well

    def before_val(self, runner: Runner) -> None:
        """Validation must not change what training draws."""
        self._before_val = get_random_state()

    def before_val_iter(self,
                        runner: Runner,
                        batch_idx: int,
                        data_batch=None) -> None:
        """Before the first batch, statistics of the network that is run.

        Here averaged weights of an EMAHook have taken their place already.
        """
        model = dms_of(runner)
        if batch_idx == 0 and self.bn_batches and model.eval_masks == 'hard':
            with model.evaluated():
                self._statistics.lend(runner, model.architecture,
                                      self.bn_batches)

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        """Give them back, before averaged weights leave."""
        self._statistics.give_back()

    before_test_iter, after_test_epoch = before_val_iter, after_val_epoch

    def after_val(self, runner: Runner) -> None:
        """Go on drawing where training stopped."""
        set_random_state(self._before_val)

    # checkpoints

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the search into the checkpoint, as tensors only."""
        checkpoint['dms'] = dict(
            dms_of(runner).search.state_dict(), random=get_random_state())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take the search out of a checkpoint, or a plain model's weights."""
        model = dms_of(runner)
        state = checkpoint.get('dms')
        resumes = runner._resume
        if resumes and state is None:
            raise ValueError(
                f'{runner._load_from or "the checkpoint"} holds no search to '
                'resume; resume from a checkpoint of this search, or give a '
                'plain model to load_from without resume')
        learns = isinstance(runner._train_loop, BaseLoop) and not isinstance(
            runner._train_loop, EvolutionSearchLoop)
        if resumes and learns:
            self._fit(runner)
            model.search.load_state_dict(state, self.resume_with_changes)
        elif state is not None and (resumes or not learns):
            model.search.load_state_dict(state, with_changes=True)
        if resumes:
            self._random_state = state['random']
            return
        as_supernet(checkpoint)
        report = compare_weights(checkpoint, model)
        runner.logger.info(f'Supernet: {report.text()}')
        if not self.allow_partial:
            check_weights(report, str(runner._load_from))
