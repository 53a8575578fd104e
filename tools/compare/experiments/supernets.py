# Copyright (c) dms_razor contributors. All rights reserved.
"""Where to search: supernets of three sizes, and a pretrained one.

The table of scale_down (paper, Table 12): every row ends at the MACs of the
same hand-made network, trained from scratch alike.
"""
from dataclasses import replace
from functools import partial

from tools.compare.experiment import Row
from tools.compare.experiments.scale_down import experiment as base
from tools.compare.networks import ResNet

deeper = partial(ResNet, (32, 64, 128), (6, 6, 6))

experiment = replace(
    base,
    title='Size and pretraining of the supernet',
    rows=[
        Row('24-48-96', pretrained=False),
        Row('24-48-96 pretrained'),
        Row('32-64-128',
            supernet=partial(ResNet, (32, 64, 128), (4, 4, 4)),
            pretrained=False),
        Row('32-64-128 deeper', supernet=deeper, pretrained=False),
        Row('32-64-128 deeper, four times as long',
            supernet=deeper,
            recipe=replace(base.search, epochs=4 * base.search.epochs),
            width_only_epochs=4 * base.width_only_epochs,
            pretrained=False),
        base.row('hand'),
    ],
    references=('24-48-96', ),
    pretrain=base.train)
