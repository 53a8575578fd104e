# Copyright (c) dms_razor contributors. All rights reserved.
"""A small DeiT of eight blocks, searched down to the MACs of six."""
from functools import partial

from tools.compare.experiment import Data, Experiment, Recipe, Row
from tools.compare.networks import VisionTransformer, initialise

original = partial(VisionTransformer, 64, 6, 4, size=32, patch=4)
enlarged = partial(VisionTransformer, 64, 8, 4, size=32, patch=4)

experiment = Experiment(
    title='A vision transformer of eight blocks at the MACs of six',
    network=enlarged,
    budgets={'original': original},
    rows=[
        Row('dms'),
        Row('original', 'network', network=original),
        Row('uniform', 'uniform'),
    ],
    references=('original', 'uniform'),
    data=Data(size=32, train_images=10_000),
    search=Recipe(
        epochs=6,
        lr=5e-4,
        schedule='constant',
        optimizer='adamw',
        weight_decay=.05),
    width_only_epochs=2,
    train=Recipe(
        epochs=20,
        lr=1e-3,
        optimizer='adamw',
        weight_decay=.05,
        label_smoothing=.1),
    init=initialise)
