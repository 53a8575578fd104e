# Copyright (c) dms_razor contributors. All rights reserved.
"""How the resource target falls during a search (paper, equation 10)."""


class TargetSchedule:
    """``r_t(e) = r_0·(r_target / r_0)^(e / E)``, an exponential decay.

    Steps may be iterations or epochs, and count from 0. During a warm-up,
    while importances settle, the target stays at its start; after the search
    proper it stays at its end, while only width trains.

    Args:
        start (float): r_0, figure of the supernet.
        target (float): r_target, figure to reach, same unit.
        total (int): Length of the search proper, warm-up included (DeiT's 30
            epochs in the paper).
        warmup (int): Length of the warm-up (DeiT's 20). Defaults to 0.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self,
                 start: float,
                 target: float,
                 total: int,
                 warmup: int = 0) -> None:
        if not 0 < target <= start < float('inf'):
            raise ValueError(
                f'the target is to fall from {start} to {target}: both must '
                'be positive and the target not above the start')
        if not 0 <= warmup < total:
            raise ValueError(
                f'a search of {total} steps with {warmup} steps of warm-up '
                'leaves no step to fall in; make total larger than warmup, '
                'and warmup not negative')
        self.start, self.target = float(start), float(target)
        self.total, self.warmup = total, warmup

    def __call__(self, step: float) -> float:
        """Target at ``step``, counted from 0; exact at both ends."""
        if step <= self.warmup:
            return self.start
        if step >= self.total:
            return self.target
        progress = (step - self.warmup) / (self.total - self.warmup)
        return self.start * (self.target / self.start)**progress

    def __repr__(self) -> str:
        return (f'TargetSchedule({self.start:g} -> {self.target:g}, '
                f'total={self.total}, warmup={self.warmup})')
