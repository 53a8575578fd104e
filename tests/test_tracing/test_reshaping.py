# Copyright (c) dms_razor contributors. All rights reserved.
"""Attention whose code takes sizes off the stream loses heads and stream."""
import pytest
import torch
from equality import assert_true, random_keep, unit_table
from torch import nn

from dms_razor.masking import attach, unmask
from dms_razor.proof.noise import EqualNoise
from dms_razor.subnet import build_subnet, export_subnet
from dms_razor.subnet.slicing import slice_model
from dms_razor.trace import trace


class Attention(nn.Module):
    """As it is often written: the width of a head is ``C // heads``."""

    def __init__(self, dims=12, heads=3):
        super().__init__()
        self.num_heads, self.scale = heads, (dims // heads)**-.5
        self.qkv, self.proj = nn.Linear(dims, 3 * dims), nn.Linear(dims, dims)

    def heads(self, x):
        B, N, C = x.shape
        x = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        return x.permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x, bias=None):
        B, N, C = x.shape
        q, k, v = self.heads(x)
        scores = q @ k.transpose(-2, -1) * self.scale
        scores = scores if bias is None else scores + bias
        x = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, N, C)
        return self.proj(x)


class OfClassToken(Attention):
    """Only the first token asks (CaiT, CrossViT)."""

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.heads(x)
        scores = q[:, :, :1] @ k.transpose(-2, -1) * self.scale
        first = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, 1, C)
        return self.proj(first)


class Covariance(Attention):
    """Channels ask channels of their head (XCiT, DaViT)."""

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = (y.transpose(-2, -1) for y in self.heads(x))
        scores = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return self.proj((scores @ v).permute(0, 3, 1, 2).reshape(B, N, C))


class Factorised(Attention):
    """Keys and values are multiplied first (CoaT)."""

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.heads(x)
        x = q @ (k.softmax(2).transpose(-2, -1) @ v) * self.scale
        return self.proj(x.transpose(1, 2).reshape(B, N, C))


class Talking(Attention):
    """Heads are mixed, which is not understood: they stay, named."""

    def __init__(self, dims=12, heads=3):
        super().__init__(dims, heads)
        self.mix = nn.Linear(heads, heads)

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.heads(x)
        scores = q @ k.transpose(-2, -1) * self.scale
        scores = self.mix(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.proj(
            (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, N, C))


class Net(nn.Module):

    def __init__(self, kind):
        super().__init__()
        self.stem, self.head = nn.Linear(5, 12), nn.Linear(12, 3)
        self.layers = nn.ModuleList([kind(), kind()])

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = torch.tanh(x + layer(x))
        return self.head(x)


@pytest.mark.parametrize('kind, heads', [(Attention, 'heads'),
                                         (OfClassToken, 'heads'),
                                         (Covariance, 'width'),
                                         (Factorised, 'width'),
                                         (Talking, None)])
def test_heads_and_stream_go(kind, heads):
    space = assert_true(Net(kind), torch.randn(2, 7, 5), number=3)
    found = unit_table(space)
    assert found['stem'] == ('width', 12, 1)
    names = [
        name for name, (what, size, _) in found.items()
        if what == heads and size == 3
    ]
    assert len(names) == (0 if heads is None else 2)


def test_other_inputs_in_both_modes_and_from_the_file(tmp_path):
    """Positions keep the sizes that the code computes for them."""
    net = Net(Attention).double()
    space = trace(net, torch.randn(2, 7, 5).double())
    keep, x = random_keep(space, 3), torch.randn(3, 11, 5).double()
    cut = slice_model(net, space, keep)
    for mode in (True, False):
        attach(net.train(mode), space, lambda: keep.double())
        with torch.no_grad(), EqualNoise():
            expected, found = net(x), cut.train(mode)(x)
        unmask(net)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-9)
    export_subnet(tmp_path / 'subnet', net, space, keep, picture=False)
    again = build_subnet(
        Net(Attention).double(), tmp_path / 'subnet/subnet.json',
        tmp_path / 'subnet/subnet.pth')
    assert torch.equal(again.eval()(x), cut(x))


class Biased(nn.Module):
    """A bias of each head, that all layers share (relative positions)."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(5, 12), nn.Linear(12, 3)
        self.layers = nn.ModuleList([Attention(), Attention()])
        self.places, self.num_heads = nn.Linear(2, 3), 3

    def bias(self, tokens):
        place = torch.arange(tokens).to(self.stem.weight)
        pairs = torch.stack(torch.meshgrid(place, place, indexing='ij'), -1)
        out = self.places(pairs.cos().view(-1, 2)).view(-1, self.num_heads)
        return out.reshape(tokens, tokens, self.num_heads).permute(2, 0, 1)

    def forward(self, x):
        bias, x = self.bias(x.shape[1]), self.stem(x)
        for layer in self.layers:
            x = torch.tanh(x + layer(x, bias))
        return self.head(x)


def test_layers_that_share_a_bias_share_their_heads():
    space = assert_true(Biased(), torch.randn(2, 7, 5), number=3)
    found = unit_table(space)
    assert [kind for kind, _, _ in found.values()].count('heads') == 1
    assert found['layers.0.heads'] == ('heads', 3, 1)
    assert 'places' not in found, 'it goes with the heads'


def test_pieces_of_different_sizes_follow_a_list():
    """``split`` by a list that the module keeps (CoaT's windows)."""

    class Pieces(nn.Module):

        def __init__(self):
            super().__init__()
            self.stem, self.sizes = nn.Linear(5, 12), [4, 8]
            self.a, self.b = nn.Linear(4, 3), nn.Linear(8, 3)

        def forward(self, x):
            a, b = self.stem(x).relu().split(self.sizes, -1)
            return self.a(a) + self.b(b)

    space = assert_true(Pieces(), torch.randn(2, 5), number=3, batch_size=2)
    assert [unit.size for unit in space.units] == [4, 8]
