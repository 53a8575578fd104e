# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor's evolution over the space of a DMS algorithm (paper, Table 3)."""
import math
import os
import os.path as osp
import re
import time
from itertools import islice
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
from mmengine.dist import all_reduce, broadcast_object_list, get_world_size
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook
from mmengine.runner import set_random_seed
from mmrazor.engine.runner import EvolutionSearchLoop
from mmrazor.registry import LOOPS, TASK_UTILS
from mmrazor.structures import Candidates
from torch.utils.data import DataLoader

from ..baselines.evolution import CountsInBudget
from ..core.budget import format_amount
from ..core.projection import ENOUGH
from ..subnet.statistics import recalibrate, training_norms
from .calibration import predict, training_loader
from .candidates import NAME, read_state, write_state
from .hooks.cost import images_in, report_cost
from .hooks.export import ExportSubnetHook
from .hooks.search import dms_of

_MISSES = 200  # in a row, after which a space counts as too coarse


@LOOPS.register_module()
class DMSEvolutionLoop(EvolutionSearchLoop):
    """Searches a DMS model's space by mutation and crossover.

    The algorithm is MMRazor's. What differs is what a candidate is and how it
    is looked at: its choices are projected onto the model's target (99 % to
    100 % of it) by the closed form of the search, no subnet is built for
    that; it is scored by the validation loop under its hard masks, after
    BatchNorm was recalibrated on training images; a network that was scored
    is not scored again. Each epoch is drawn from a seed of its own and its
    state written as JSON, so that a resumed evolution is the unbroken one.
    The best network is what ``ExportSubnetHook`` then writes.

    The supernet is the checkpoint in ``load_from``: of a search, whose
    importances are taken over, of :class:`DMSOneShot`, or of a plain model.

    Args:
        runner (Runner): The runner, of a model of type ``DMS`` with the
            default ``eval_masks``, DMSHook and ExportSubnetHook.
        dataloader (DataLoader | dict): What candidates are scored on.
        evaluator (Evaluator | dict | list): Gives the scores.
        max_epochs (int): Generations. Defaults to 20.
        max_keep_ckpts (int): Files of states that are kept. Defaults to 3.
        resume_from (str, optional): ``search_epoch_N.json`` of an evolution,
            or ``'auto'`` for the last in the work_dir, if there is one.
        num_candidates (int): Candidates a generation. Defaults to 50.
        top_k (int): How many have children. Defaults to 10.
        num_mutation, num_crossover (int): Of the next generation, the rest
            is random. Default to 25.
        mutate_prob, crossover_prob (float): Probability with which a unit
            is drawn anew, or taken from the other parent. Default to 0.1
            and 0.5.
        calibrate_sample_num (int): Training images on which BatchNorm is
            recalibrated; 0 leaves it as it is. Defaults to 2000.
        least (float): Share of the target that a candidate costs at least.
            Defaults to 0.99.
        predictor_cfg (dict, optional): Of type ``DMSMetricPredictor``. Its
            ``train_samples`` random networks are scored first, all later
            scores are predicted, and the last ``top_k`` scored in truth.
        score_key (str): Metric that is the score, larger is better.
            Defaults to ``'accuracy/top1'``.
    """

    def __init__(self,
                 runner,
                 dataloader: Union[DataLoader, Dict],
                 evaluator: Union[Evaluator, Dict, List],
                 max_epochs: int = 20,
                 max_keep_ckpts: int = 3,
                 resume_from: Optional[str] = None,
                 num_candidates: int = 50,
                 top_k: int = 10,
                 num_mutation: int = 25,
                 num_crossover: int = 25,
                 mutate_prob: float = .1,
                 crossover_prob: float = .5,
                 calibrate_sample_num: int = 2000,
                 least: float = ENOUGH,
                 predictor_cfg: Optional[Dict] = None,
                 score_key: str = 'accuracy/top1') -> None:
        # The predictor is built later: it needs the units, which DMSHook may
        # find only when the run begins.
        super().__init__(
            runner,
            dataloader,
            evaluator,
            max_epochs=max_epochs,
            max_keep_ckpts=max_keep_ckpts,
            resume_from=resume_from,
            num_candidates=num_candidates,
            top_k=top_k,
            num_mutation=num_mutation,
            num_crossover=num_crossover,
            mutate_prob=mutate_prob,
            crossover_prob=crossover_prob,
            calibrate_sample_num=calibrate_sample_num,
            score_key=score_key)
        if num_mutation + num_crossover > num_candidates:
            raise ValueError(f'num_mutation={num_mutation} and num_crossover='
                             f'{num_crossover} are more than num_candidates='
                             f'{num_candidates}; lower one or raise the other')
        self.least, self.predictor_cfg = least, predictor_cfg
        self.space: Optional[CountsInBudget] = None
        self.seed, self.samples = runner.seed, Candidates()
        self.cost = dict(seconds=0., evaluations=0, images=0)
        self._scores: Dict[str, float] = {}
        self._batches: List[Any] = []
        self._misses, self._since = 0, 0.

    def run(self) -> None:
        """Evolve, score, write; then let ExportSubnetHook export the best."""
        self._check_run()
        self.runner.call_hook('before_train')
        self._since = time.time()
        self.space = CountsInBudget(self.model.search, least=self.least)
        self._resume()
        self._batches = self._training_batches()
        if self.predictor_cfg is not None:
            self._init_predictor()
        while self._epoch < self._max_epochs:
            set_random_seed(self.seed + 1 + self._epoch)
            self.run_epoch()
            self._save_searcher_ckpt()
        self._save_best_fix_subnet()
        self.runner.call_hook('after_train')

    def _check_run(self) -> None:
        """Refuse what an evolution would silently not use."""
        hooks = self.runner.hooks
        if dms_of(self.runner).eval_masks != 'hard':
            raise ValueError("an evolution scores hard masks: leave out "
                             "eval_masks='soft' of the model")
        if not any(isinstance(hook, ExportSubnetHook) for hook in hooks):
            raise ValueError(
                'an evolution without ExportSubnetHook would write no '
                "network: put dict(type='mmrazor.ExportSubnetHook') into "
                'custom_hooks')
        if any(isinstance(hook, EMAHook) for hook in hooks):
            raise ValueError('an evolution trains no weights that could be '
                             'averaged: remove EMAHook from custom_hooks')

    # candidates

    def _check_constraints(
            self, random_subnet: Dict[str,
                                      int]) -> Tuple[bool, Dict[str, float]]:
        """Put a candidate into the budget, in place.

        MMRazor asks for every candidate before it keeps it, however it was
        made, so that this is the one place to mend it.

        Returns:
            tuple[bool, dict]: Whether it is in the budget, and its costs.
        """
        mutator = self.model.mutator
        kept = self.space.fit(mutator.counts_of(random_subnet).cpu())
        if kept is None:
            self._misses += 1
            if self._misses == _MISSES:
                raise self.space.nothing_found(_MISSES)
            return False, {}
        self._misses = 0
        random_subnet.update(mutator.choices_of(kept))
        return True, dict(
            flops=self.space.cost(kept, 'macs'),
            params=self.space.cost(kept, 'params'),
            cost=self.space.cost(kept))

    def update_candidates_scores(self) -> None:
        """Score the candidates, each network once.

        MMRazor rounds to two digits, which is coarse for a mAP.
        """
        for i, choices in enumerate(self.candidates.subnets):
            name = str(choices)
            if self.use_predictor or name not in self._scores:
                self.model.mutator.set_choices(choices)
                score = self._score(self._val_candidate(self.use_predictor))
            else:
                score = self._scores[name]
            if not self.use_predictor:
                self._scores[name] = score
            self.candidates.set_resource(i, score, 'score')
            macs, params = (
                format_amount(self.candidates.resources(name)[i])
                for name in ('flops', 'params'))
            self.runner.logger.info(
                f'Epoch:[{self._epoch}/{self._max_epochs}] '
                f'Candidate:[{i + 1}/{len(self.candidates)}] MACs: {macs} '
                f'Params: {params} Score: {score:.4f}')

    def _score(self, metrics: Dict[str, float]) -> float:
        if self.score_key not in metrics:
            raise ValueError(f'score_key={self.score_key!r} is not among what '
                             f'the evaluator gives: {", ".join(metrics)}')
        return float(metrics[self.score_key])

    def _val_candidate(self, use_predictor: bool = False) -> Dict:
        """Validate, or predict, and count what it costs."""
        metrics = super()._val_candidate(use_predictor)
        if not use_predictor:
            self.cost['evaluations'] += 1
            self.cost['images'] += len(self.dataloader.dataset)
        return metrics

    def calibrate_bn_statistics(self,
                                dataloader: DataLoader,
                                calibrate_sample_num: int = 2000) -> None:
        """Take the statistics of the candidate from training images.

        They are the same for all candidates. MMRazor hands on the loop's own
        loader, which is that of the validation images; it is not used.
        """
        recalibrate(
            self.model, self._batches, len(self._batches), forward=predict)
        for norm in training_norms(self.model):
            all_reduce(norm.running_mean, 'mean')
            all_reduce(norm.running_var, 'mean')
        self.cost['images'] += get_world_size() * sum(
            map(images_in, self._batches))

    def _training_batches(self) -> List[Any]:
        """Training images to calibrate on; none without calibration."""
        with training_loader(self.runner) as loader:
            set_random_seed(self.seed)
            number = math.ceil(
                max(self.calibrate_sample_num, 0) /
                (loader.batch_size * get_world_size()))
            return list(islice(loader, number))

    def _init_predictor(self) -> None:
        """Score random networks, unless resumed, and learn from them."""
        mutator = self.model.mutator
        self.predictor = TASK_UTILS.build(
            dict(
                dict(type='mmrazor.DMSMetricPredictor'),
                **self.predictor_cfg,
                score_key=self.score_key,
                search_groups={u.name: [u]
                               for u in mutator.mutable_units}))
        set_random_seed(self.seed)
        if not len(self.samples):
            pool, number = self.candidates, self.num_candidates
            self.candidates = Candidates()
            self.num_candidates = self.predictor.train_samples
            self.sample_candidates()
            self.update_candidates_scores()
            self.samples, self.candidates = self.candidates, pool
            self.num_candidates = number
        set_random_seed(self.seed)
        self.predictor.fit(
            [self.predictor.model2vector(c) for c in self.samples.subnets],
            np.array([
                next(iter(item.values()))['score']
                for item in self.samples.data
            ]))
        self.use_predictor = True

    # states

    def _save_searcher_ckpt(self) -> None:
        """Write the state, and remove old ones."""
        self._stop_clock()
        if self.runner.rank == 0:
            folder = self.runner.work_dir
            write_state(
                osp.join(folder, NAME.format(self._epoch)),
                dict(
                    epoch=self._epoch,
                    seed=self.seed,
                    target=self.space.budget,
                    cost=self.cost,
                    scores=self._scores,
                    **{
                        pool: getattr(self, pool)
                        for pool in ('candidates', 'top_k_candidates',
                                     'samples')
                    }))
            old = self._epoch - self.max_keep_ckpts
            path = osp.join(folder, NAME.format(old))
            if self.max_keep_ckpts > 0 and osp.isfile(path):
                os.remove(path)
        self.runner.logger.info(
            f'Epoch:[{self._epoch}/{self._max_epochs}], best score: '
            f'{self.top_k_candidates.scores[0]}')

    def _resume(self) -> None:
        """Take up a state that was written; all ranks take the first's."""
        path = self.resume_from
        if path == 'auto':
            path = latest_state(self.runner.work_dir)
        if not path:
            return
        state = [None]
        if self.runner.rank == 0:
            state = [read_state(path, self.model.mutator)]
        broadcast_object_list(state)
        if state[0]['target'] != self.space.budget:
            raise ValueError(
                f'{path} is of an evolution to '
                f'{format_amount(state[0]["target"])}, this one goes to '
                f'{format_amount(self.space.budget)}; set the same target')
        self._epoch, self.seed = state[0]['epoch'], state[0]['seed']
        self.cost, self._scores = state[0]['cost'], state[0]['scores']
        for pool in ('candidates', 'top_k_candidates', 'samples'):
            setattr(self, pool, state[0][pool])
        self.runner.logger.info(f'Resumed from {path}: epoch {self._epoch}')

    def _save_best_fix_subnet(self) -> None:
        """Set the best choices, for ExportSubnetHook to write."""
        if self.use_predictor:
            self.use_predictor = False
            self.candidates = self.top_k_candidates
            self.update_candidates_scores()
            self.candidates.sort_by('score', reverse=True)
            self.top_k_candidates = self.candidates
        best = [self.top_k_candidates.data[0]]
        broadcast_object_list(best)
        best = Candidates(best)
        self.model.mutator.set_choices(best.subnets[0])
        if self.calibrate_sample_num > 0:
            self.calibrate_bn_statistics(self.dataloader,
                                         self.calibrate_sample_num)
        self._stop_clock()
        self.runner.logger.info(f'The best network scores {best.scores[0]}')
        report_cost(self.runner, self.cost)

    def _stop_clock(self) -> None:
        now = time.time()
        self.cost['seconds'] += (now - self._since) * get_world_size()
        self._since = now


def latest_state(folder: str) -> Optional[str]:
    """The state of the latest epoch in a folder, None without one."""
    pattern = re.compile(re.escape(NAME).replace(r'\{\}', r'(\d+)'))
    found = {
        int(match[1]): osp.join(folder, name)
        for name in os.listdir(folder)
        if (match := pattern.fullmatch(name)) is not None
    }
    return found[max(found)] if found else None
