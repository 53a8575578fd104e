# Copyright (c) dms_razor contributors. All rights reserved.
"""From a model and an example input to its search space, in plain PyTorch."""
from .rules import RULES, register_rule
from .space import Block, FullWidth, MaskSite, SliceSite, Space
from .trace import trace

__all__ = [
    'trace', 'Space', 'Block', 'FullWidth', 'MaskSite', 'SliceSite', 'RULES',
    'register_rule'
]
