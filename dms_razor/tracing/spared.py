# Copyright (c) dms_razor contributors. All rights reserved.
"""Layers that are left as they are: frozen, not meant, or without effect."""
from typing import Dict, List, Sequence, Set

import numpy as np
import torch
from torch import Tensor, nn

from .options import Options

FROZEN = 'its weights do not train (requires_grad=False), and frozen=False'
DEAD = ('nothing that the network returns depends on it; its MACs are '
        'counted, since it is run: take it out of the forward')


def spare(recorder, options: Options, blocks: Sequence[str]) -> Dict[str, str]:
    """Let the channels stay of layers that are to be left as they are.

    Args:
        recorder (Recorder): The finished recording.
        options (Options): What the caller wants.
        blocks (Sequence[str]): Paths of the blocks that could go.

    Returns:
        dict[str, str]: The blocks that stay as well, and why.
    """
    facts, stay = recorder.facts, {}
    for path in blocks:
        outside = options.outside([path])
        if outside is not None:
            stay[path] = outside
    if not options.frozen:
        frozen = frozen_layers(recorder.modules)
        names = [(name, axis.labels) for (name, _), axis in facts.axes.items()]
        for name, labels in (*names, *facts.entry_labels.items()):
            if name.rpartition('.')[0] in frozen:
                facts.variables.fix(labels, FROZEN)
        for path in blocks:
            if any(f'{layer}.'.startswith(f'{path}.') for layer in frozen):
                stay.setdefault(path, FROZEN)
    dead = dead_layers(recorder)
    if dead:
        _fix_dead(recorder, dead)
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


def dead_layers(recorder) -> Set[str]:
    """Paths of layers that run, while no output depends on what they give."""
    live, waiting = set(), list(recorder.result_nodes)
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting += recorder.nodes[node].inputs
    ran: Dict[str, List[bool]] = {}
    for operation in recorder.facts.operations:
        ran.setdefault(operation.module, []).append(operation.node in live)
    return {path for path, uses in ran.items() if not any(uses)}


def _fix_dead(recorder, dead: Set[str]) -> None:
    """Their own channels stay; those that others make, too, do not."""
    facts = recorder.facts
    classes = facts.variables.classes()

    def classes_of(labels: Tensor) -> np.ndarray:
        return classes[labels.reshape(-1).numpy()]

    alive = [
        classes_of(p.labels) for p in facts.producers if p.module not in dead
    ]
    shared = np.unique(np.concatenate([np.zeros(1, int), *alive]))
    for producer in facts.producers:
        if producer.module in dead:
            own = ~np.isin(classes_of(producer.labels), shared)
            facts.variables.fix(producer.labels[torch.from_numpy(own)], DEAD)
