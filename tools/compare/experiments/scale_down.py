# Copyright (c) dms_razor contributors. All rights reserved.
"""A large random network searched down to a small hand-made one's MACs."""
from functools import partial

from tools.compare.experiment import Data, Experiment, Recipe, Row
from tools.compare.networks import ResNet, initialise

supernet = partial(ResNet, (24, 48, 96), (4, 4, 4))
hand = partial(ResNet, (16, 32, 64), (2, 2, 2))
even = partial(ResNet, (11, 22, 44), (4, 4, 4))

experiment = Experiment(
    title='Scaling down to a hand-made network',
    network=supernet,
    budgets={'hand-made': hand},
    rows=[
        Row('dms'),
        Row('dms of 0.1.0',
            search=dict(lr=5e-3, loss_weight=1., fall=1., harden=0.)),
        Row('even', 'network', network=even),
        Row('hand', 'network', network=hand),
    ],
    references=('hand', 'even'),
    data=Data(size=16, train_images=10_000),
    search=Recipe(epochs=4, lr=.1, schedule='constant'),
    width_only_epochs=1,
    train=Recipe(epochs=12, lr=.2),
    init=initialise)
