# Copyright (c) dms_razor contributors. All rights reserved.
"""Depth alone, judged by a table in which every network of the space stands.

NAS-Bench-Macro (Su et al. 2021) has 6,561 networks, each trained three times
from scratch on CIFAR-10 by its authors. Here the largest of those with blocks
of one kind is searched for its depths, and what is found is looked up:

    python tools/compare nas_bench_macro --data FOLDER --judge FILE

FILE is ``nas-bench-macro_cifar10.json`` of the benchmark's authors. Its codes
have eight digits for eight blocks, 2-3-3 in three stages: 0 is no block, 1
and 2 are inverted residuals of expansion 3 and 6. The first block of a stage
stays, since it halves the image.

The supernet is trained first, and its weights rest while it is searched: the
mask of a block scales the last norm's weight, whose gradient training brings
to 0, so that moving weights take the task its say in the depth.

A random network that fills the budget needs no row: the table has all of
them, and :func:`judge` gives what they miss on average.
"""
import itertools
import json
import statistics
from pathlib import Path
from typing import Any, Dict, List, Tuple

import torch.nn.functional as F
from torch import Tensor, nn

from tools.compare.experiment import Data, Experiment, Recipe, Row
from tools.compare.networks import initialise

#: Width and blocks of the stages.
STAGES = ((64, 2), (128, 3), (256, 3))


class Block(nn.Module):
    """Choice 2 of the table: expansion 6, a depthwise kernel of 5."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        middle = 6 * inputs
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(
            middle, middle, 5, stride, 2, groups=middle, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.shortcut = stride == 1 and inputs == width

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, width, H / stride, W / stride]``."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = F.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return x + out if self.shortcut else out


class Macro(nn.Module):
    """The network 22222222 of the table, 105.66 MMACs at 32 x 32 pixels."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        stages, inputs = [], 32
        for width, count in STAGES:
            stage = []
            for block in range(count):
                stage.append(Block(inputs, width, 1 if block else 2))
                inputs = width
            stages.append(nn.Sequential(*stage))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32),
            nn.ReLU())
        self.stages = nn.Sequential(*stages)
        self.last = nn.Sequential(
            nn.Conv2d(inputs, 1280, 1, bias=False), nn.BatchNorm2d(1280),
            nn.ReLU())
        self.head = nn.Linear(1280, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 3, 32, 32]`` to ``[B, classes]``."""
        return self.head(self.last(self.stages(self.stem(x))).mean((2, 3)))


def code(blocks: Tuple[int, ...]) -> str:
    """The table's name of a network with so many blocks in each stage.

    Which of a stage's blocks stay makes no difference: the networks are the
    same, and so are the table's figures.
    """
    return ''.join('2' * kept + '0' * (count - kept)
                   for kept, (_, count) in zip(blocks, STAGES))


def filling(table: Dict[str, Dict[str, Any]], amount: float) -> List[float]:
    """Accuracy of each network to which no block can be added any more.

    Networks that are the same count as often as they can be chosen.
    """
    found = []
    choices = [(2, ) + choice
               for choice in itertools.product((0, 2), repeat=5)]
    for a, b, c, d, e, f in choices:
        digits = (a, b, 2, c, d, 2, e, f)
        name = ''.join(map(str, digits))
        more = [
            name[:place] + '2' + name[place + 1:]
            for place, digit in enumerate(digits) if digit == 0
        ]
        if table[name]['flops'] <= amount and all(
                table[larger]['flops'] > amount for larger in more):
            found.append(table[name]['mean_acc'])
    return found


def judge(record: Dict[str, Any], path: Path) -> Dict[str, float]:
    """Accuracy of a run's network by the table, and what was missed.

    Returns:
        dict: ``table top-1``; ``regret``, by how much the best network within
        the budget is better; ``regret of chance``, the expected one of a
        random network that fills the budget.
    """
    table = json.loads(path.read_text())
    blocks = tuple(
        len({
            name.split('.')[2]
            for name in record['layers'] if name.startswith(f'stages.{stage}.')
        }) for stage in range(len(STAGES)))
    within = [
        table[code(choice)]['mean_acc']
        for choice in itertools.product(*(range(1, count + 1)
                                          for _, count in STAGES))
        if table[code(choice)]['flops'] <= record['amount']
    ]
    found, best = table[code(blocks)]['mean_acc'], max(within)
    chance = statistics.fmean(filling(table, record['amount']))
    return {
        'table top-1': round(found, 3),
        'regret': round(best - found, 3),
        'regret of chance': round(best - chance, 3),
    }


depth_alone = dict(width=False)
experiment = Experiment(
    title='Depth alone, judged by NAS-Bench-Macro',
    network=Macro,
    budgets={
        '62%': '65.5M',
        '75%': '79.3M',
        '87.5%': '92.5M'
    },
    rows=[
        Row('dms', search=depth_alone, after='none'),
        Row('resource only', 'resource_only', search=depth_alone,
            after='none'),
        Row('evolution', 'evolution', search=depth_alone, after='none'),
    ],
    data=Data(size=32, train_images=10_000, test_images=1_000),
    pretrain=Recipe(epochs=3, batch=64, lr=.1),
    search=Recipe(epochs=1, batch=64, lr=0., schedule='constant'),
    width_only_epochs=0,
    init=initialise,
    judge=judge)
