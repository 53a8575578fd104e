# Copyright (c) dms_razor contributors. All rights reserved.
"""Accuracy over the cost of the search: searches, and none at all."""
from dataclasses import replace

from tools.compare.experiment import Row
from tools.compare.experiments.lengths import experiment as base
from tools.compare.experiments.lengths import searched

experiment = replace(
    base,
    title='Accuracy over the cost of the search',
    rows=[searched(steps) for steps in (75, 150, 300, 600)] + [
        Row('random local', 'random', options=dict(scope='local')),
        Row('random global', 'random', options=dict(scope='global')),
        Row('evolution', 'evolution'),
        base.row('even'),
        base.row('hand')
    ])
