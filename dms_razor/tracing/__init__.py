# Copyright (c) dms_razor contributors. All rights reserved.
"""From one forward pass to a search space; the front door is ``trace.py``."""
from ..moved import moved_names
from .rules import RULES, register_rule

__all__ = ['RULES', 'register_rule']

__getattr__ = moved_names(__name__)
