# Copyright (c) dms_razor contributors. All rights reserved.
"""Rows of the experiments that prune a pretrained network."""
from typing import List

from tools.compare.experiment import Recipe, Row

#: Ten epochs for every row: in those that search, three of them search.
FINETUNE = Recipe(epochs=10, lr=.05)
SEARCH = Recipe(epochs=2, lr=.05, schedule='constant')
WIDTH_ONLY_EPOCHS = 1
BUDGETS = ('50%', '30%', '15%')


def pruning_rows() -> List[Row]:
    """This package's search, the narrowings, and those of torch-pruning."""
    rest = Recipe(epochs=7, lr=FINETUNE.lr)
    rows = [
        Row('dms width',
            search=dict(depth=False),
            after='finetune',
            train=rest),
        Row('dms', after='finetune', train=rest),
        Row('uniform', 'uniform', after='finetune'),
    ]
    for method in ('l1', 'taylor'):
        for scope in ('local', 'global'):
            rows.append(
                Row(f'{method} {scope}',
                    method,
                    options=dict(scope=scope),
                    after='finetune'))
    for importance in ('magnitude', 'taylor', 'random'):
        for scope in ('local', 'global'):
            rows.append(
                Row(f'torch-pruning {importance} {scope}',
                    'torch_pruning',
                    options=dict(importance=importance, scope=scope),
                    after='finetune'))
    return rows
