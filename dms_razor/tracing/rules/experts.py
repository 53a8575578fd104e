# Copyright (c) dms_razor contributors. All rights reserved.
"""Experts, and the router that chooses a few of them for each word.

A router's scores go through a softmax, of which the k largest are taken:
their values weigh what the experts of their numbers return. So a score is a
channel that belongs to an expert. Under masks the softmax is that of the kept
ones (:mod:`dms_razor.masking.experts`). What a router does else with its
scores (it returns them, or looks at other numbers than the k largest) lets
all experts stay.
"""
from math import gcd
from typing import Dict, List, Optional

import numpy as np
import torch
from torch import Tensor

from ...adapters.experts import OPERATION, numbers_of
from ..facts import Choice, NormAxis
from ..labels import core, expand_vector, vector_along
from .contraction import channel_vector
from .movement import SAME
from .table import register_rule
from .weights import owns

#: Name of the operation that stands for the numbers of what was chosen.
CHOSEN = 'chosen'
#: Grouped products of PyTorch want rows of 16 bytes: eight of the smallest
#: numbers that they take.
STEP = 8


def probabilities(recorder, call, labels: Tensor,
                  dim: int) -> Optional[List[Tensor]]:
    """Labels of a softmax over channels, which a router may choose by.

    Whether that is all that is done with it shows in the end, see
    :func:`settle_choices`; all else is as with channels that are mixed.

    Args:
        recorder (Recorder): The recorder.
        call (OpCall): The softmax.
        labels (Tensor): Labels of what it reads.
        dim (int): Along which dimension.

    Returns:
        list[Tensor] | None: None if it is none of one vector of channels.
    """
    vector = vector_along(labels, dim)
    if vector is None or core(labels).numel() == 1 or int(vector.min()) < 1 \
            or recorder.nodes[-1].constant or not recorder.path:
        return None
    choice = Choice(
        recorder.path, vector, dim - labels.dim(), *recorder.variables.new(2),
        f'{recorder.where} mixes channels: it takes their {call.op}')
    recorder.facts.choices.append(choice)
    return [choice.marker.expand(call.outs[0].shape)]


def _choice_of(recorder, tensor: Tensor, part: str) -> Optional[Choice]:
    """The choice whose marker or chosen numbers these labels are."""
    labels = core(recorder.core_of(tensor))
    if labels.numel() > 1:
        return None
    return next((choice for choice in recorder.facts.choices
                 if int(getattr(choice, part)) == int(labels)), None)


def largest(recorder, call, dim: int) -> Optional[List[Optional[Tensor]]]:
    """Labels of the k largest of what :func:`probabilities` has seen.

    Args:
        recorder (Recorder): The recorder.
        call (OpCall): The call of ``topk``.
        dim (int): Along which dimension.

    Returns:
        list[Tensor | None] | None: None if they are of something else.
    """
    choice, x = _choice_of(recorder, call.tensors[0], 'marker'), \
        call.tensors[0]
    number = call.argument(1, 'k')
    if choice is None or dim - x.dim() != choice.dim or \
            type(number) is not int or not call.argument(3, 'largest', True):
        return None
    choice.least = max(choice.least, number)
    values, numbers = call.outs
    # An operation of its own, so that it can be told who reads them.
    node = recorder.new_node(CHOSEN, [x])
    recorder.bind(numbers, node, choice.chosen.expand(numbers.shape))
    return [torch.zeros((), dtype=torch.long).expand(values.shape), None]


@register_rule(OPERATION)
def experts(recorder, call) -> List[Tensor]:
    """All experts of a layer, each for the words that were sent to it."""
    x, chosen, weights, first, last = call.args
    facts, path = recorder.facts, recorder.path
    number, made, width = last.shape
    macs = chosen.numel() * made * width
    names = [recorder.name_of(weight) for weight in (first, last)]
    recorder.require(
        all(owns(recorder, name) for name in names),
        'has experts whose weights are computed or belong to another module',
        call, 3 * macs)
    recorder.fix([weights], f'{recorder.where} takes them as weights')
    read = channel_vector(recorder, x, -1)
    inner = facts.outputs(names[1], path, width, axis=2)
    # Named after the block around them: patterns for the experts mean their
    # own width alone.
    result = facts.outputs(names[1], path.rpartition('.')[0], made, axis=1)
    facts.axis(names[0], 1, inner.repeat(2))
    facts.axis(names[0], 2, read, reads=True)
    facts.axis(names[1], 1, result)
    facts.axis(names[1], 2, inner, reads=True)
    for vector in (read, inner, result):
        facts.steps.append((vector, gcd(len(vector), STEP)))
    recorder.count(call, 2 * chosen.numel(), read, inner)
    recorder.count(call, chosen.numel(), inner, result)
    counted = dict(read=read, width=inner)
    choice = _choice_of(recorder, chosen, 'chosen')
    if choice is None or len(choice.labels) != number:
        recorder.fix([chosen], f'{recorder.where} takes them as numbers of '
                     'experts')
    else:
        choice.used = True
        counted['experts'] = choice.labels
        for name in names:
            facts.axis(name, 0, choice.labels)
        _numbers(recorder, choice.module, dict(counted))
    _numbers(recorder, path, counted)
    return [expand_vector(result, x.dim() - 1, call.outs[0].shape)]


def _numbers(recorder, path: str, counted: Dict[str, Tensor]) -> None:
    """Note which numbers of a module's own follow the channels."""
    found = numbers_of(recorder.modules[path], **{
        name: len(x)
        for name, x in counted.items()
    })
    if found:
        own = recorder.facts.numbers.setdefault(path, {})
        own.update({name: counted[what] for name, what in found.items()})


def settle_choices(recorder) -> None:
    """Let experts stay of whose scores something else is made as well.

    Args:
        recorder (Recorder): A finished recording, maybe with a second one.
    """
    facts, variables = recorder.facts, recorder.variables
    if not facts.choices:
        return
    classes = variables.classes()
    fixed = variables.fixed(classes)
    for choice in facts.choices:
        parts = {
            int(choice.marker): {*SAME, 'topk', CHOSEN},
            int(choice.chosen): {*SAME, OPERATION}
        }
        alone = choice.used and not any(classes[n] in fixed for n in parts)
        for one in recorder.passes:
            for node in one.nodes:
                allowed = parts.get(
                    int(core(node.labels[0]).max()) if node.labels else 0)
                if allowed is not None and any(
                        one.nodes[reader].op not in allowed
                        for reader in one.readers.get(node.index, ())):
                    alone = False
        norm = NormAxis(choice.module, 'softmax', choice.labels)
        known = facts.norms.get(choice.module, norm)
        if alone and known.op == norm.op and np.array_equal(
                classes[known.labels.numpy()], classes[norm.labels.numpy()]):
            facts.norms[choice.module] = known
            if choice.least >= len(choice.labels):
                variables.fix(
                    choice.labels, f'"{choice.module}" takes all of '
                    f'its {choice.least} experts each time')
        else:
            variables.fix(choice.marker, choice.reason)
            variables.fix(choice.labels, choice.reason)
