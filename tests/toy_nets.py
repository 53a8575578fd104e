# Copyright (c) dms_razor contributors. All rights reserved.
"""A small residual network in plain torch, and searches of it, for tests."""
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor import Search


class Block(nn.Module):

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class Net(nn.Module):

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.Sequential(*[Block(12) for _ in range(3)])
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        x = self.blocks(F.relu(self.stem(x)))
        return self.fc(x.mean((2, 3)))


def plain_net():
    """The network with the same weights each time."""
    torch.manual_seed(0)
    return Net()


def plain_data():
    """Eight images in four classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 8, 8, generator=generator)
    return images, torch.arange(8) % 4


def make_search(net, **settings):
    """A search of 30 steps."""
    settings = dict(dict(total_steps=30, lr=.1), **settings)
    return Search(net, torch.zeros(1, 3, 8, 8), **settings)


def train(search, optimizer, data, steps):
    """Train weights and ratios for some steps."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(search.model(data[0]), data[1])
        search.loss(loss).backward()
        optimizer.step()
