# Copyright (c) dms_razor contributors. All rights reserved.
"""Sums of weights, against loops over the layers by name."""
import torch
from torch import nn

from dms_razor import Search
from dms_razor.baselines import METHODS
from .helpers import make_search


def raw(search):
    """Scores of each unit by name, in order ``[groups, size]``."""
    rows = search.space.rows(METHODS.find('l1')(search))
    return {unit.name: row for unit, row in zip(search.space.units, rows)}


def over_mean(values):
    values = torch.stack(list(values)).double().detach()
    return values / values.mean()


def test_streams_hidden_widths_and_blocks_by_hand():
    search = make_search()
    net, found = search.model, raw(search)
    blocks = net.blocks

    def rows(layer):
        return layer.weight.abs().double().sum(1)

    # The stream is written by the stem and by both branches.
    stream = (rows(net.stem) + rows(blocks[0].down) + rows(blocks[1].down)) / 3
    torch.testing.assert_close(found['stem'][0], over_mean(stream))
    torch.testing.assert_close(found['blocks.1.up'][0],
                               over_mean(rows(blocks[1].up)))
    torch.testing.assert_close(found['mid'][0], over_mean(rows(net.mid)))
    stage = [
        sum(layer.weight.abs().double().sum() for layer in (b.up, b.down))
        for b in blocks
    ]
    depth, = [
        row for name, row in found.items()
        if 'depth' in name or row.shape == (1, 2)
    ]
    torch.testing.assert_close(depth[0], over_mean(stage))


class Convolutions(nn.Module):
    """Grouped, depthwise and transposed ones, with norms."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 6, 1, groups=2)
        self.up = nn.ConvTranspose2d(6, 10, 2, 2)
        self.last = nn.Conv2d(10, 2, 1)

    def forward(self, x):
        x = self.depthwise(torch.relu(self.norm(self.first(x))))
        return self.last(torch.relu(self.up(torch.relu(self.grouped(x)))))


def test_rows_are_what_writes():
    torch.manual_seed(1)
    net = Convolutions()
    search = Search(net, torch.randn(1, 3, 8, 8), total_steps=5)
    found = raw(search)

    def sums(layer, axis=0):
        axes = [a for a in range(4) if a != axis]
        return layer.weight.abs().double().sum(axes)

    first = (sums(net.first) + sums(net.depthwise)) / 2
    torch.testing.assert_close(found['first'].flatten(), over_mean(first))
    torch.testing.assert_close(found['grouped'].flatten(),
                               over_mean(sums(net.grouped)))
    assert found['grouped'].shape == (2, 3)
    torch.testing.assert_close(found['up'].flatten(),
                               over_mean(sums(net.up, 1)))


class Raw(nn.Module):
    """A layer that is no standard one, and an embedding."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 6)
        self.matrix = nn.Parameter(torch.randn(4, 6))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        words = self.words(x.long())
        return self.head(torch.relu(nn.functional.linear(words, self.matrix)))


def test_matrices_with_other_names():
    torch.manual_seed(3)
    net = Raw()
    search = Search(net, torch.tensor([[0, 3]]), total_steps=5)
    words, matrix = raw(search).values()
    torch.testing.assert_close(
        words[0], over_mean(net.words.weight.abs().double().sum(0)))
    torch.testing.assert_close(matrix[0],
                               over_mean(net.matrix.abs().double().sum(1)))


class Attention(nn.Module):

    def __init__(self):
        super().__init__()
        self.heads = 2
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        B, N, _ = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads,
                                   -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class Tokens(nn.Module):
    """Attention between pixels, with a table of positions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(1, 8)
        self.place = nn.Parameter(torch.randn(1, 16, 8))
        self.attention, self.head = Attention(), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x.flatten(2).mT) + self.place
        return self.head(x + self.attention(x))


def test_attention():
    torch.manual_seed(2)
    net = Tokens()
    search = Search(net, torch.randn(1, 1, 4, 4), total_steps=5)
    found = raw(search)
    # q, k and v of each head are rows of one matrix.
    weight = net.attention.qkv.weight.abs().double().view(3, 2, 4, 8)
    heads = next(row for name, row in found.items() if row.shape == (1, 2))
    torch.testing.assert_close(heads[0], over_mean(weight.sum((0, 2, 3))))
    stream = (
        net.stem.weight.abs().double().sum(1) + net.place.abs().double().sum(
            (0, 1)) + net.attention.proj.weight.abs().double().sum(1)) / 3
    torch.testing.assert_close(found['stem'][0], over_mean(stream))
