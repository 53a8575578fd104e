# Copyright (c) dms_razor contributors. All rights reserved.
"""What to do with a found transformer: keep its weights, or train new ones."""
from dataclasses import replace

from tools.compare.experiments._afterwards import rows
from tools.compare.experiments.deit import experiment as base
from tools.compare.experiments.deit import recipe

pretrain = replace(recipe, epochs=30)
experiment = replace(
    base,
    title='After the search: a pretrained vision transformer',
    budgets=('50%', ),
    rows=rows(
        replace(recipe, epochs=10, lr=3e-4), replace(recipe, epochs=10),
        pretrain),
    references=(),
    pretrain=pretrain,
    search=replace(base.search, epochs=2))
