# Copyright (c) dms_razor contributors. All rights reserved.
"""A small residual network that methods are tried on."""
import torch
from torch import nn

from dms_razor import Search


class Block(nn.Module):

    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return torch.relu(x + self.down(torch.relu(self.up(x))))


class Net(nn.Module):
    """A stream of 64, a stage of two blocks with 48 and 32 hidden features,
    and a width of 40."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(16, 64)
        self.blocks = nn.Sequential(Block(64, 48), Block(64, 32))
        self.mid, self.head = nn.Linear(64, 40), nn.Linear(40, 4)

    def forward(self, x):
        x = self.blocks(torch.relu(self.stem(x)))
        return self.head(torch.relu(self.mid(x)))


INPUTS = torch.linspace(-1, 1, 96).view(6, 16)


def make_search(target=.5, **settings):
    """A search of the network, with the same weights each time."""
    torch.manual_seed(0)
    settings = dict(dict(total_steps=20), **settings)
    return Search(Net(), INPUTS[:1], target, **settings)


def loss(model, batch):
    return model(batch).square().mean()


def macs(stem, up0, up1, mid, blocks=(True, True)):
    """By hand."""
    total = 16 * stem + stem * mid + mid * 4
    for up, stays in zip((up0, up1), blocks):
        total += 2 * stem * up * stays
    return total


def unit_counts(search, kept=None):
    """What each unit keeps, by name."""
    kept = search.bank.kept() if kept is None else kept
    names = [unit.name for unit in search.space.units]
    return dict(zip(names, kept.tolist()))
