# Copyright (c) dms_razor contributors. All rights reserved.
"""How channels pass through each kind of operation.

A rule is ``rule(recorder, call) -> [labels of every output]``. It merges,
fixes or creates channel variables and notes which parameters carry them; it
raises :class:`~dms_razor.tracing.recorder.NotUnderstood` with a reason where
that is not possible. ``RULES`` maps canonical operation names to rules; users
can add their own with :func:`register_rule`.
"""
from typing import Callable, Dict

RULES: Dict[str, Callable] = {}


def register_rule(*names: str) -> Callable:
    """Decorator: the function is the rule of the operations ``names``."""

    def register(rule: Callable) -> Callable:
        for name in names:
            RULES[name] = rule
        return rule

    return register


from . import (attention, contraction, cutting,  # noqa: E402,F401,I001
               elementwise, movement, norm, reduction)
