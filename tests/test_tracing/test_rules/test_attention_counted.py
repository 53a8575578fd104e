# Copyright (c) dms_razor contributors. All rights reserved.
"""Products that are not followed still count."""
import pytest
import torch
from equality import assert_true, reasons
from small_nets import IMAGES, build, check, conv, widths
from torch import nn


def tokens(x):
    """Images as ``[B, positions, channels]``."""
    return x.flatten(2).transpose(1, 2)


@pytest.mark.parametrize('weights', [True, False])
def test_multi_head_attention(weights):
    reason = 'multi_head_attention_forward, for which it is not known'
    check(
        lambda net, x: net.out(
            net.attention(*[tokens(x)] * 3, need_weights=weights)[0]).mean(1),
        {'out': 8}, {
            'stem': reason,
            'attention': reason
        },
        attention=nn.MultiheadAttention(16, 4, batch_first=True),
        out=nn.Linear(16, 8))


def test_a_transformer_layer_of_pytorch():
    # Its fused form would read the weights of its parts past all masks; it is
    # off while there are masks, on again in the subnet.
    space = assert_true(
        build(
            lambda net, x: net.out(net.layer(tokens(x))).mean(1),
            layer=nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
            out=nn.Linear(16, 8)), IMAGES)
    assert widths(space) == {'layer.linear1': (32, 1), 'out': (8, 1)}
    assert 'layer.self_attn' in reasons(space)


@pytest.mark.parametrize('product', [
    lambda x, weight: torch.einsum('bchw,cd->bdhw', x, weight),
    lambda x, weight: torch.tensordot(x, weight, ([1], [0])).movedim(3, 1),
])
def test_other_products(product):
    space = check(
        lambda net, x: net.out(product(x, net.weight)), {'out': 8}, {
            'stem': 'for which it is not known',
            '': 'for which it is not known'
        },
        count=False,
        weight=nn.Parameter(torch.randn(16, 16)),
        out=conv(16, 8))
    costs = [c for c in space.resource.costs if c.metric == 'macs']
    assert 64 * 16 * 16 in [c.coef for c in costs if not c.axes]
