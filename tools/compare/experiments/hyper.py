# Copyright (c) dms_razor contributors. All rights reserved.
"""Step size and loss weight: the table of scale_down over both."""
from dataclasses import replace

from tools.compare.experiment import Row
from tools.compare.experiments.scale_down import experiment as base

STEP_SIZES = (5e-3, 5e-2, 5e-1)
LOSS_WEIGHTS = (.1, 1., 10.)

experiment = replace(
    base,
    title='Step size and loss weight of the ratios',
    rows=[Row('defaults')] + [
        Row(f'lr {lr:g}, weight {weight:g}',
            search=dict(lr=lr, loss_weight=weight)) for lr in STEP_SIZES
        for weight in LOSS_WEIGHTS
    ],
    references=('defaults', ))
