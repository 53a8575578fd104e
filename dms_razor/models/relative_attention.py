# Copyright (c) dms_razor contributors. All rights reserved.
"""Autoformer's attention with relative positions, in a form that traces.

MMRazor's layer folds batch and heads into one dimension, in which heads can
no longer be told apart. Here the two products with the table of relative
positions are functions of their own with a tracing rule each; the layer
computes the same and keeps its parameters. The table is shared by all heads,
so the dims of a head stay and the number of heads is searched, as in
Autoformer's space.
"""
from typing import List

import torch
from mmrazor.models.architectures.ops.transformer_series import \
    MultiheadAttention
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from dms_razor.tracing.labels import compress, core
from dms_razor.tracing.rules import register_rule
from dms_razor.tracing.rules.contraction import count


def relative_scores(q: Tensor, table: Tensor) -> Tensor:
    """Queries ``[B, H, N, d]`` times table ``[N, M, d]``: ``[B, H, N, M]``."""
    if has_torch_function((q, table)):
        return handle_torch_function(relative_scores, (q, table), q, table)
    batch, heads, tokens, dims = q.shape
    rows = q.permute(2, 0, 1, 3).reshape(tokens, batch * heads, dims)
    out = rows @ table.transpose(2, 1)
    return out.transpose(1, 0).reshape(batch, heads, tokens, -1)


def relative_values(weights: Tensor, table: Tensor) -> Tensor:
    """Weights ``[B, H, N, M]`` times ``[N, M, d]``: ``[B, H, N, d]``."""
    if has_torch_function((weights, table)):
        return handle_torch_function(relative_values, (weights, table),
                                     weights, table)
    return relative_scores(weights, table.transpose(2, 1))


def relative_table(vertical: Tensor, horizontal: Tensor, layer: nn.Module,
                   tokens: int) -> Tensor:
    """What the layer looks up in its two tables: ``[N, N, d]``."""
    tables = (vertical, horizontal)
    if has_torch_function(tables):
        return handle_torch_function(relative_table, tables, *tables, layer,
                                     tokens)
    return layer(tokens, tokens)


def _tables(layer: nn.Module) -> tuple:
    return layer.embeddings_table_v, layer.embeddings_table_h, layer


@register_rule('relative_table')
def looked_up(recorder, call) -> List[Tensor]:
    """The tables are those of all heads: they hold no channels."""
    return [torch.zeros((), dtype=torch.long).expand(call.outs[0].shape)]


@register_rule('relative_scores', 'relative_values')
def relative_product(recorder, call) -> List[Tensor]:
    """MACs follow the heads; the result belongs to what it is added to."""
    data, out = call.args[0], call.outs[0]
    total = out.numel() * data.shape[-1]
    labels = core(compress(recorder.labels_of(data))).reshape(-1)
    count(recorder, call, total / len(labels), labels)
    return [torch.zeros((), dtype=torch.long).expand(out.shape)]


class RelativeAttention(MultiheadAttention):
    """MMRazor's static ``MultiheadAttention`` of Autoformer."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[B, N, C]`` to ``[B, N, C']``."""
        batch, tokens, _ = x.shape
        q, k, v = (
            layer(x).view(batch, tokens, self.num_heads,
                          self.head_dims).transpose(1, 2)
            for layer in (self.w_qs, self.w_ks, self.w_vs))
        scores = (q @ k.transpose(-2, -1)) * self.scale
        if self.relative_position:
            table = relative_table(*_tables(self.rel_pos_embed_k), tokens)
            scores = scores + relative_scores(q, table) * self.scale
        weights = self.attn_drop(scores.softmax(dim=-1))
        out = weights @ v
        if self.relative_position:
            table = relative_table(*_tables(self.rel_pos_embed_v), tokens)
            out = out + relative_values(weights, table)
        out = out.transpose(1, 2).reshape(batch, tokens, -1)
        out = self.out_drop(self.proj_drop(self.proj(out)))
        return v.squeeze(1) + out if self.v_shortcut else out
