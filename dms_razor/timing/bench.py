# Copyright (c) dms_razor contributors. All rights reserved.
"""Where networks are timed: on this machine, or on another one.

A *bench* is called with jobs that take turns and returns the time and the
spread of each. :class:`Here` runs them; :mod:`.remote` has those that write
them down for another machine, and read what it found.
"""
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

from torch import Tensor, nn

from .clock import Setting, runner, threads
from .on_device import WHOLE_ROUNDS, interleaved


class Job(NamedTuple):
    """Something to time.

    Attributes:
        name (str): One of its own among all that are timed for a table.
        build (callable): Gives the network in eval mode, its inputs and
            ``forward(model, *inputs)``.
        trained (bool): Whether its weights are a network's own.
    """
    name: str
    build: Callable[[], Tuple[nn.Module, Sequence[Tensor], Callable]]
    trained: bool = False


class Here:
    """Times jobs on this machine.

    Args:
        setting (Setting): Backend and threads.
        rounds (int): Figures of which a time is taken; of whole networks
            :data:`.on_device.WHOLE_ROUNDS` at least.
    """

    def __init__(self, setting: Setting, rounds: int = 9) -> None:
        self.setting, self.rounds = setting, rounds

    def describe(self) -> Dict[str, Any]:
        """The setting and the machine, as plain data."""
        return self.setting.describe()

    def __call__(self, jobs: Sequence[Job]) -> List[Dict[str, float]]:
        """``ms`` and ``spread`` of each job.

        Raises:
            TimingError: The backend cannot run one of them.
        """
        runs = []
        with threads(self.setting):
            for job in jobs:
                model, inputs, forward = job.build()
                runs.append(runner(model, inputs, self.setting, forward))
            whole = any(job.trained for job in jobs)
            return interleaved(runs, max(self.rounds, whole * WHOLE_ROUNDS))
