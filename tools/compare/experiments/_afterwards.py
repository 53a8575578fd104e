# Copyright (c) dms_razor contributors. All rights reserved.
"""Rows of the experiments that ask what to do with what was found."""
from dataclasses import replace
from typing import List

from tools.compare.experiment import Experiment, Recipe, Row
from tools.compare.experiments._pretrained import FINETUNE


def rows(finetune: Recipe, scratch: Recipe, pretrain: Recipe) -> List[Row]:
    """One search, and all that may follow it.

    Args:
        finetune (Recipe): From the weights that were found.
        scratch (Recipe): From new weights, for as many epochs.
        pretrain (Recipe): Its epochs are added in a further row, which has
            seen as many images as pretraining and finetuning together.
    """
    longer = replace(scratch, epochs=scratch.epochs + pretrain.epochs)
    return [
        Row('as cut', after='none', recalibrate=False, one_search=True),
        Row('recalibrated', after='none', one_search=True),
        Row(f'finetuned, {finetune.epochs:g} epochs',
            after='finetune',
            train=finetune,
            one_search=True),
        Row(f'from scratch, {scratch.epochs:g} epochs',
            train=scratch,
            one_search=True),
        Row(f'from scratch, {longer.epochs:g} epochs',
            train=longer,
            one_search=True),
    ]


def after(base: Experiment, title: str) -> Experiment:
    """What to do with the half that a pruning experiment finds."""
    scratch = replace(base.pretrain, epochs=FINETUNE.epochs)
    return replace(
        base,
        title=title,
        budgets=('50%', ),
        rows=rows(FINETUNE, scratch, base.pretrain),
        references=())
