# Copyright (c) dms_razor contributors. All rights reserved.
"""What to do with a found MobileNetV2: keep its weights, or train new ones."""
from dataclasses import replace

from tools.compare.experiments._afterwards import rows
from tools.compare.experiments._pretrained import FINETUNE
from tools.compare.experiments.mobilenet import experiment as base

experiment = replace(
    base,
    title='After the search: a pretrained MobileNetV2',
    budgets=('50%', ),
    rows=rows(FINETUNE, replace(base.pretrain, epochs=FINETUNE.epochs),
              base.pretrain),
    references=())
