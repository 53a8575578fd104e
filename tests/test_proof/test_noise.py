# Copyright (c) dms_razor contributors. All rights reserved.
"""Noise is the same number whatever the shape, and is noise otherwise."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dms_razor.proof.noise import EqualNoise

DRAWS = dict(
    rand=lambda x: torch.rand(x.shape),
    rand_like=torch.rand_like,
    randn=lambda x: torch.randn(*x.shape),
    randn_like=torch.randn_like,
    uniform=lambda x: x.clone().uniform_(2, 4),
    init=lambda x: nn.init.normal_(x.clone(), mean=3., std=.5),
    normal=lambda x: torch.empty_like(x).normal_(1, .1),
    bernoulli=lambda x: torch.empty_like(x).bernoulli_(.9),
    shares=lambda x: torch.bernoulli(torch.full_like(x, .1)),
    each=lambda x: torch.empty_like(x).bernoulli_(torch.full_like(x, .7)),
)
#: A range that each must lie in.
RANGES = dict(
    rand=(0, 1),
    rand_like=(0, 1),
    uniform=(2, 4),
    init=(2, 4),
    normal=(.7, 1.3),
    bernoulli=(1, 1),
    shares=(0, 0),
    each=(1, 1))


@pytest.mark.parametrize('name', DRAWS)
def test_one_number_for_all_shapes(name):
    with EqualNoise():
        wide, narrow = (
            DRAWS[name](torch.ones(shape)) for shape in ((2, 40, 3), (2, 7)))
    assert wide.shape == (2, 40, 3) and narrow.shape == (2, 7)
    assert len({*wide.flatten().tolist(), *narrow.flatten().tolist()}) == 1
    low, high = RANGES.get(name, (-3, 3))
    assert low <= float(wide.max()) <= high


X = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('drop', [
    nn.Dropout(),
    nn.Dropout1d(),
    nn.AlphaDropout(),
    nn.FeatureAlphaDropout(),
    lambda x: F.dropout(x, .5, True),
    lambda x: torch.dropout(x, .5, True),
    lambda x: torch.dropout(x, p=.5, train=True),
])
def test_dropouts_keep_everything(drop):
    with EqualNoise():
        assert torch.equal(drop(X), X)
    assert not torch.equal(drop(X), X)


def test_attention_drops_nothing():
    layer = nn.MultiheadAttention(4, 2, dropout=.9)
    expected = layer.eval()(X, X, X)[0]
    layer.train()
    with EqualNoise():
        assert torch.allclose(layer(X, X, X)[0], expected)
        plain = F.scaled_dot_product_attention(X, X, X)
        for args, more in (((), dict(dropout_p=.9)), ((None, .9), {})):
            found = F.scaled_dot_product_attention(X, X, X, *args, **more)
            assert torch.equal(found, plain)


def test_rectifiers_with_noise_take_the_mean():
    with EqualNoise():
        found = F.rrelu(X, .1, .3, True)
    assert torch.allclose(found, torch.where(X < 0, .2 * X, X))


def test_orders_begin_anew():
    with EqualNoise():
        first = torch.randperm(9)
        torch.rand(5)
        assert torch.equal(torch.randperm(9), first)
        assert len(set(first.tolist())) == 9
