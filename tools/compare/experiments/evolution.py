# Copyright (c) dms_razor contributors. All rights reserved.
"""Evolution with ten times the images of a search, on scale_down's network.

Two kinds: a supernet that is trained as it is and cut, and one whose random
subnets are trained too (one-shot), so that they work as they are cut.
"""
from dataclasses import replace

from tools.compare.experiment import Recipe, Row
from tools.compare.experiments.scale_down import experiment as base

#: A search sees 390 batches; a score takes 8, so 240 of them 1,920.
EVALUATIONS = dict(population=20, generations=12)
supernet = Recipe(steps=1980, lr=.2)

experiment = replace(
    base,
    title='A search, and evolution with ten times its images',
    rows=[
        base.row('dms'),
        Row('evolution', 'evolution', options=EVALUATIONS, recipe=supernet),
        Row('evolution, one-shot',
            'evolution',
            options=dict(one_shot=True, **EVALUATIONS),
            recipe=supernet),
    ],
    references=('dms', ))
