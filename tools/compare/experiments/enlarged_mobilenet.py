# Copyright (c) dms_razor contributors. All rights reserved.
"""MobileNetV2 enlarged, and searched down to the MACs of the original.

The paper's way to better networks (section 4.2): widths times 1.5 and twice
the blocks, of which the search keeps what the original costs.
"""
from functools import partial

from tools.compare.experiment import Data, Experiment, Recipe, Row
from tools.compare.networks import MobileNetV2, initialise

#: Expansion, width, blocks and stride of each stage.
STAGES = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 3, 2), (6, 48, 2,
                                                                      1))
ENLARGED = tuple((expand, width * 3 // 2, 2 * blocks, stride)
                 for expand, width, blocks, stride in STAGES)

original = partial(MobileNetV2, STAGES, 16, 192)
enlarged = partial(MobileNetV2, ENLARGED, 24, 288)

experiment = Experiment(
    title='An enlarged MobileNetV2 at the MACs of the original',
    network=enlarged,
    budgets={'original': original},
    rows=[
        Row('dms'),
        Row('original', 'network', network=original),
        Row('uniform', 'uniform'),
    ],
    references=('original', 'uniform'),
    data=Data(size=32, train_images=10_000),
    search=Recipe(epochs=4, lr=.05, schedule='constant'),
    width_only_epochs=1,
    train=Recipe(epochs=20, lr=.1),
    init=initialise)
