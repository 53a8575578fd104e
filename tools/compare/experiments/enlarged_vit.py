# Copyright (c) dms_razor contributors. All rights reserved.
"""A small DeiT of eight blocks, searched down to the MACs of six."""
from dataclasses import replace
from functools import partial

from tools.compare.experiment import Data, Experiment, Row
from tools.compare.experiments.deit import experiment as base
from tools.compare.networks import VisionTransformer, initialise

original = partial(VisionTransformer, 64, 6, 4, size=32, patch=4)
enlarged = partial(VisionTransformer, 64, 8, 4, size=32, patch=4)

search = replace(base.search, epochs=6)
longer = replace(search, epochs=16, lr=1e-3)

experiment = Experiment(
    title='A vision transformer of eight blocks at the MACs of six',
    network=enlarged,
    budgets={'original': original},
    rows=[
        Row('dms', pretrained=False),
        Row('dms longer', recipe=longer, width_only_epochs=4,
            pretrained=False),
        Row('dms pretrained'),
        Row('dms longer pretrained', recipe=longer, width_only_epochs=4),
        Row('original', 'network', network=original),
        Row('uniform', 'uniform', pretrained=False),
    ],
    references=('original', 'uniform'),
    data=Data(size=32, train_images=10_000),
    search=search,
    width_only_epochs=2,
    train=base.train,
    pretrain=base.train,
    init=initialise)
