# Copyright (c) dms_razor contributors. All rights reserved.
"""Gradients of all ratios of a convolutional network, in float64.

Residual blocks whose masks are carried by batch norms, depthwise and grouped
convolutions; SiLU and average pooling, so that the loss is smooth; BatchNorm
in eval mode; ratios inside their interval.
"""
import pytest
import torch
from equality import randomise
from torch import nn
from torch.nn import functional as F

from dms_razor import Search


class Block(nn.Module):
    """An inverted bottleneck with a shortcut."""

    def __init__(self, width, hidden, activation):
        super().__init__()
        self.expand = nn.Conv2d(width, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(
            hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.activation = activation

    def forward(self, x):
        out = self.activation(self.norm1(self.expand(x)))
        out = self.activation(self.norm2(self.depthwise(out)))
        return x + self.norm3(self.project(out))


def network(activation):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.SiLU(),
        Block(10, 12, activation), Block(10, 14, activation),
        Block(10, 8, activation), nn.AvgPool2d(2),
        nn.Conv2d(10, 12, 3, groups=2), nn.BatchNorm2d(12), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    return randomise(net).double().eval()


@pytest.mark.parametrize('activation', [nn.SiLU(), nn.Identity()])
@pytest.mark.parametrize('loss_weight', [0., .7])
def test_ratio_gradients_are_finite_differences(activation, loss_weight):
    """Error over the largest gradient; without and with the resource loss.

    Identity lets a batch norm carry the mask of the convolution behind it,
    SiLU does not.
    """
    net = network(activation)
    images, labels = torch.randn(8, 3, 8, 8).double(), torch.arange(8) % 4
    search = Search(
        net,
        images,
        target=.3,
        harden=0.,
        total_steps=30,
        lr=5e-3,
        loss_weight=loss_weight)
    search.own_clock, bank = False, search.bank
    kinds = {unit.kind for unit in bank.layout.units}
    assert kinds == {'width', 'depth'}
    bank.importance = torch.rand(bank.layout.E).double()
    bank.updates = 1
    point = torch.linspace(.31, .43, bank.layout.U).double()

    def loss_at(ratios):
        bank.ratios = ratios.clone()
        bank.refresh()
        search.advance(30)
        return search.loss(F.cross_entropy(net(images), labels))

    expected, width = torch.zeros_like(point), 1e-6
    for i in range(len(point)):
        sides = []
        for sign in (1, -1):
            ratios = point.clone()
            ratios[i] += sign * width
            sides.append(loss_at(ratios).item())
        expected[i] = (sides[0] - sides[1]) / (2 * width)
    loss_at(point).backward()
    search.step()
    found = (point - bank.ratios) / bank.lr
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
