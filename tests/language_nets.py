# Copyright (c) dms_razor contributors. All rights reserved.
"""Decoders as language models have them, for tests; float64, random numbers.

Rotary positions from a buffer of frequencies, keys and values that several
query heads share, norms by root mean square written out.
"""
import torch
import torch.nn.functional as F
from equality import randomise
from torch import nn

WORDS = torch.randint(
    0, 31, (2, 7), generator=torch.Generator().manual_seed(0))


class RMSNorm(nn.Module):
    """Written out, as language models do."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, True) + 1e-6))


class Rotary(nn.Module):
    """Cosine and sine of each position, alike for all heads."""

    def __init__(self, dims):
        super().__init__()
        steps = torch.arange(0, dims, 2) / dims
        self.register_buffer('inv_freq', 100.**-steps, persistent=False)

    def forward(self, length):
        angles = torch.arange(length)[:, None].to(
            self.inv_freq) * self.inv_freq
        angles = torch.cat((angles, angles), -1)[None]
        return angles.cos(), angles.sin()


def rotated(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * cos.unsqueeze(1) + turned * sin.unsqueeze(1)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions.

    ``how``: 'sdpa', 'gqa' (torch repeats the keys itself) or 'eager'.
    """

    def __init__(self, width, heads, key_heads, dims, how, norm):
        super().__init__()
        self.layer_idx = key_heads  # a number that counts something else
        self.head_dim, self.how = dims, how
        self.num_key_value_groups = heads // key_heads
        self.q_proj = nn.Linear(width, heads * dims, bias=False)
        self.k_proj = nn.Linear(width, key_heads * dims, bias=False)
        self.v_proj = nn.Linear(width, key_heads * dims)
        self.o_proj = nn.Linear(heads * dims, width, bias=False)
        self.norms = nn.ModuleList(
            RMSNorm(dims) if norm else nn.Identity() for _ in range(2))

    def forward(self, x, cos, sin):
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (
            layer(x).view(shape)
            for layer in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (norm(y) for norm, y in zip(self.norms, (q, k)))
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        if self.how != 'gqa':
            k, v = (self.repeat(y) for y in (k, v))
        if self.how == 'eager':
            mask = torch.full((q.shape[2], ) * 2, -1e9).triu(1).to(q)
            scores = q @ k.transpose(2, 3) / self.head_dim**.5
            x = (scores + mask).softmax(-1) @ v
        else:
            x = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=self.how == 'gqa')
        return self.o_proj(x.transpose(1, 2).reshape(*shape[:2], -1))

    def repeat(self, x):
        batch, heads, length, dims = x.shape
        times = self.num_key_value_groups
        x = x[:, :, None].expand(batch, heads, times, length, dims)
        return x.reshape(batch, heads * times, length, dims)


class Layer(nn.Module):
    """A decoder layer: attention, then a gated linear unit."""

    def __init__(self, width, *attention):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, *attention)
        self.gate = nn.Linear(width, 20, bias=False)
        self.up = nn.Linear(width, 20, bias=False)
        self.down = nn.Linear(20, width, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """Logits ``[B, T, 31]`` of words ``[B, T]``."""

    def __init__(self,
                 heads=4,
                 key_heads=4,
                 dims=4,
                 how='sdpa',
                 norm=False,
                 layers=2):
        super().__init__()
        self.words = nn.Embedding(31, 12)
        self.rotary = Rotary(dims)
        self.layers = nn.ModuleList(
            Layer(12, heads, key_heads, dims, how, norm)
            for _ in range(layers))
        self.norm, self.head = RMSNorm(12), nn.Linear(12, 31, bias=False)

    def forward(self, words):
        x = self.words(words)
        cos, sin = self.rotary(words.shape[1])
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))


def decoder(**settings):
    """A decoder of random numbers, float64."""
    torch.manual_seed(0)
    return randomise(Decoder(**settings)).double().eval()


class Parallel(nn.Module):
    """Attention and feed-forward side by side; queries, keys and values of
    each head made by one layer (GPT-NeoX)."""

    def __init__(self, width=12, heads=3, dims=4):
        super().__init__()
        self.dims = dims
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, heads * 3 * dims)
        self.out = nn.Linear(heads * dims, width)
        self.up, self.down = nn.Linear(width, 20), nn.Linear(20, width)

    def forward(self, x, cos, sin):
        qkv = self.qkv(self.norm1(x)).view(*x.shape[:2], -1, 3 * self.dims)
        q, k, v = qkv.transpose(1, 2).chunk(3, dim=-1)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(*x.shape[:2], -1))
        return self.down(F.gelu(self.up(self.norm2(x)))) + y + x


class Transposed(nn.Module):
    """A linear layer whose weight is ``[in, out]`` (Hugging Face's Conv1D)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.nx, self.nf = inputs, outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        y = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], self.nf)


class Turned(nn.Module):
    """A block of GPT-2: one layer makes queries, keys and values in turn."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.head_dim, self.split_size = width // heads, width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = Transposed(width, 3 * width), Transposed(
            width, width)
        self.c_fc, self.c_out = Transposed(width, 20), Transposed(20, width)
        self.dropout = nn.Dropout(.1)

    def forward(self, x, cos, sin):
        shape = (*x.shape[:2], -1, self.head_dim)
        q, k, v = (
            y.view(shape).transpose(1, 2)
            for y in self.c_attn(self.norm1(x)).split(self.split_size, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(
            self.c_proj(y.transpose(1, 2).reshape(*x.shape[:2], -1)))
        return x + self.dropout(self.c_out(F.gelu(self.c_fc(self.norm2(x)))))


def tied(layer, **settings):
    """A decoder of other layers, its head tied to the embedding."""
    net = decoder(**settings)
    net.layers = nn.ModuleList(layer() for _ in net.layers)
    net.head.weight = net.words.weight
    return randomise(net.float()).double().eval()
