# Copyright (c) dms_razor contributors. All rights reserved.
"""What a search has cost, as the paper's Table 4 counts it."""
import json
import os.path as osp
import time
from typing import Any, Dict, Optional

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS

from ...subnet.files import write_text

_KEY = 'dms_search_cost'


def cost_text(cost: Dict[str, float]) -> str:
    """A cost for people: ``'0.25 GPU-days, 900 iterations, …'``.

    Args:
        cost (dict): ``seconds``, ``images`` and whatever else was counted;
            ``seconds`` are those of all devices together.
    """
    gpu = torch.cuda.is_available()
    spent = (f'{cost["seconds"] / 86400:.4g} GPU-days'
             if gpu else f'{cost["seconds"] / 3600:.4g} CPU-hours')
    return ', '.join([spent] + [
        f'{value:,} {name}'
        for name, value in cost.items() if name != 'seconds'
    ])


def report_cost(runner: Runner, cost: Dict[str, float]) -> None:
    """Log a cost, and write it to ``work_dir/search_cost.json``."""
    runner.logger.info(f'Cost of the search: {cost_text(cost)}')
    if is_main_process():
        write_text(
            osp.join(runner.work_dir, 'search_cost.json'),
            json.dumps(cost, indent=2) + '\n')


def images_in(batch: Any) -> int:
    """Images of a batch as OpenMMLab's dataloaders give it."""
    return len(batch['inputs']) if isinstance(batch, dict) else len(batch[0])


@HOOKS.register_module()
class SearchCostHook(Hook):
    """Counts the training of a search: device time, iterations, images.

    Logged after the training and written to ``work_dir/search_cost.json``.
    Seconds are those between the first iteration and the last, validation
    included, times the number of processes. A resumed run adds to what its
    checkpoint had cost.
    """

    # Before CheckpointHook (VERY_LOW) saves the message hub.
    priority = 'LOW'

    def __init__(self) -> None:
        self._since: Optional[float] = None

    def before_train(self, runner: Runner) -> None:
        """Start the clock; go on from what a checkpoint had cost."""
        self._since = time.time()
        if not runner.message_hub.runtime_info.get(_KEY):
            runner.message_hub.update_info(
                _KEY, dict(seconds=0., iterations=0, images=0))

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs: Optional[dict] = None) -> None:
        """Count one iteration."""
        cost, now = self.cost(runner), time.time()
        cost['seconds'] += (now - self._since) * get_world_size()
        cost['iterations'] += 1
        cost['images'] += images_in(data_batch) * get_world_size()
        self._since = now

    def after_train(self, runner: Runner) -> None:
        """Log and write the cost."""
        cost = self.cost(runner)
        cost['seconds'] += (time.time() - self._since) * get_world_size()
        report_cost(runner, cost)

    @staticmethod
    def cost(runner: Runner) -> Dict[str, float]:
        """What was spent so far: seconds, iterations, images."""
        return runner.message_hub.get_info(_KEY)
