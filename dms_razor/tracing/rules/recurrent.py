# Copyright (c) dms_razor contributors. All rights reserved.
"""Recurrent layers: the hidden state is one width.

The gates of an LSTM or GRU, stacked along the rows of its weights, keep the
channels of the state; the state is read by the layer itself in the next step
and by the layer above. All layers and directions of one module have one
``hidden_size`` and keep equal counts, each of its own channels.
"""
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from ..facts import Partition
from ..labels import expand_vector
from .contraction import carry_bias, channel_vector
from .table import register_rule
from .weights import owns

#: Operation -> rows of its weights for each channel of the state.
GATES = {'lstm': 4, 'gru': 3, 'rnn_tanh': 1, 'rnn_relu': 1}


def _state(recorder, call, gates: int, read: Tensor,
           weights: List[Tensor]) -> Tensor:
    """Labels of the state of one layer in one direction, ``[H]``.

    Args:
        recorder (Recorder): The recorder.
        call (OpCall): The operation.
        gates (int): Rows for each channel.
        read (Tensor): Labels of what it reads, ``[C]``.
        weights (list[Tensor]): Of the input and of the state, and biases.
    """
    facts = recorder.facts
    names = [recorder.name_of(weight) for weight in weights[:2]]
    size = weights[1].shape[1]
    state = facts.outputs(names[1], recorder.path, size, axis=1)
    rows = state.repeat(gates)
    for name, vector in zip(names, (read, state)):
        facts.axis(name, 0, rows)
        facts.axis(name, 1, vector, reads=True)
        facts.read_as[name].add(name)
    for bias in weights[2:]:
        carry_bias(recorder, bias, rows)
    steps = call.tensors[0].shape[:-1].numel()
    for vector in (read, state):
        recorder.count(call, gates * steps, vector, state)
    facts.numbers.setdefault(recorder.path, {}).update(hidden_size=state)
    return state


def _projected(recorder, call, read: Tensor,
               weights: List[Tensor]) -> Tuple[Tensor, Tensor]:
    """Labels of what an LSTM's state is projected to, ``[P]``, and of the
    state, ``[H]``, which stays: PyTorch takes equal sizes for no projection.

    Args:
        recorder (Recorder): The recorder.
        call (OpCall): The operation.
        read (Tensor): Labels of what it reads, ``[C]``.
        weights (list[Tensor]): As for :func:`_state`; the projection last.
    """
    facts, hidden = recorder.facts, weights[-1].shape[1]
    names = [recorder.name_of(w) for w in (*weights[:2], weights[-1])]
    made = facts.outputs(names[2], recorder.path, len(weights[-1]))
    facts.axis(names[2], 0, made)
    state = facts.outputs(names[2], recorder.path, hidden, axis=1)
    recorder.variables.fix(
        state, f'{recorder.where} has a hidden_size that has to stay larger '
        'than its proj_size')
    facts.axis(names[2], 1, state, reads=True)
    steps = call.tensors[0].shape[:-1].numel()
    for name, vector in zip(names, (read, made)):
        facts.axis(name, 1, vector, reads=True)
        recorder.count(call, 4 * steps * hidden, vector)
    for name in names:
        facts.read_as[name].add(name)
    recorder.count(call, steps * hidden, made)
    facts.numbers.setdefault(recorder.path, {}).update(proj_size=made)
    return made, state


def _require_own(recorder, call, weights: List[Tensor]) -> int:
    """Refuse weights of others; MACs of all steps of the batch."""
    macs = call.tensors[0].shape[:-1].numel() * sum(
        weight.numel() for weight in weights if weight.dim() > 1)
    recorder.require(
        all(owns(recorder, recorder.name_of(weight)) for weight in weights),
        f'has weights in {call.op} that are computed or belong to another '
        'module', call, macs)
    return macs


def _begin(recorder, given: List[Tensor], states: List[Tensor]) -> None:
    """What states begin with is of the same channels, where it has any."""
    for tensor, labels in zip(given, states):
        if recorder.labels_of(tensor) is not None:
            recorder.variables.tie(
                recorder.core_of(tensor), labels,
                f'{recorder.where} begins with a state of fixed width')


@register_rule(*GATES)
def recurrent(recorder, call) -> List[Tensor]:
    """``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``, packed sequences too."""
    packed = not isinstance(call.args[3], bool)
    x = call.args[0]
    given, weights, biases, layers = call.args[1 + packed:5 + packed]
    ways = 1 + bool(call.args[7 + packed])
    _require_own(recorder, call, weights)
    each, plain = len(weights) // (layers * ways), 4 if biases else 2
    gates, read = GATES[call.op], channel_vector(recorder, x, -1)
    facts, states, inner, first = recorder.facts, [], [], read
    for layer in range(layers):
        below = []
        for way in range(ways):
            start = each * (layer * ways + way)
            own = weights[start:start + each]
            made, state = _projected(recorder, call, read,
                                     own) if each > plain else 2 * (_state(
                                         recorder, call, gates, read, own), )
            below.append(made)
            inner.append(state)
        states += below
        read = torch.cat(below)
    size = 'proj_size' if each > plain else 'hidden_size'
    if len(states) > 1:
        facts.partitions.append(
            Partition(
                torch.stack(states), recorder.path,
                f'{recorder.where} has one {size}'))
    facts.numbers[recorder.path][size] = states[0]
    facts.numbers[recorder.path].setdefault('input_size', first)
    rows = [torch.stack(own)[:, None] for own in (states, inner)]
    given = list(given) if isinstance(given, (tuple, list)) else [given]
    _begin(recorder, given, rows[:len(given)])
    out, *last = call.outs
    kept = [
        own if state.dim() == 3 else own[:, 0]
        for state, own in zip(last, rows)
    ]
    return [
        expand_vector(read,
                      out.dim() - 1, out.shape),
        *(labels.expand(state.shape) for labels, state in zip(kept, last))
    ]


@register_rule('lstm_cell', 'gru_cell', 'rnn_tanh_cell', 'rnn_relu_cell')
def cell(recorder, call) -> List[Tensor]:
    """One step of ``nn.LSTMCell``, ``nn.GRUCell`` or ``nn.RNNCell``."""
    x, given, *weights = call.args
    gates = GATES[call.op.rpartition('_')[0]]
    read = channel_vector(recorder, x, -1)
    weights = [weight for weight in weights if weight is not None]
    _require_own(recorder, call, weights)
    state = _state(recorder, call, gates, read, weights)
    recorder.facts.numbers[recorder.path].setdefault('input_size', read)
    given = list(given) if isinstance(given, (tuple, list)) else [given]
    _begin(recorder, given, [state] * len(given))
    return [
        expand_vector(state,
                      out.dim() - 1, out.shape) for out in call.outs
    ]


@register_rule('pack_padded_sequence', 'pad_packed_sequence')
def pack(recorder, call) -> List[Optional[Tensor]]:
    """Steps of sequences move; what says where they are has no channels."""
    labels = channel_vector(recorder, call.args[0], -1)
    out, *rest = call.outs
    return [
        expand_vector(labels,
                      out.dim() - 1, out.shape), *(None for _ in rest)
    ]
