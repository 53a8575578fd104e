# Copyright (c) dms_razor contributors. All rights reserved.
"""Random networks over tokens: reshapes by width, heads, splits, sharing.

As test_random_networks.py, and in train mode as well.
DMS_RAZOR_EXAMPLES says how many are drawn; 30 by default.
"""
import os

import torch
from equality import assert_true
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from trained_nets import assert_true_in_training

TOKENS, INPUTS = 6, 5
EXAMPLES = int(os.environ.get('DMS_RAZOR_EXAMPLES', 30))


class Dense(nn.Module):
    """Something of ``inside`` channels that returns ``outside``."""

    def __init__(self, inside, outside):
        super().__init__()
        self.norm = nn.LayerNorm(inside)
        self.fc = nn.Linear(inside, outside)

    def forward(self, x):
        return F.gelu(self.fc(self.norm(x)))


class Gated(Dense):
    """Two halves of one layer, one gates the other."""

    def __init__(self, inside, outside):
        super().__init__(inside, 2 * outside)

    def forward(self, x):
        value, gate = self.fc(self.norm(x)).chunk(2, -1)
        return value * gate.sigmoid()


class Mlp(Dense):
    """A residual block with a hidden width, and a projection behind it."""

    def __init__(self, inside, outside):
        super().__init__(inside, 2 * inside)
        self.down = nn.Linear(2 * inside, inside)
        self.out = nn.Linear(inside, outside, bias=False)

    def forward(self, x):
        return self.out(x + self.down(super().forward(x)))


class Attention(nn.Module):
    """Multi-head attention by hand, with a width read off the weight."""

    def __init__(self, inside, outside):
        super().__init__()
        self.heads = 2
        self.qkv = nn.Linear(inside, 3 * outside)
        self.proj = nn.Linear(outside, outside)

    def forward(self, x):
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads,
                                      -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1]**.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """The same from three layers, by PyTorch's own function."""

    def __init__(self, inside, outside):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(inside, outside) for _ in range(3))
        self.proj = nn.Linear(outside, outside)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (2, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mixer(Dense):
    """A layer over positions between two over channels."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.positions = nn.Linear(TOKENS, TOKENS)

    def forward(self, x):
        x = super().forward(x)
        return x + self.positions(x.transpose(1, 2)).transpose(1, 2)


class Shuffled(Dense):
    """Channels in two groups change places."""

    def forward(self, x):
        x = super().forward(x)
        groups = x.view(*x.shape[:2], 2, x.shape[-1] // 2)
        return groups.transpose(2, 3).reshape(x.shape)


class Rolled(Dense):
    """A window over positions as a convolution, depthwise."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.conv = nn.Conv1d(outside, outside, 3, padding=1, groups=outside)

    def forward(self, x):
        return self.conv(super().forward(x).mT).mT


class Stacked(Dense):
    """What comes in and what was made of it, side by side."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.join = nn.Linear(inside + outside, outside)

    def forward(self, x):
        return self.join(torch.cat([x, super().forward(x)], -1))


class Rms(Dense):
    """A norm by hand, with a scale of its own, and a bare product."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.norm = nn.Identity()
        self.scale = nn.Parameter(torch.rand(inside) + .5)
        self.weight = nn.Parameter(torch.randn(outside, outside) / 3)

    def forward(self, x):
        x = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return super().forward(x * self.scale) @ self.weight


class Twice(Dense):
    """One layer that runs twice."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.again = nn.Linear(outside, outside)

    def forward(self, x):
        return self.again(self.again(super().forward(x)))


class Trained(Dense):
    """Centred, and with a second branch, in training alone."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside)
        self.extra = nn.Linear(outside, outside)

    def forward(self, x):
        x = super().forward(x)
        if self.training:
            x = x + self.extra(x - x.mean(1, keepdim=True))
        return x


PIECES = (Dense, Gated, Mlp, Attention, Fused, Mixer, Shuffled, Rolled,
          Stacked, Rms, Twice, Trained)


class RandomTokens(nn.Module):
    """An embedding, the pieces one after the other, and a classifier.

    Args:
        plan (list): Pairs of a piece's class and its width.
        skip (int): From behind this piece a tensor of equal width may be
            added to the last one.
        aux (bool): Whether the skipped tensor has a head in training.
    """

    def __init__(self, plan, skip, aux):
        super().__init__()
        widths = [8] + [width for _, width in plan]
        self.embed = nn.Linear(INPUTS, 8)
        self.places = nn.Parameter(torch.randn(1, TOKENS, 8))
        self.pieces = nn.ModuleList(
            piece(inside, outside)
            for (piece, outside), inside in zip(plan, widths))
        self.place = skip
        self.skip = widths[skip] == widths[-1]
        self.head = nn.Linear(widths[-1], 3)
        self.aux = nn.Linear(widths[skip], 3) if aux else None

    def forward(self, x):
        tensors = [self.embed(x) + self.places]
        for piece in self.pieces:
            tensors.append(piece(tensors[-1]))
        x, side = tensors[-1], tensors[self.place]
        if self.skip:
            x = x + side
        out = self.head(x.mean(1))
        if self.training and self.aux is not None:
            return out, self.aux(side[:, 0])
        return out


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
@given(plans, st.integers(0, 4), st.booleans())
@example([(Fused, 4), (Shuffled, 4), (Attention, 12), (Trained, 8),
          (Fused, 12)], 0, True)  # two channels behind a norm hide the heads
@example([(Mixer, 12), (Rolled, 12), (Gated, 12), (Shuffled, 12), (Fused, 12)],
         3, False)  # and so do tokens that are all alike
def test_random_networks_over_tokens(plan, skip, aux):

    def network():
        torch.manual_seed(0)
        return RandomTokens(plan, min(skip, len(plan) - 1), aux)

    try:
        space = assert_true(
            network().double(),
            torch.randn(2, TOKENS, INPUTS).double(),
            number=2)
    except ValueError as refusal:  # a norm by hand may leave nothing
        assert 'nothing can be pruned' in str(refusal)
        assert any(piece is Rms for piece, _ in plan)
        return
    assert space.units
    assert_true_in_training(network(), torch.randn(2, TOKENS, INPUTS))
