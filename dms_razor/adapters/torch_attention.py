# Copyright (c) dms_razor contributors. All rights reserved.
"""torch's own attention and transformer layers, with heads of any size.

``nn.MultiheadAttention`` takes the width of its heads from that of the stream
(``embed_dim // num_heads``), and so cannot have fewer of them beside the same
stream. The slim layer has numbers of its own for that, see
:mod:`dms_razor.adapters.attention`. torch's encoder layers run as one
operation on the bare weights in eval mode, and its stacks ask their first
layer for an attention that may have been removed: the slim ones do neither.
"""
import math
from typing import Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend
from .registry import register_slim

_TRANSFORMER = 'torch.nn.modules.transformer'


def float_masks(
        first: Optional[Tensor], second: Optional[Tensor],
        dtype: torch.dtype) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """Masks as numbers that are added to scores: True becomes -inf."""

    def added(mask: Optional[Tensor]) -> Optional[Tensor]:
        if mask is None or mask.is_floating_point():
            return mask
        zeros = torch.zeros_like(mask, dtype=dtype)
        return zeros.masked_fill_(mask.bool(), -math.inf)

    return added(first), added(second)


@register_slim('torch.nn.modules.activation', 'MultiheadAttention')
class SlimTorchAttention:
    """``nn.MultiheadAttention`` with any number of heads and dims."""

    dms_numbers = ('num_heads', 'embed_dim')
    dms_attends = 'multi_head_attention_forward'

    def _dms_setup(self) -> None:
        self.qk_dims = self.v_dims = self.head_dim
        self.scale = self.head_dim**-0.5
        # Encoder layers that are not slim then stay off their fast path.
        self._qkv_same_embed_dim = False

    def _reset_parameters(self) -> None:
        for name in ('in_proj_weight', 'q_proj_weight', 'k_proj_weight',
                     'v_proj_weight'):
            if getattr(self, name) is not None:
                nn.init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                nn.init.xavier_normal_(bias)

    def forward(self,
                query: Tensor,
                key: Tensor,
                value: Tensor,
                key_padding_mask: Optional[Tensor] = None,
                need_weights: bool = True,
                attn_mask: Optional[Tensor] = None,
                average_attn_weights: bool = True,
                is_causal: bool = False) -> Tuple[Tensor, Optional[Tensor]]:
        """Arguments, shapes and results are those of the standard class."""
        if is_causal and attn_mask is None:
            raise ValueError('is_causal says that attn_mask is causal, and '
                             'there is no attn_mask: give it too')
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (
                x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._dms_heads(query, key, value)
        if is_causal and key_padding_mask is None and not need_weights:
            attn_mask = None  # as the standard class: the hint is the mask
        else:
            is_causal = False
        mask = self._dms_mask(attn_mask, key_padding_mask, q, k)
        drop = self.dropout if self.training else 0.
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.scale
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, drop, drop > 0)
            x = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            x = attend(q, k, v, (self.qk_dims, self.v_dims), self.scale, mask,
                       drop, is_causal)
        x = self.out_proj(x.transpose(1, 2).flatten(2))
        if not batched:
            return x.squeeze(0), weights
        return x if self.batch_first else x.transpose(0, 1), weights

    def _dms_heads(self, query: Tensor, key: Tensor,
                   value: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Queries, keys ``[B, H, L, qk]`` and values ``[B, H, S, v]``."""
        sizes = [self.num_heads * self.qk_dims] * 2
        sizes.append(self.num_heads * self.v_dims)
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.split(sizes)
        biases = (None, ) * 3
        if self.in_proj_bias is not None:
            biases = self.in_proj_bias.split(sizes)
        q, k, v = map(F.linear, (query, key, value), weights, biases)
        if self.bias_k is not None:
            k, v = (torch.cat([x, own.expand(len(x), 1, -1)], 1)
                    for x, own in ((k, self.bias_k), (v, self.bias_v)))
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        return tuple(
            x.unflatten(-1, (self.num_heads, dims)).transpose(1, 2)
            for x, dims in ((q, self.qk_dims), (k, self.qk_dims),
                            (v, self.v_dims)))

    def _dms_mask(self, attn_mask: Optional[Tensor],
                  key_padding_mask: Optional[Tensor], q: Tensor,
                  k: Tensor) -> Optional[Tensor]:
        """What is added to the scores, ``[B or 1, H or 1, L or 1, S]``."""
        pairs, keys = float_masks(attn_mask, key_padding_mask, q.dtype)
        if pairs is not None and pairs.dim() == 3:
            pairs = pairs.unflatten(0, (len(q), self.num_heads))
        if keys is not None:
            keys = keys[:, None, None]
        mask = keys if pairs is None else pairs if keys is None else \
            pairs + keys
        if mask is None:
            return None
        # Keys of the layer's own, behind those that it was given.
        return F.pad(mask, (0, k.shape[-2] - mask.shape[-1]))


@register_slim(_TRANSFORMER, 'TransformerEncoderLayer')
class SlimTransformerEncoderLayer:
    """``nn.TransformerEncoderLayer``, step by step also in eval mode."""

    dms_around = True

    def _dms_setup(self) -> None:
        """It has no numbers of its own."""

    def forward(self,
                src: Tensor,
                src_mask: Optional[Tensor] = None,
                src_key_padding_mask: Optional[Tensor] = None,
                is_causal: bool = False) -> Tensor:
        """Arguments, shapes and result are those of the standard class."""
        masks = float_masks(src_mask, src_key_padding_mask, src.dtype)
        x, block = src, self._sa_block
        if self.norm_first:
            x = x + block(self.norm1(x), *masks, is_causal=is_causal)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(x + block(x, *masks, is_causal=is_causal))
        return self.norm2(x + self._ff_block(x))


@register_slim(_TRANSFORMER, 'TransformerEncoder')
class SlimTransformerEncoder:
    """``nn.TransformerEncoder``: layers may lack their attention."""

    dms_around = True

    def _dms_setup(self) -> None:
        """It has no numbers of its own."""

    def forward(self,
                src: Tensor,
                mask: Optional[Tensor] = None,
                src_key_padding_mask: Optional[Tensor] = None,
                is_causal: Optional[bool] = None) -> Tensor:
        """Arguments, shapes and result are those of the standard class."""
        masks = float_masks(mask, src_key_padding_mask, src.dtype)
        for layer in self.layers:
            src = layer(
                src,
                src_mask=masks[0],
                is_causal=bool(is_causal),
                src_key_padding_mask=masks[1])
        return src if self.norm is None else self.norm(src)


@register_slim(_TRANSFORMER, 'TransformerDecoder')
class SlimTransformerDecoder:
    """``nn.TransformerDecoder``: layers may lack their attention."""

    dms_around = True

    def _dms_setup(self) -> None:
        """It has no numbers of its own."""

    def forward(self,
                tgt: Tensor,
                memory: Tensor,
                tgt_mask: Optional[Tensor] = None,
                memory_mask: Optional[Tensor] = None,
                tgt_key_padding_mask: Optional[Tensor] = None,
                memory_key_padding_mask: Optional[Tensor] = None,
                tgt_is_causal: Optional[bool] = None,
                memory_is_causal: bool = False) -> Tensor:
        """Arguments, shapes and result are those of the standard class."""
        for layer in self.layers:
            tgt = layer(
                tgt,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=bool(tgt_is_causal),
                memory_is_causal=memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)


@register_slim(_TRANSFORMER, 'Transformer')
class SlimTransformer:
    """``nn.Transformer``, which compares its inputs with a number."""

    dms_around, dms_source_numbers = True, ('d_model', )

    def _dms_setup(self) -> None:
        """Its forward is the standard one."""
