# Copyright (c) dms_razor contributors. All rights reserved.
"""A vision transformer searched down to half, and narrowed evenly."""
from functools import partial

from tools.compare.experiment import Data, Experiment, Recipe, Row
from tools.compare.networks import VisionTransformer, initialise

recipe = Recipe(
    epochs=20,
    lr=1e-3,
    optimizer='adamw',
    weight_decay=.05,
    label_smoothing=.1)

experiment = Experiment(
    title='Scaling down a vision transformer',
    network=partial(VisionTransformer, 96, 6, 6),
    budgets=('50%', '25%'),
    rows=[Row('dms'), Row('uniform', 'uniform')],
    references=('uniform', ),
    data=Data(size=16, train_images=10_000),
    search=Recipe(
        epochs=4,
        lr=5e-4,
        schedule='constant',
        optimizer='adamw',
        weight_decay=.05),
    train=recipe,
    init=initialise)
