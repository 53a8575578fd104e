# Copyright (c) dms_razor contributors. All rights reserved.
"""Other packages' versions, and nothing else in this project knows of them.

:mod:`.shims` makes MMRazor and its friends work on current PyTorch; each
other module is a workaround that one of the shims puts in place.
"""
from ..moved import moved_names
from .checkpoint import UnsafeCheckpointError, load_checkpoint
from .cpu_distributed import default_model_wrapper
from .flop_counter import flop_analyzer
from .shims import SHIMS, apply

__all__ = [
    'SHIMS', 'UnsafeCheckpointError', 'apply', 'default_model_wrapper',
    'flop_analyzer', 'load_checkpoint'
]

__getattr__ = moved_names(__name__)
