# Copyright (c) dms_razor contributors. All rights reserved.
"""How channels pass through each kind of operation.

A rule is ``rule(recorder, call) -> [labels of every output]``. It merges,
fixes or creates channel variables and notes which parameters carry them; it
raises :class:`~dms_razor.tracing.recorder.NotUnderstood` with a reason where
that is not possible. ``RULES`` maps canonical operation names to rules; users
can add their own with :func:`register_rule`.
"""
from importlib import import_module
from typing import Callable, Dict

RULES: Dict[str, Callable] = {}


def register_rule(*names: str) -> Callable:
    """Decorator: the function is the rule of the operations ``names``."""

    def register(rule: Callable) -> Callable:
        for name in names:
            RULES[name] = rule
        return rule

    return register


# The modules register their rules; they import this one, hence the place.
for _name in ('attention', 'contraction', 'cutting', 'elementwise', 'movement',
              'norm', 'reduction'):
    import_module(f'{__name__}.{_name}')
