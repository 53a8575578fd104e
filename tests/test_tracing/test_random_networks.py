# Copyright (c) dms_razor contributors. All rights reserved.
"""Random networks of the pieces that real ones are made of.

Whatever the pieces and their order: the masked network is the sliced one,
the closed form is what is counted, and no parameter is lost between units
and the list of what stays. DMS_RAZOR_EXAMPLES says how many are drawn; 30 by
default.
"""
import os

import torch
from equality import assert_true
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_nets import IMAGES, conv
from torch import nn
from torch.nn import functional as F

EXAMPLES = int(os.environ.get('DMS_RAZOR_EXAMPLES', 30))


class Piece(nn.Module):
    """Something of ``inside`` channels that returns ``outside``."""

    def __init__(self, inside, outside):
        super().__init__()
        self.conv = conv(inside, outside)
        self.norm = nn.BatchNorm2d(outside)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class Grouped(Piece):
    """Two groups."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.conv = conv(inside, outside, groups=2)


class Depthwise(Piece):
    """A depthwise convolution in front."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.depthwise = conv(inside, inside, groups=inside)

    def forward(self, x):
        return super().forward(F.silu(self.depthwise(x)))


class Residual(Piece):
    """A block with a shortcut, removable where the width stays."""

    def __init__(self, inside, outside):
        super().__init__(inside, inside)
        self.last = conv(inside, inside, 1)
        self.widen = None if inside == outside else conv(inside, outside, 1)

    def forward(self, x):
        x = x + self.last(super().forward(x))
        return x if self.widen is None else self.widen(x)


class Excited(Piece):
    """Squeeze and excitation behind it."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.down, self.up = conv(outside, 4, 1), conv(4, outside, 1)

    def forward(self, x):
        x = super().forward(x)
        gate = self.up(F.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class Concatenated(Piece):
    """What comes in and what was made of it, side by side."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.join = conv(inside + outside, outside, 1)

    def forward(self, x):
        return self.join(torch.cat([super().forward(x), x], 1))


class Split(Piece):
    """One half goes on, both are joined the other way round."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.other = conv(outside // 2, outside // 2)

    def forward(self, x):
        first, second = super().forward(x).chunk(2, 1)
        return torch.cat([self.other(second), first], 1)


class Twice(Piece):
    """One convolution that runs twice."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.again = conv(outside, outside, 1)

    def forward(self, x):
        return self.again(self.again(super().forward(x)))


class Normalised(Piece):
    """A group norm of one group and layer scale."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.norm = nn.GroupNorm(1, outside)
        self.scale = nn.Parameter(torch.rand(outside, 1, 1))

    def forward(self, x):
        return super().forward(x) * self.scale


class Pooled(Piece):
    """Down by pooling, up by interpolation, added to the longer way."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.beside = conv(inside, outside, 1)

    def forward(self, x):
        small = super().forward(F.max_pool2d(x, 2))
        return self.beside(x) + F.interpolate(small, scale_factor=2)


PIECES = (Piece, Grouped, Depthwise, Residual, Excited, Concatenated, Split,
          Twice, Normalised, Pooled)


class RandomNetwork(nn.Module):
    """A stem, the pieces one after the other, and a classifier.

    Args:
        plan (list): Pairs of a piece's class and its width.
        skip (int): From behind this piece a tensor of equal width may be
            added to the last one.
    """

    def __init__(self, plan, skip):
        super().__init__()
        widths = [8] + [width for _, width in plan]
        self.stem = conv(3, 8)
        self.pieces = nn.ModuleList(
            piece(inside, outside)
            for (piece, outside), inside in zip(plan, widths))
        self.skip = skip if widths[skip] == widths[-1] else None
        self.head = nn.Linear(widths[-1], 5)

    def forward(self, x):
        tensors = [self.stem(x)]
        for piece in self.pieces:
            tensors.append(piece(tensors[-1]))
        x = tensors[-1]
        if self.skip is not None:
            x = x + tensors[self.skip]
        return self.head(x.mean((2, 3)))


plans = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from((4, 8, 12))),
    min_size=1,
    max_size=5)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 30,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow])
@given(plans, st.integers(0, 4))
def test_random_networks(plan, skip):
    torch.manual_seed(0)
    net = RandomNetwork(plan, min(skip, len(plan) - 1))
    space = assert_true(net.double(), IMAGES.double(), number=2)
    fixed = {stay.module for stay in space.full_width}
    # Four channels behind a ReLU may all be dead: nothing to prove.
    assert fixed - set(space.proof.unproved) == {'head'}, fixed
