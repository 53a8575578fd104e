# Copyright (c) dms_razor contributors. All rights reserved.
"""Slim attention: the standard layer at full size, a plain formula below."""
import dms_razor.openmmlab  # noqa: F401  isort: skip  (must come first)

import pytest
import torch
from mmpretrain.models.utils.attention import MultiheadAttention, WindowMSA

from dms_razor.adapters.attention import attend, split_heads
from dms_razor.adapters.registry import make_slim


def layers():
    return [(MultiheadAttention(24, 3), torch.randn(2, 5, 24)),
            (WindowMSA(24, (2, 3), 3), torch.randn(4, 6, 24))]


@pytest.mark.parametrize('number', [0, 1])
def test_full_size_is_the_standard_layer(number):
    layer, x = layers()[number]
    expected = layer.eval()(x)
    slim = make_slim(layer, type(layer).__name__)
    torch.testing.assert_close(slim(x), expected)
    assert (slim.qk_dims, slim.v_dims) == (8, 8)


def test_fewer_dims_of_queries_than_of_values():
    """Head by head, with the scale of the supernet."""
    layer, x = layers()[0]
    slim = make_slim(layer.eval(), 'MultiheadAttention')
    slim.num_heads, slim.qk_dims, slim.v_dims = 2, 3, 5
    slim.qkv = torch.nn.Linear(24, 2 * (3 + 3 + 5))
    slim.proj = torch.nn.Linear(2 * 5, 24)
    q, k, v = slim.qkv(x).split([6, 6, 10], -1)
    heads = []
    for head in range(2):
        rows, own = slice(3 * head,
                          3 * head + 3), slice(5 * head, 5 * head + 5)
        weight = (q[..., rows] @ k[..., rows].mT * 8**-.5).softmax(-1)
        heads.append(weight @ v[..., own])
    torch.testing.assert_close(slim(x), slim.proj(torch.cat(heads, -1)))


def test_split_heads():
    qkv = torch.arange(2 * 3 * 20.).view(2, 3, 20)
    q, k, v = split_heads(qkv, heads=2, qk_dims=3, v_dims=4)
    assert q.shape == k.shape == (2, 2, 3, 3) and v.shape == (2, 2, 3, 4)
    assert torch.equal(q[:, 1], qkv[..., 3:6])
    assert torch.equal(k[:, 0], qkv[..., 6:9])
    assert torch.equal(v[:, 1], qkv[..., 16:20])


@pytest.mark.parametrize('dims', [(3, 5), (5, 3), (4, 4)])
def test_attention_is_fused_whatever_the_dims(dims):
    """Fused kernels return no attention map; by the formula, with a mask."""
    q, k = torch.randn(2, 2, 4, 6, dims[0]).double()
    v = torch.randn(2, 4, 6, dims[1]).double()
    mask = torch.randn(6, 6).double()
    with torch.profiler.profile() as profile:
        found = attend(q, k, v, dims, .7, mask)
    expected = (q @ k.mT * .7 + mask).softmax(-1) @ v
    torch.testing.assert_close(found, expected)
    names = {event.name for event in profile.events()}
    assert 'aten::_scaled_dot_product_flash_attention_for_cpu' in names
    assert 'aten::_scaled_dot_product_attention_math' not in names


def test_no_zeros_are_multiplied_in_onnx(tmp_path):
    onnx = pytest.importorskip('onnx')
    layer, x = layers()[0]
    slim = make_slim(layer.eval(), 'MultiheadAttention')
    slim.qk_dims, slim.v_dims = 3, 5
    slim.qkv = torch.nn.Linear(24, 3 * (3 + 3 + 5))
    slim.proj = torch.nn.Linear(3 * 5, 24)
    file = tmp_path / 'layer.onnx'
    torch.onnx.export(slim, (x, ), file, dynamo=False, opset_version=17)
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.count('MatMul') >= 3 and 'Pad' not in kinds
