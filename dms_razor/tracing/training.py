# Copyright (c) dms_razor contributors. All rights reserved.
"""The second recording: what a network runs in train mode.

Auxiliary heads, deep supervision, blocks that return more, features that are
centred: what runs in training alone reads channels that evaluation prunes.
Both recordings share their variables and facts, so that what either finds
out holds for the space; MACs are those of the first.
"""
import logging
from typing import Any, Callable, ContextManager, Mapping, Optional, Tuple

import numpy as np
from torch import nn

from ..network import as_arguments, several
from .facts import Facts
from .modes import (as_trained, train_changes_attributes, training_flags,
                    two_samples, varied)
from .recorder import Recorder

SAME = 'its code runs the same operations as eval mode'


class TrainMode:
    """How training runs a network, and what is known of it.

    Args:
        first (Recorder): The finished recording in eval mode.
        forward (Callable): How training runs it.

    Attributes:
        inputs (tuple): What it is run on.
        flags (dict[str, bool] | None): Training flag of each module, see
            :func:`~dms_razor.tracing.modes.training_flags`.
        proved (bool): Whether the self-check ran in train mode too.
        error (str): Why train mode could not run; '' if it could.
    """

    def __init__(self, first: Recorder, forward: Callable) -> None:
        self.first, self.model = first, first.model
        self.forward, self.inputs = forward, ()
        self.proved, self.error, self.given = False, '', False
        self.checker: Any = None  # what proves it, see proof/check.py
        self.flags = training_flags(first.model)

    def record(self, example: Any, train_inputs: Any,
               train_forward: Any) -> None:
        """Record the network in train mode, where it may differ.

        Args:
            example (Any): Example inputs; repeated to two samples.
            train_inputs (Any, optional): What training gives instead.
            train_forward (Callable, optional): Given if training differs.
        """
        self.given = train_inputs is not None or train_forward is not None
        if train_inputs is None:
            train_inputs = two_samples(example, self.first.batch_size)
        if not isinstance(train_inputs, Mapping):
            train_inputs = several(train_inputs)
        self.inputs, self.forward = as_arguments(train_inputs, self.forward)
        model = self.model
        try:
            if self.first.asked or self.given or train_changes_attributes(
                    model):
                with self.mode(model):
                    record_again(self.first, self.forward, self.inputs)
                if not self.given and same_operations(self.first):
                    self.first.again = None
        except Exception as error:
            self.failed(error)

    def mode(self, model: nn.Module) -> ContextManager:
        """The context in which the network, or a copy, is trained."""
        return as_trained(model, self.flags)

    @property
    def to_prove(self) -> bool:
        """Whether there is something to prove that is not proved yet."""
        return self.first.again is not None and not self.error

    def probed(self) -> Tuple[Tuple, Callable, Optional[Tuple]]:
        """Inputs, how it is run on them, and those to compare on as they are,
        if training gives them; else samples that differ are drawn."""
        if self.given:
            return self.inputs, self.forward, self.inputs
        return varied(self.inputs), self.forward, None

    def failed(self, error: Exception) -> None:
        """Train mode does not run: say so once, and go on without it."""
        first_line = f'{type(error).__name__}: {error}'.split('\n')[0]
        self.error = first_line
        logging.getLogger('dms_razor').warning(
            'Train mode of %s was not traced: %s',
            type(self.model).__name__, self.report())

    def report(self) -> str:
        """What is known of train mode, in words."""
        if self.error:
            what = 'is not proved' if self.first.again else 'does not run'
            return (f'it {what} on {self._what()} ({self.error}). What runs '
                    'in training alone is not searched and may not fit; give '
                    'train_inputs= or train_forward=')
        if self.first.again is None:
            return SAME
        proved = ' and proved' if self.proved else ''
        return f'recorded{proved} on {self._what()}'

    def _what(self) -> str:
        return 'train_inputs and train_forward' if self.given else \
            'the example, repeated to two samples'


def record_again(first: Recorder, forward: Callable, inputs: Tuple) -> None:
    """Record another run of the network that ``first`` has recorded.

    Args:
        first (Recorder): A finished recording; gets the other as ``again``.
        forward (Callable): How the network is run this time.
        inputs (tuple): Its arguments.

    Raises:
        Exception: Whatever the network raises. What was seen until then
            counts: its channels are known, though nothing stands in
            ``again``.
    """
    facts = first.facts
    places = [len(held) for held in _lists(facts)]
    heads = len(facts.heads)
    second = Recorder(first.model, first.rules, first)
    try:
        second.run(forward, inputs)
    finally:
        facts.finish()
        _join_heads(facts, heads)
        for held, place in zip(_lists(facts), places):
            known = {_key(fact) for fact in held[:place]}
            held[place:] = [f for f in held[place:] if _key(f) not in known]
    first.again = second


def operations(recorder: Recorder) -> list:
    """What was run, where, and on the results of what."""
    paths = [call.path for call in recorder.calls] + ['']  # -1: no module
    return [(node.op, paths[node.call], node.inputs, node.plain_add,
             len(node.settings))
            for node in recorder.nodes] + [recorder.output_nodes]


def same_operations(first: Recorder) -> bool:
    """Whether the second recording is of the operations of the first.

    Then what is proved of one mode is proved of the other, for PyTorch's own
    flags (what statistics a norm takes, whether a dropout drops) move no
    channel. Sizes of reshapes grow with the samples; no other number differs.

    Args:
        first (Recorder): A recording with another as ``again``.
    """
    again = first.again
    return operations(first) == operations(again) and all(
        _alike(a, b, node.site is not None)
        for node, other in zip(first.nodes, again.nodes)
        for a, b in zip(node.settings, other.settings))


def _alike(first: Any, second: Any, sizes: bool) -> bool:
    """Whether an argument is the same, or a flag, or one of other sizes."""
    if type(first) is not type(second):
        return False
    if type(first) is bool or sizes and type(first) is int:
        return True
    try:
        return bool(first == second)
    except (TypeError, ValueError):  # an array, or what cannot be compared
        return False


def _lists(facts: Facts) -> Tuple[list, list]:
    """Facts that stand once for each time that they were seen."""
    return facts.partitions, facts.pieces


def _key(fact) -> Tuple:
    return fact.module, fact.labels.shape, fact.labels.numpy().tobytes()


def _join_heads(facts: Facts, number: int) -> None:
    """Heads that both recordings saw are the same heads.

    Args:
        facts (Facts): What both have found.
        number (int): Heads of the first.
    """
    classes, left, new = facts.variables.classes(), facts.heads[:number], []
    for fact in facts.heads[number:]:
        same = next(
            (other for other in left
             if other.module == fact.module and other.queries.shape == fact.
             queries.shape and np.array_equal(classes[
                 other.queries.numpy()], classes[fact.queries.numpy()])), None)
        if same is None:
            new.append(fact)
            continue
        left = [other for other in left if other is not same]
        facts.variables.merge(same.heads, fact.heads)
        same.stays = same.stays or fact.stays
        known = same.values is not None and fact.values is not None
        if known and same.values.shape == fact.values.shape:
            for name in ('values', 'inner', 'made'):
                if getattr(same, name) is not None:
                    facts.variables.merge(
                        getattr(same, name), getattr(fact, name))
        else:
            same.values = None  # in one mode they are not understood
    facts.heads[number:] = new
