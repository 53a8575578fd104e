# Copyright (c) dms_razor contributors. All rights reserved.
"""How long a search has to be: the table of scale_down over its length.

Rows are named by the steps of the search; those of width alone come on top.
"""
from dataclasses import replace

from tools.compare.experiment import Row
from tools.compare.experiments.scale_down import experiment as base

#: Steps of the search; a quarter of them more for the widths alone.
STEPS = (75, 150, 300, 1000, 3000)


def searched(steps: int) -> Row:
    """The search of that length at the defaults."""
    per_epoch = base.search.epoch(base.data.train_images)
    return Row(
        f'dms {steps} steps',
        recipe=replace(base.search, steps=steps),
        width_only_epochs=steps / 4 / per_epoch)


experiment = replace(
    base,
    title='Length of the search',
    rows=[searched(steps) for steps in STEPS] +
    [base.row('even'), base.row('hand')])
