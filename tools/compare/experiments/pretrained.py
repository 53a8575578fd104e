# Copyright (c) dms_razor contributors. All rights reserved.
"""Pruning a pretrained ResNet to three budgets."""
from functools import partial

from tools.compare.experiment import Data, Experiment, Recipe
from tools.compare.experiments._pretrained import (BUDGETS, FINETUNE, SEARCH,
                                                   WIDTH_ONLY_EPOCHS,
                                                   pruning_rows)
from tools.compare.networks import ResNet, initialise

experiment = Experiment(
    title='Pruning a pretrained ResNet',
    network=partial(ResNet, (16, 32, 64), (3, 3, 3)),
    budgets=BUDGETS,
    rows=pruning_rows(),
    references=('uniform', ),
    data=Data(size=16, train_images=10_000),
    pretrain=Recipe(epochs=30, lr=.2),
    search=SEARCH,
    width_only_epochs=WIDTH_ONLY_EPOCHS,
    train=FINETUNE,
    init=initialise)
