# Copyright (c) dms_razor contributors. All rights reserved.
"""Rows of the experiments that ask which numbers a search should learn."""
from dataclasses import replace

from tools.compare.experiment import Experiment, Recipe, Row
from tools.compare.experiments._pretrained import FINETUNE

#: This paper's, and those that it compares with (Table 2, Table 11).
SELECTORS = ('dms', 'get', 'mes', 'sns', 'unnormalised')


def selectors(base: Experiment, title: str) -> Experiment:
    """Selectors beside each other, the pretrained weights at rest.

    What is found, and nothing else, makes the difference: during the search
    no weight moves, so that the structure alone is learnt, in width alone.

    Args:
        base (Experiment): It prunes a pretrained network.
        title (str): Stands above the table.
    """
    rest = Recipe(epochs=7, lr=FINETUNE.lr)
    return replace(
        base,
        title=title,
        budgets=('30%', '15%'),
        rows=[
            Row(name,
                search=dict(selector=name, depth=False),
                after='finetune',
                train=rest) for name in SELECTORS
        ] + [Row('uniform', 'uniform', after='finetune', train=rest)],
        search=replace(base.search, lr=0.),
        references=('dms', ))
