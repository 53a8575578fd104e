# Copyright (c) dms_razor contributors. All rights reserved.
"""torch's ``multi_head_attention_forward``: a whole attention as one call.

It is what ``nn.MultiheadAttention`` runs, and with it torch's encoder and
decoder layers. Its projections, products and output are labelled here as the
operations that it stands for would be.
"""
from math import prod
from typing import Any, List, Optional

import torch
from torch import Tensor

from ...adapters.registry import slim_class
from ..facts import Heads
from ..labels import core, expand_vector
from .contraction import channel_vector
from .table import register_rule
from .weights import owns

#: Arguments by place; all others are given by name.
PLACES = {
    name: place
    for place, name in enumerate((
        'query key value embed_dim_to_check num_heads in_proj_weight '
        'in_proj_bias bias_k bias_v add_zero_attn dropout_p out_proj_weight '
        'out_proj_bias training key_padding_mask need_weights attn_mask '
        'use_separate_proj_weight q_proj_weight k_proj_weight v_proj_weight '
        'static_k static_v average_attn_weights is_causal').split())
}

#: Name of the operation that stands for attention weights as a result.
SHOWN = 'attention_weights'


class _Attention:
    """One call of the function, its arguments by name."""

    def __init__(self, recorder, call) -> None:
        self.recorder, self.call, self.facts = recorder, call, recorder.facts
        self.heads: int = self['num_heads']

    def __getitem__(self, name: str) -> Any:
        return self.call.argument(PLACES[name], name)

    def name(self, argument: str) -> Optional[str]:
        """Full name of the parameter that is given; None if none is."""
        tensor = self[argument]
        if tensor is None:
            return None
        name = self.recorder.name_of(tensor)
        self.recorder.require(
            owns(self.recorder, name),
            f'attends with a {argument} that is computed or belongs to '
            'another module')
        return name

    def project(self) -> List[Tensor]:
        """Labels of queries, keys and values, ``[H * d]`` each."""
        recorder, path = self.recorder, self.recorder.path
        read = [
            channel_vector(recorder, self[name], -1)
            for name in ('query', 'key', 'value')
        ]
        if self['use_separate_proj_weight']:
            names = [self.name(f'{part}_proj_weight') for part in 'qkv']
            made = [
                self.facts.outputs(name, path,
                                   len(self[f'{part}_proj_weight']))
                for name, part in zip(names, 'qkv')
            ]
            for name, out in zip(names, made):
                self.facts.axis(name, 0, out)
        else:
            names = [self.name('in_proj_weight')] * 3
            whole = self.facts.outputs(names[0], path,
                                       len(self['in_proj_weight']))
            self.facts.axis(names[0], 0, whole)
            made = list(whole.chunk(3))
        for name, vector in zip(names, read):
            self.facts.axis(name, 1, vector, reads=True)
        self.facts.axis(self.name('in_proj_bias'), 0, torch.cat(made))
        for own, out in zip(('bias_k', 'bias_v'), made[1:]):
            self.facts.axis(self.name(own), 2, out)
        for name, vector, out in zip(('query', 'key', 'value'), read, made):
            recorder.count(self.call, prod(self[name].shape[:-1]), vector, out)
        return made

    @property
    def pairs(self) -> int:
        """How many queries meet how many keys, in the whole batch."""
        key = self['key'] if self['static_k'] is None else self['static_k']
        beside = (self['bias_k'] is not None) + bool(self['add_zero_attn'])
        place = 1 if key is self['static_k'] else 0
        return prod(self['query'].shape[:-1]) * (key.shape[place] + beside)

    def macs(self) -> int:
        """What all of it takes."""
        width, total = self['embed_dim_to_check'], 0
        for name in ('query', 'key', 'value'):
            total += self[name].numel() * width
        total += 2 * self.pairs * width
        return total + prod(self['query'].shape[:-1]) * \
            self['out_proj_weight'].numel()

    def attend(self, made: List[Tensor]) -> None:
        """Note the heads, and count both products."""
        recorder = self.recorder
        queries, keys, values = (x.view(self.heads, -1) for x in made)
        fact = next((fact for fact in self.facts.heads[recorder.heads_before:]
                     if torch.equal(fact.queries, queries)), None)
        if fact is None:  # else the layer is called once more
            recorder.variables.merge(queries, keys)
            heads = recorder.variables.new(self.heads)
            fact = Heads(recorder.path, heads, queries, keys, values)
            self.facts.heads.append(fact)
        mask = self['attn_mask']
        if mask is not None and mask.dim() == 3:
            fact.stays = f'{recorder.where} is given a mask of each head'
        for vector in (made[0], made[2]):
            recorder.count(self.call, self.pairs, vector)

    def leave(self, values: Tensor) -> Tensor:
        """Labels of the output of the projection behind the heads."""
        weight, path = self.name('out_proj_weight'), self.recorder.path
        owner = weight.rpartition('.')[0]
        result = self.facts.outputs(weight, owner,
                                    len(self['out_proj_weight']))
        self.facts.axis(weight, 0, result)
        self.facts.axis(weight, 1, values, reads=True)
        self.facts.axis(self.name('out_proj_bias'), 0, result)
        if owner != path:
            self.facts.borrowed[weight].add(path)
        self.recorder.count(self.call, prod(self['query'].shape[:-1]), values,
                            result)
        return result


@register_rule('multi_head_attention_forward')
def multi_head_attention(recorder, call) -> List[Optional[Tensor]]:
    """Projections, attention and the output's projection at once."""
    attention, out = _Attention(recorder, call), call.outs[0]
    known = slim_class(recorder.modules[recorder.path])
    recorder.require(
        getattr(known, 'dms_attends', None) == call.op
        and attention['static_k'] is None and attention['static_v'] is None,
        f'runs {call.op} itself, where nn.MultiheadAttention is known', call,
        attention.macs())
    made = attention.project()
    attention.attend(made)
    result = attention.leave(made[2])
    for name in ('key_padding_mask', 'attn_mask'):
        if attention[name] is not None:
            recorder.fix([attention[name]],
                         f'{recorder.where} takes them as a mask')
    if len(call.outs) > 1:
        # An operation of its own, so that it can be told who reads it.
        node = recorder.new_node(SHOWN, [attention['query']])
        marker = recorder.variables.new(1)[0]
        recorder.bind(call.outs[1], node, marker.expand(call.outs[1].shape))
    return [expand_vector(result, out.dim() - 1, out.shape), None]


def settle_shown(recorder) -> None:
    """Let heads stay whose weights are read outside of their layer.

    Args:
        recorder (Recorder): A finished recording, maybe with a second one.
    """
    facts, variables = recorder.facts, recorder.variables
    shown = [(one, node) for one in recorder.passes for node in one.nodes
             if node.op == SHOWN]
    if not shown:
        return
    classes = variables.classes()
    fixed = variables.fixed(classes)
    for one, node in shown:
        marker = int(core(node.labels[0]).max())
        if one.readers.get(node.index) or node.index in one.result_nodes or \
                classes[marker] in fixed:
            path = one.calls[node.call].path
            for fact in facts.heads:
                if fact.module == path:
                    fact.stays = f'the attention weights of "{path}", ' \
                        'which mix or name its heads, are used outside it'
