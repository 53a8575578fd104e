# Copyright (c) dms_razor contributors. All rights reserved.
"""MMRazor's own supernets, to be searched by DMS.

Autoformer and OFA's MobileNetV3 are built of dynamic layers that look up
their present width in mutables. A search by DMS needs none of this: its
masks act on plain layers. The published space is then given by ``units`` with
``choices``; see configs/autoformer and configs/ofa.
"""
from typing import Any, List, Optional

import torch
from mmengine.registry import MODELS
from mmpretrain.models import ImageClassifier
from mmrazor.models.architectures.ops.transformer_series import \
    MultiheadAttention
from torch import Tensor, nn
from torch.overrides import wrap_torch_function

from ..adapters.mutables import width_mutable
from ..tracing import register_rule
from ..tracing.labels import compress, core
from .algorithm import with_preprocessor


# In mmengine's root registry, so that a config finds it under any scope.
@MODELS.register_module()
def DMSStaticSupernet(cfg: dict,
                      data_preprocessor: Optional[dict] = None) -> nn.Module:
    """Build one of MMRazor's supernets as its largest plain network.

    Args:
        cfg (dict): Config of the searchable network, e.g.
            ``SearchableImageClassifier``. MMRazor's own configs name
            MMPretrain ``mmcls``; both names are understood.
        data_preprocessor (dict, optional): Handed on to the model.

    Returns:
        nn.Module: The largest network of the space. It has no mutables.

    Raises:
        TypeError: If ``cfg`` is not a config dict with a ``type``.
        ValueError: If the network has no mutables.
    """
    cfg = _renamed(with_preprocessor(cfg, user='DMSStaticSupernet'))
    if data_preprocessor is not None:
        cfg['data_preprocessor'] = _renamed(data_preprocessor)
    with MODELS.switch_scope_and_registry('mmrazor') as registry:
        kind = (
            registry.get(cfg['type'])
            if isinstance(cfg['type'], str) else cfg['type'])
        if isinstance(kind, type) and issubclass(kind, ImageClassifier):
            # MMPretrain's default, which it would look for in MMRazor's scope
            preprocessor = cfg.get('data_preprocessor') or {}
            if isinstance(preprocessor, dict):
                preprocessor.setdefault('type',
                                        'mmpretrain.ClsDataPreprocessor')
            cfg['data_preprocessor'] = preprocessor
        return largest_network(registry.build(cfg))


def largest_network(model: nn.Module) -> nn.Module:
    """The largest network of a supernet, with the supernet's weights.

    Args:
        model (nn.Module): A network of MMRazor's dynamic layers; it is used
            up.

    Returns:
        nn.Module: The same classes with plain layers inside.

    Raises:
        ValueError: If the network has no mutables.
    """
    from mmrazor.models.mutables import BaseMutable
    from mmrazor.models.mutators import NasMutator
    from mmrazor.structures.subnet import export_fix_subnet
    mutator = NasMutator()
    mutator.prepare_from_supernet(model)
    if not mutator.search_groups:
        raise ValueError(
            f'{type(model).__name__} has no mutables: it is no supernet of '
            'MMRazor. Use its config as the architecture itself.')
    mutator.set_choices(mutator.sample_choices(kind='max'))
    # A backbone that runs a plain list of modules would go on running dynamic
    # layers, since only registered modules are replaced.
    training = model.training
    paths = {id(module): path for path, module in model.named_modules()}
    lists = {
        (path, name): [paths[id(item)] for item in value]
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, list) and value and all(
            id(item) in paths for item in value)
    }
    _, static = export_fix_subnet(model, slice_weight=True)
    for module in static.modules():
        module.training = training
        if type(module) is MultiheadAttention:
            module.__class__ = RelativeAttention
        for name, child in list(module.named_children()):
            if isinstance(child,
                          BaseMutable) and name != width_mutable(module):
                delattr(module, name)
    modules = dict(static.named_modules())
    for (path, name), members in lists.items():
        if set(members) <= set(modules):  # else they were mutables
            setattr(modules[path], name, [modules[m] for m in members])
    return static


def _renamed(value: Any) -> Any:
    """``mmcls`` is called ``mmpretrain`` today, in types and scopes."""
    if isinstance(value, dict):
        return {key: _renamed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_renamed(item) for item in value)
    if isinstance(value, str) and (value == 'mmcls'
                                   or value.startswith('mmcls.')):
        return 'mmpretrain' + value[len('mmcls'):]
    return value


# MMRazor's layer folds batch and heads into one dimension, in which heads can
# no longer be told apart. Here the two products with the table of relative
# positions are functions of their own with a tracing rule each; the layer
# computes the same and keeps its parameters. The table is shared by all
# heads, so the dims of a head stay and the number of heads is searched, as in
# Autoformer's space.


@wrap_torch_function(lambda q, table: (q, table))
def relative_scores(q: Tensor, table: Tensor) -> Tensor:
    """Queries ``[B, H, N, d]`` times table ``[N, M, d]``: ``[B, H, N, M]``."""
    batch, heads, tokens, dims = q.shape
    rows = q.permute(2, 0, 1, 3).reshape(tokens, batch * heads, dims)
    return (rows @ table.transpose(2, 1)).transpose(1, 0).reshape(
        batch, heads, tokens, -1)


@wrap_torch_function(lambda weights, table: (weights, table))
def relative_values(weights: Tensor, table: Tensor) -> Tensor:
    """Weights ``[B, H, N, M]`` times ``[N, M, d]``: ``[B, H, N, d]``."""
    return relative_scores(weights, table.transpose(2, 1))


@wrap_torch_function(lambda vertical, horizontal, layer, tokens:
                     (vertical, horizontal))
def relative_table(vertical: Tensor, horizontal: Tensor, layer: nn.Module,
                   tokens: int) -> Tensor:
    """What the layer looks up in its two tables: ``[N, N, d]``."""
    return layer(tokens, tokens)


def _table(layer: nn.Module, tokens: int) -> Tensor:
    return relative_table(layer.embeddings_table_v, layer.embeddings_table_h,
                          layer, tokens)


@register_rule('relative_table')
def looked_up(recorder, call) -> List[Tensor]:
    """The tables are those of all heads: they hold no channels."""
    return [torch.zeros((), dtype=torch.long).expand(call.outs[0].shape)]


@register_rule('relative_scores', 'relative_values')
def relative_product(recorder, call) -> List[Tensor]:
    """MACs follow the heads; the result belongs to what it is added to."""
    data, out = call.args[0], call.outs[0]
    labels = core(compress(recorder.labels_of(data))).reshape(-1)
    recorder.count(call, out.numel() * data.shape[-1] / len(labels), labels)
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
            scores = scores + self.scale * relative_scores(
                q, _table(self.rel_pos_embed_k, tokens))
        weights = self.attn_drop(scores.softmax(dim=-1))
        out = weights @ v
        if self.relative_position:
            out = out + relative_values(weights,
                                        _table(self.rel_pos_embed_v, tokens))
        out = out.transpose(1, 2).reshape(batch, tokens, -1)
        out = self.out_drop(self.proj_drop(self.proj(out)))
        return v.squeeze(1) + out if self.v_shortcut else out
