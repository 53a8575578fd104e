# Copyright (c) dms_razor contributors. All rights reserved.
"""How long a search takes, in a config's words and in iterations."""
from dataclasses import dataclass
from typing import NamedTuple, Optional

from ..core.budget import FALL, HARDEN, check_shares
from ..errors import check_number


class Steps(NamedTuple):
    """Iterations of a search.

    Attributes:
        total (int): The search proper, warm-up included.
        warmup (int): Of these, with the supernet's own cost as target.
        width_only (int): After them, with depth frozen.
    """
    total: int
    warmup: int
    width_only: int


@dataclass
class SearchSchedule:
    """Length of a search; give epochs or iterations, not both.

    The target falls from the supernet's cost to the budget in the first
    ``fall`` of the ``epochs`` (paper, eq. 10, where ``fall`` is 1). Then depth
    is frozen and only widths move, for ``width_only_epochs`` and as long as
    the training lasts.

    Args:
        epochs (int, optional): Length of the search proper, warm-up
            included. Defaults to the training's length without
            ``width_only_epochs``.
        width_only_epochs (int): Extra epochs. Defaults to 0.
        warmup_epochs (int): Leading epochs in which the target stays at the
            supernet's cost while the importance settles. Defaults to 0.
        iters (int, optional): As ``epochs``.
        width_only_iters (int): As ``width_only_epochs``.
        warmup_iters (int): As ``warmup_epochs``.
        fall (float): Share of the search proper, without its warm-up, in
            which the target falls. Defaults to a third.
        harden (float): Share of all steps, the last ones, in which the
            network runs with hard masks. Defaults to a tenth.

    Raises:
        ValueError: If a length is negative or both units are used.
    """
    epochs: Optional[int] = None
    width_only_epochs: int = 0
    warmup_epochs: int = 0
    iters: Optional[int] = None
    width_only_iters: int = 0
    warmup_iters: int = 0
    fall: float = FALL
    harden: float = HARDEN

    def __post_init__(self) -> None:
        check_shares(self.fall, self.harden)
        for name, length in vars(self).items():
            if length is not None and name not in ('fall', 'harden'):
                check_number(f'search.{name}', length, whole=True)
        if self.by_epoch and (self.iters is not None or self.width_only_iters
                              or self.warmup_iters):
            raise ValueError('search has lengths in epochs and in iterations; '
                             'give all of them in one unit')

    @property
    def by_epoch(self) -> bool:
        """Whether a length is given in epochs."""
        return bool(self.epochs is not None or self.width_only_epochs
                    or self.warmup_epochs)

    def steps(self,
              max_iters: int,
              iters_per_epoch: Optional[int] = None) -> Steps:
        """Turn the schedule into iterations of a training loop.

        Args:
            max_iters (int): Iterations of the training.
            iters_per_epoch (int, optional): Iterations of one epoch; None in
                a loop without epochs.

        Raises:
            ValueError: If the search does not fit into the training.
        """
        unit, length = (('epochs', iters_per_epoch) if self.by_epoch else
                        ('iters', 1))
        if length is None:
            raise ValueError(
                'search gives epochs, but train_cfg counts iterations '
                '(by_epoch=False); give search.iters instead')
        train = max_iters // length
        total, warmup, width_only = (
            getattr(self, name + unit)
            for name in ('', 'warmup_', 'width_only_'))
        total = train - width_only if total is None else total
        if total + width_only > train:
            raise ValueError(
                f'the search takes {total} + {width_only} {unit}, the '
                f'training only {train}; set train_cfg.max_{unit}='
                f'{total + width_only} or shorten the search')
        if warmup >= total:
            raise ValueError(
                f'search.warmup_{unit} is {warmup}, but the search itself '
                f'takes {total}; leave {unit} in which the target falls')
        return Steps(total * length, warmup * length, width_only * length)
