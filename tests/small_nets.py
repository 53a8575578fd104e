# Copyright (c) dms_razor contributors. All rights reserved.
"""Small networks in plain torch that each show one thing, for tests."""
import copy

import torch
from equality import assert_true, reasons
from torch import nn
from torch.nn import functional as F

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def conv(inputs, outputs, kernel=3, **settings):
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **settings)


class Net(nn.Module):
    """``stem`` of 16 channels, the middle, mean over positions, ``head``.

    Args:
        middle (Callable): ``middle(net, x)``, 16 channels to ``width``.
        width (int): Channels the middle returns.
        layers (nn.Module | Parameter | Tensor): Attributes of the network; a
            tensor becomes a buffer.
    """

    def __init__(self, middle, width=8, **layers):
        super().__init__()
        self.stem = conv(3, 16)
        for name, layer in layers.items():
            if isinstance(layer, torch.Tensor) and not isinstance(
                    layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)
        self.head = nn.Linear(width, 5)
        self.middle = middle

    def forward(self, x):
        """Images ``[B, 3, H, W]`` to scores ``[B, 5]``."""
        x = self.middle(self, F.relu(self.stem(x)))
        return self.head(x.mean((2, 3)) if x.dim() == 4 else x)


class Block(nn.Module):
    """``act(x + branch(x))`` with a batch norm at the end of the branch."""

    def __init__(self, channels=16, act=F.relu, **norm):
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels, bias=False)
        self.norm = nn.BatchNorm2d(channels, **norm)
        self.act = act

    def forward(self, x):
        """Same shape."""
        return self.act(x + self.norm(self.conv2(F.relu(self.conv1(x)))))


def chaotic(x, steps):
    """Numbers in [0, 1]; each step doubles their differences."""
    x = x.sigmoid()
    for _ in range(steps):
        x = 4 * x * (1 - x)
    return x


def build(middle, **layers):
    """A :class:`Net` of its own, on copies of the layers."""
    torch.manual_seed(0)
    return Net(middle, **copy.deepcopy(layers))


def widths(space):
    """Name -> (size, groups) of the width units."""
    return {
        u.name: (u.size, u.groups)
        for u in space.units if u.kind == 'width'
    }


def depths(space):
    """Name -> blocks of the depth units."""
    return {u.name: u.members for u in space.units if u.kind == 'depth'}


def check(middle, expected, stays=None, count=True, **layers):
    """Trace a :class:`Net`, prove its space, compare its units.

    Args:
        expected (dict): Name -> size, or (size, groups), of all width units.
        stays (dict): Module -> part of the reason why it stays; the head is
            left out.
        count (bool): Whether to count MACs too.
        layers (nn.Module): See :class:`Net`.

    Returns:
        Space: The space.
    """
    # Stated: some of these networks mix the entries of a batch.
    space = assert_true(
        build(middle, **layers),
        IMAGES,
        number=3,
        count=count,
        batch_size=len(IMAGES))
    wanted = {
        name: size if isinstance(size, tuple) else (size, 1)
        for name, size in expected.items()
    }
    assert widths(space) == wanted, (widths(space), reasons(space))
    found = {m: r for m, r in reasons(space).items() if m != 'head'}
    stays = stays or {}
    assert set(found) == set(stays), found
    for module, reason in stays.items():
        assert reason in found[module], found[module]
    return space


class HandsOn(nn.Module):
    """A branch that hands on what the next one reads (biases of T5)."""

    def __init__(self, first, bare):
        super().__init__()
        self.layer, self.first, self.bare = nn.Linear(8, 8), first, bare
        self.bias = nn.Parameter(torch.rand(8))

    def forward(self, x, bias=None):
        if bias is None:
            bias = self.bias if self.bare else self.bias * 2
            bias = bias if self.first else x.new_zeros(8)
        return self.layer(x * bias), bias


class HandingOn(nn.Module):
    """Three of them on one stream."""

    def __init__(self, bare):
        super().__init__()
        self.stem, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.parts = nn.ModuleList(HandsOn(n == 0, bare) for n in range(3))

    def forward(self, x):
        x, bias = self.stem(x), None
        for part in self.parts:
            y, bias = part(x, bias)
            x = x + y
        return self.head(x)
