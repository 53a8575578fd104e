# Copyright (c) dms_razor contributors. All rights reserved.
"""How long a search has to be: the table of scale_down over its length.

Rows are named by the epochs of the search; those of width alone come on top.
"""
from dataclasses import replace

from tools.compare.experiment import Row
from tools.compare.experiments.scale_down import experiment as base

#: Epochs of the search; a fifth of them more for the widths alone.
EPOCHS = (.25, .5, 1, 2, 4, 8, 16)

experiment = replace(
    base,
    title='Length of the search',
    rows=[
        Row(f'dms {epochs:g} epochs',
            recipe=replace(base.search, epochs=epochs),
            width_only_epochs=epochs / 4) for epochs in EPOCHS
    ] + [base.row('even'), base.row('hand')])
