# Copyright (c) dms_razor contributors. All rights reserved.
"""A family of toy networks, in the form of those of other packages.

Each shows one thing that the coverage of other packages has to tell.
"""
import torch
from torch import nn

from tools.zoo.case import Case, NotCovered, images

PACKAGES = ('torch', )


class Nonsense(dict):
    """Options that cannot be read."""

    def items(self):
        raise KeyError('nonsense')


#: 'odd' has an option that leads to an error of Python's.
OPTIONS = dict(counts=dict(check=False), odd=dict(units=Nonsense(a={})))


class Plain(nn.Module):
    """Dropout and a batch norm: random and of the batch in training."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(.5),
            nn.Flatten(), nn.Linear(8 * 4, 5))

    def forward(self, x):
        return self.body(x)


class Counts(Plain):
    """Computes with a number of channels: wrong if that is not noticed."""

    def forward(self, x):
        x = self.body[0](x)
        return self.body[1:](x * (x.shape[1] / 8))


class Endless(Plain):
    """Takes longer than anybody waits."""

    def forward(self, x):
        while True:
            x = x + 0


def names():
    return ['plain', 'counts', 'odd', 'bare', 'endless', 'absent']


def build(name):
    if name == 'absent':
        raise NotCovered('it needs what is not here')
    net = dict(
        plain=Plain,
        counts=Counts,
        odd=Plain,
        endless=Endless,
        bare=lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 2)))[name]
    torch.manual_seed(0)
    return Case(
        net(), images(4), note=name.title(), options=OPTIONS.get(name, {}))
