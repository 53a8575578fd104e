# Copyright (c) dms_razor contributors. All rights reserved.
"""Attention layers whose heads have fewer query/key dims than value dims.

Standard attention classes take one head size for queries, keys and values.
A searched layer has a size for queries and keys and another for values, and
keeps the softmax scale of the supernet (METHOD section 2). A *slim* class is
the standard class with a forward for that; parameters keep their names. A
layer becomes slim by :func:`.slim.make_slim`; its numbers are then set like
those of any other layer.
"""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network.compiling import compiling, exporting
from .registry import register_slim

#: A GPU's kernels read so many numbers at once, and want the dims of a head
#: and the rows of a tensor to be multiples of it.
ALIGNED = 8


def split_heads(qkv: Tensor, heads: int, qk_dims: int, v_dims: int):
    """``[B, N, heads * (2 * qk + v)]`` -> q, k ``[B, heads, N, qk]`` and v."""
    batch, tokens, _ = qkv.shape
    parts = qkv.split([heads * qk_dims, heads * qk_dims, heads * v_dims], -1)
    return [
        part.reshape(batch, tokens, heads, -1).transpose(1, 2)
        for part in parts
    ]


def attend(q: Tensor,
           k: Tensor,
           v: Tensor,
           dims: Tuple[int, int],
           scale: float,
           mask: Optional[Tensor] = None,
           dropout: float = 0.,
           is_causal: bool = False) -> Tensor:
    """Attention by PyTorch's fused kernels, whatever the dims of the heads.

    They want as many dims of queries and keys as of values; without one of
    them the attention map is held as well, and takes longer. So the fewer
    dims get zeros behind them, which change no score and no kept value; on a
    GPU all do, up to a multiple of :data:`ALIGNED`.

    Args:
        q, k (Tensor): ``[B, heads, L, qk]`` and ``[B, heads, S, qk]``.
        v (Tensor): ``[B, heads, S, v]``.
        dims (tuple[int, int]): qk and v.
        scale (float): Of the scores, the supernet's.
        mask, dropout, is_causal: As of
            :func:`torch.nn.functional.scaled_dot_product_attention`.

    Returns:
        Tensor: ``[B, heads, L, v]``.
    """
    # ONNX has no such kernels and would multiply zeros, and who counts MACs
    # traces the network or switches the kernels off. With dropout a CPU has
    # none either.
    fused = not torch.jit.is_tracing() and not exporting() and (
        compiling()
        or torch.backends.cuda.flash_sdp_enabled()) and (dropout == 0
                                                         or q.is_cuda)
    most = max(dims)
    if fused:
        if q.is_cuda:
            most = -(-most // ALIGNED) * ALIGNED
        q, k, v = (_filled_up(x, most) for x in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, mask, dropout, is_causal, scale=scale)
    return out[..., :dims[1]] if fused and dims[1] < most else out


def _filled_up(x: Tensor, dims: int) -> Tensor:
    """``[..., d]`` with zeros up to so many dims, where kernels can read it.
    """
    if x.shape[-1] < dims:
        return F.pad(x, (0, dims - x.shape[-1]))
    # PyTorch chooses a kernel by the dims alone, and then refuses a view
    # whose rows do not begin at such places.
    places = (x.storage_offset(), *x.stride()[:-1])
    if x.is_cuda and any(place % ALIGNED for place in places):
        return x.clone(memory_format=torch.contiguous_format)
    return x


@register_slim('mmpretrain.models.utils.attention', 'MultiheadAttention')
class SlimMultiheadAttention:
    """mmpretrain's ``MultiheadAttention`` (ViT, DeiT and many others)."""

    dms_numbers = ('num_heads', 'embed_dims')

    def _dms_setup(self) -> None:
        self.qk_dims = self.v_dims = self.head_dims
        self.scale = self.head_dims**-0.5
        own = getattr(self.scaled_dot_product_attention, 'keywords', {})
        if own.get('scale'):
            # mmpretrain divides by a scale that it was given (T2T-ViT).
            self.scale = 1 / own['scale']

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[B, N, C]`` to ``[B, N, C']``."""
        q, k, v = split_heads(
            self.qkv(x), self.num_heads, self.qk_dims, self.v_dims)
        drop = self.attn_drop if self.training else 0.
        x = attend(
            q, k, v, (self.qk_dims, self.v_dims), self.scale, dropout=drop)
        x = x.transpose(1, 2).flatten(2)
        x = self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))
        return x + v.squeeze(1) if self.v_shortcut else x


@register_slim('mmpretrain.models.utils.attention', 'WindowMSA')
class SlimWindowMSA:
    """mmpretrain's ``WindowMSA`` (Swin); its scale is a number of its own."""

    dms_numbers = ('num_heads', 'embed_dims')

    def _dms_setup(self) -> None:
        self.qk_dims = self.v_dims = self.embed_dims // self.num_heads

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Shape ``[windows * B, N, C]``, mask ``[windows, N, N]``."""
        q, k, v = split_heads(
            self.qkv(x), self.num_heads, self.qk_dims, self.v_dims)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        tokens = self.window_size[0] * self.window_size[1]
        table = self.relative_position_bias_table
        bias = table[self.relative_position_index.view(-1)]
        bias = bias.view(tokens, tokens, -1).permute(2, 0, 1)
        scores = scores + bias.contiguous().unsqueeze(0)
        if mask is not None:
            windows, count = mask.shape[0], x.shape[1]
            scores = scores.view(x.shape[0] // windows, windows,
                                 self.num_heads, count, count)
            scores = scores + mask.unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, self.num_heads, count, count)
        scores = self.attn_drop(self.softmax(scores))
        x = (scores @ v).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(x))
