# Copyright (c) dms_razor contributors. All rights reserved.
"""Slim layers of torch: the standard ones at full size, a formula below."""
import itertools

import pytest
import torch
from torch import nn

from dms_razor.adapters.registry import RemovedBlock, make_slim
from dms_razor.adapters.torch_attention import float_masks


def inputs(size=5):
    """Tokens ``[2, 5, 16]``, which keys are hidden, which pairs."""
    hidden = torch.zeros(2, size).bool()
    hidden[0, -1] = True
    return torch.randn(2, size, 16), hidden, torch.ones(size,
                                                        size).bool().triu(2)


@pytest.mark.parametrize('batch_first, own, weights',
                         itertools.product([True, False], repeat=3))
def test_full_size_is_the_standard_layer(batch_first, own, weights):
    layer = nn.MultiheadAttention(
        16, 4, batch_first=batch_first, add_bias_kv=own, add_zero_attn=own)
    nn.init.normal_(layer.in_proj_bias)
    x, hidden, pairs = inputs()
    x, given = x if batch_first else x.transpose(0, 1), dict(
        key_padding_mask=hidden, attn_mask=pairs, need_weights=weights)
    each = dict(given, average_attn_weights=False)
    expected = [layer(x, x.sin(), x.cos(), **kw) for kw in (given, each)]
    slim = make_slim(layer, 'MultiheadAttention')
    for (out, shown), kw in zip(expected, (given, each)):
        found, other = slim(x, x.sin(), x.cos(), **kw)
        torch.testing.assert_close(found, out)
        assert (other is None) == (shown is None) == (not weights)
        if weights:
            torch.testing.assert_close(other, shown)


def test_unbatched_and_masks_of_each_head():
    layer = nn.MultiheadAttention(16, 4)
    x, hidden, pairs = inputs()
    each = torch.randn(8, 5, 5)
    calls = [((x[0], ) * 3, dict(key_padding_mask=hidden[0])),
             ((x.transpose(0, 1), ) * 3, dict(attn_mask=each))]
    expected = [layer(*args, **kw) for args, kw in calls]
    slim = make_slim(layer, 'MultiheadAttention')
    for (args, kw), wanted in zip(calls, expected):
        for a, b in zip(slim(*args, **kw), wanted):
            torch.testing.assert_close(a, b)


def test_fewer_heads_and_dims_by_the_formula():
    """Head by head, with the scale of the supernet."""
    slim = make_slim(
        nn.MultiheadAttention(16, 4, batch_first=True), 'MultiheadAttention')
    slim.num_heads, slim.qk_dims, slim.v_dims = 3, 2, 5
    slim.in_proj_weight.data = torch.randn(2 * 6 + 15, 16)
    slim.in_proj_bias.data = torch.randn(2 * 6 + 15)
    slim.out_proj = nn.Linear(15, 16)
    x = torch.randn(2, 5, 16)
    q, k, v = nn.functional.linear(x, slim.in_proj_weight,
                                   slim.in_proj_bias).split([6, 6, 15], -1)
    heads = []
    for head in range(3):
        rows, own = slice(2 * head,
                          2 * head + 2), slice(5 * head, 5 * head + 5)
        weight = (q[..., rows] @ k[..., rows].mT * 4**-.5).softmax(-1)
        heads.append(weight @ v[..., own])
    for need in (True, False):
        found = slim(x, x, x, need_weights=need)[0]
        torch.testing.assert_close(found, slim.out_proj(torch.cat(heads, -1)))
    with pytest.raises(ValueError, match='give it too'):
        slim(x, x, x, is_causal=True)


def test_a_fresh_start_of_a_slim_layer():
    for numbers in (dict(), dict(kdim=8, vdim=8, add_bias_kv=True)):
        slim = make_slim(
            nn.MultiheadAttention(16, 4, **numbers), 'MultiheadAttention')
        for parameter in slim.parameters():
            nn.init.constant_(parameter, 7.)
        slim._reset_parameters()
        assert all((p != 7).all() for name, p in slim.named_parameters()
                   if 'out_proj' not in name)


@pytest.mark.parametrize('norm_first', [False, True])
def test_stacks_are_the_standard_ones(norm_first):
    """Encoder and decoder; then without the attention of the first layer."""
    kw = dict(batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 24, **kw),
        2,
        enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(16, 4, 24, **kw), 2, nn.LayerNorm(16))
    x, hidden, pairs = inputs()
    calls = [(encoder.eval(), (x, ), dict(src_key_padding_mask=hidden)),
             (encoder, (x, ), dict(mask=pairs, is_causal=False)),
             (decoder.eval(), (x, x.sin()),
              dict(tgt_mask=pairs, memory_key_padding_mask=hidden))]
    expected = [stack(*args, **kw) for stack, args, kw in calls]
    for layer in encoder.layers:
        make_slim(layer, 'TransformerEncoderLayer')
    make_slim(encoder, 'TransformerEncoder')
    make_slim(decoder, 'TransformerDecoder')
    for (stack, args, kw), wanted in zip(calls, expected):
        torch.testing.assert_close(stack(*args, **kw), wanted)
    for (stack, args, kw), wanted in zip(calls, expected):
        stack.layers[0].self_attn = RemovedBlock(zero=True, outputs=2)
        assert not torch.allclose(stack(*args, **kw), wanted)


def test_masks_as_numbers():
    pairs, keys = float_masks(
        torch.tensor([True, False]), torch.tensor([1., 2.]), torch.float64)
    assert pairs.tolist() == [-float('inf'), 0.] and keys.tolist() == [1., 2.]
    assert float_masks(None, None, torch.float32) == (None, None)
