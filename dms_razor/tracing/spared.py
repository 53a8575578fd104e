# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers that are left as they are: frozen, not meant, or without effect."""
from typing import Callable, Dict, Iterable, List, Sequence, Set, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.low_rank import rank_layers
from ..network import tensors_of, untouched
from .blocks import ResidualBlock
from .options import Options

RANK = 'the rank of an adapter is no width of the network'
FROZEN = 'its weights do not train (requires_grad=False), and frozen=False'
IDLE = ('nothing that the network returns depends on it; its MACs are '
        'counted, since it is run: take it out of the forward')


def spare(recorder, options: Options,
          blocks: Sequence[ResidualBlock]) -> Dict[str, str]:
    """Let the channels stay of layers that are to be left as they are.

    Args:
        recorder (Recorder): The finished recording.
        options (Options): What the caller wants.
        blocks (Sequence[ResidualBlock]): The blocks that could go.

    Returns:
        dict[str, str]: The blocks that stay as well, and why.
    """
    facts, stay = recorder.facts, {}
    for block in blocks:
        outside = options.outside([block.path])
        if outside is not None:
            stay[block.path] = outside
    if not options.frozen:
        frozen = frozen_layers(recorder.modules)
        names = [(name, axis.labels) for (name, _), axis in facts.axes.items()]
        for name, labels in (*names, *facts.entry_labels.items()):
            if name.rpartition('.')[0] in frozen:
                facts.variables.fix(labels, FROZEN)
        for block in blocks:
            parts = tuple(f'{part.path}.' for part in block.stand_ins)
            if any(f'{layer}.'.startswith(parts) for layer in frozen):
                stay.setdefault(block.path, FROZEN)
    ranks = rank_layers(recorder.modules)
    for producer in facts.producers if ranks else ():
        if producer.module in ranks:
            facts.variables.fix(producer.labels, RANK)
    if recorder.idle:
        _fix_idle(recorder, recorder.idle)
    return stay


def frozen_layers(modules: Dict[str, nn.Module]) -> Set[str]:
    """Paths of layers none of whose weights trains.

    A norm alone is no such layer: its numbers go with the channels.
    """
    own = {
        path: list(module.parameters(recurse=False))
        for path, module in modules.items()
    }
    return {
        path
        for path, parameters in own.items()
        if any(p.dim() > 1
               for p in parameters) and not any(p.requires_grad
                                                for p in parameters)
    }


def idle_layers(recorder, forward: Callable, inputs: Tuple) -> Set[str]:
    """Paths of layers that run, while no output depends on their weights.

    The recordings name those that may be it, in eval and in train mode. Code
    that no recording sees (scripted functions, NumPy) can still use them, so
    that other weights are tried: the outputs must not change.

    Args:
        recorder (Recorder): The finished recording.
        forward (Callable): How the network is run, in eval mode.
        inputs (tuple): On what.
    """
    used = _reaching(recorder)
    if recorder.again is not None:
        used |= _reaching(recorder.again)
    idle = {
        operation.module
        for operation in recorder.facts.operations
        if operation.module not in used
        and list(recorder.modules[operation.module].parameters(recurse=False))
    }

    def outputs(changed: Iterable[str]) -> List[Tensor]:
        weights = [
            p for path in changed
            for p in recorder.modules[path].parameters(recurse=False)
        ]
        before = [weight.data for weight in weights]
        try:
            with untouched(recorder.model):
                for weight in weights:
                    weight.data = weight.data + 1
                return tensors_of(forward(recorder.model, *inputs))
        finally:
            for weight, data in zip(weights, before):
                weight.data = data

    expected = outputs(()) if idle else []
    if idle and not _equal(outputs(idle), expected):
        idle = {path for path in idle if _equal(outputs([path]), expected)}
    return idle


def _equal(found: List[Tensor], expected: List[Tensor]) -> bool:
    return len(found) == len(expected) and all(
        torch.equal(a, b) for a, b in zip(found, expected))


def _reaching(recorder) -> Set[str]:
    """Paths of modules with an operation that reaches what is returned."""
    live, waiting = set(), list(recorder.result_nodes)
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting += recorder.nodes[node].inputs
    calls = (recorder.nodes[node].call for node in live)
    return {recorder.calls[call].path if call >= 0 else '' for call in calls}


def _fix_idle(recorder, idle: Set[str]) -> None:
    """Their own channels stay; those that others make, too, do not."""
    facts = recorder.facts
    classes = facts.variables.classes()

    def classes_of(labels: Tensor) -> np.ndarray:
        return classes[labels.reshape(-1).numpy()]

    alive = [
        classes_of(p.labels) for p in facts.producers if p.module not in idle
    ]
    shared = np.unique(np.concatenate([np.zeros(1, int), *alive]))
    for producer in facts.producers:
        if producer.module in idle:
            own = ~np.isin(classes_of(producer.labels), shared)
            facts.variables.fix(producer.labels[torch.from_numpy(own)], IDLE)
