# Copyright (c) dms_razor contributors. All rights reserved.
"""How long a search should run with hard masks at its end."""
from dataclasses import replace

from tools.compare.experiment import Row
from tools.compare.experiments.pretrained import experiment as base

#: Shares of the search with hard masks.
SHARES = (0., .1, 1 / 3)
width = base.row('dms width')

experiment = replace(
    base,
    title='Hard masks at the end of the search',
    budgets=('30%', '15%'),
    rows=[
        Row(f'harden {share:.2g}',
            search={
                **width.search, 'harden': share
            },
            after=width.after,
            train=width.train) for share in SHARES
    ],
    references=('harden 0', ))
