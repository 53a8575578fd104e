# Copyright (c) dms_razor contributors. All rights reserved.
"""Attention layers whose heads have fewer query/key dims than value dims.

Standard attention classes take one head size for queries, keys and values.
A searched layer has a size for queries and keys and another for values, and
keeps the softmax scale of the supernet (METHOD section 2). A *slim* class is
the standard class with a forward for that; parameters keep their names. A
layer becomes slim by :func:`make_slim`; its numbers are then set like those
of any other layer.
"""
from typing import Callable, Dict, Optional

from torch import Tensor, nn

#: Numbers of a slim layer that follow heads and dims.
SLIM_NUMBERS = ('num_heads', 'embed_dims')


def split_heads(qkv: Tensor, heads: int, qk_dims: int, v_dims: int):
    """``[B, N, heads * (2 * qk + v)]`` -> q, k ``[B, heads, N, qk]`` and v."""
    batch, tokens, _ = qkv.shape
    parts = qkv.split([heads * qk_dims, heads * qk_dims, heads * v_dims], -1)
    return [
        part.reshape(batch, tokens, heads, -1).transpose(1, 2)
        for part in parts
    ]


class _SlimMultiheadAttention:
    """mmpretrain's ``MultiheadAttention`` (ViT, DeiT and many others)."""

    def _dms_setup(self) -> None:
        self.qk_dims = self.v_dims = self.head_dims
        self.scale = self.head_dims**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[B, N, C]`` to ``[B, N, C']``."""
        q, k, v = split_heads(
            self.qkv(x), self.num_heads, self.qk_dims, self.v_dims)
        drop = self.attn_drop if self.training else 0.
        # q carries the scale: scaled_dot_product_attention has no argument
        # for it before torch 2.1, and its default follows the slim size.
        x = nn.functional.scaled_dot_product_attention(
            q * (self.scale * self.qk_dims**0.5), k, v, dropout_p=drop)
        x = x.transpose(1, 2).flatten(2)
        x = self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))
        return x + v.squeeze(1) if self.v_shortcut else x


class _SlimWindowMSA:
    """mmpretrain's ``WindowMSA`` (Swin); its scale is a number of its own."""

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


#: Name in a manifest -> slim forward.
SLIM: Dict[str, type] = dict(
    MultiheadAttention=_SlimMultiheadAttention, WindowMSA=_SlimWindowMSA)
_HOMES = ('mmpretrain.models.utils.attention', )
_TYPES: Dict[type, type] = {}


def slim_name(module: nn.Module) -> Optional[str]:
    """Name of the slim class for a layer; None if there is none for it."""
    kind = type(module)
    if kind.__module__ in _HOMES and kind.__name__ in SLIM:
        return kind.__name__
    return None


def register_slim(home: str) -> Callable:
    """Decorator: the class is the slim form of ``home``'s class of its name.

    Args:
        home (str): Module that defines the standard class.
    """

    def register(mixin: type) -> type:
        global _HOMES
        _HOMES += (home, )
        SLIM[mixin.__name__] = mixin
        return mixin

    return register


def make_slim(module: nn.Module, name: str) -> nn.Module:
    """Give a standard attention layer its slim class, in place.

    Args:
        module (nn.Module): The layer, of full size.
        name (str): Name of the slim class, from the space or a manifest.

    Raises:
        ValueError: There is no such class, or the layer is of another one.
    """
    if isinstance(module, tuple(SLIM.values())):
        return module
    if name not in SLIM or slim_name(module) != name:
        raise ValueError(
            f'an attention layer of class {type(module).__name__} cannot '
            f'become a slim "{name}"; the supernet or dms_razor is another '
            'one than that of the search. Use those of the search.')
    kind = type(module)
    if kind not in _TYPES:
        _TYPES[kind] = type(f'Slim{name}', (SLIM[name], kind),
                            dict(__module__=__name__))
    module.__class__ = _TYPES[kind]
    module._dms_setup()
    return module


class RemovedBlock(nn.Identity):
    """What stands where a residual block was removed.

    An identity for the first input, whatever else the block was given.
    """

    def forward(self, input: Tensor, *args, **kwargs) -> Tensor:
        """``input``, unchanged."""
        return input


__all__ = [
    'SLIM', 'SLIM_NUMBERS', 'RemovedBlock', 'make_slim', 'register_slim',
    'slim_name', 'split_heads'
]
