# Copyright (c) dms_razor contributors. All rights reserved.
"""Who moved the pruning ratios: the task, or the resource."""
from typing import Dict

import torch
from torch import Tensor

from .layout import Layout


class Account:
    """By what task and resource have moved the ratios, added up over steps.

    A step moves a ratio by ``−lr·g_task`` and by what the resource adds; what
    a bound cuts off is not counted. Both are sums with a sign: a task that
    pulls back and forth has moved nothing.

    Args:
        layout (Layout): The units.

    Attributes:
        task, resource (Tensor): Movement of each ratio, float64 ``[U]``.
        steps (int): Steps that were counted.
        resource_on (Tensor): Steps in which the resource moved something, a
            whole number.
    """

    def __init__(self, layout: Layout) -> None:
        self.task = torch.zeros(
            layout.U, dtype=torch.float64, device=layout.device)
        self.resource = torch.zeros_like(self.task)
        self.steps = 0
        self.resource_on = torch.zeros_like(self.task[0], dtype=torch.int64)

    def add(self, before: Tensor, task: Tensor, after: Tensor) -> None:
        """Count a step.

        Args:
            before (Tensor): Ratios before the step, ``[U]``.
            task (Tensor): Where the task alone would have moved them.
            after (Tensor): Where they are.
        """
        resource = after - task
        self.task = self.task + (task - before)
        self.resource = self.resource + resource
        self.steps += 1
        self.resource_on = self.resource_on + resource.any()

    def state(self) -> Dict[str, Tensor]:
        """Copies of the account, for a saved search."""
        return dict(
            moved_by_task=self.task.clone(),
            moved_by_resource=self.resource.clone(),
            steps_of_resource=self.resource_on.clone(),
            steps_of_account=torch.tensor(self.steps))

    def load(self, state: Dict[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self.task, self.resource, self.resource_on = (
            state[name].detach().to(self.task.device, copy=True)
            for name in ('moved_by_task', 'moved_by_resource',
                         'steps_of_resource'))
        self.steps = int(state['steps_of_account'])
