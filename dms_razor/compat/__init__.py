# Copyright (c) dms_razor contributors. All rights reserved.
"""Other packages' versions, and nothing else in this project knows of them.

:mod:`.shims` makes MMRazor and its friends work on current PyTorch; each
other module is a workaround that one of the shims puts in place.
"""
import warnings
from math import prod

from ..moved import moved_names
from .checkpoint import UnsafeCheckpointError, load_checkpoint
from .cpu_distributed import default_model_wrapper
from .needed import refuse_missing
from .shims import SHIMS, apply

__all__ = [
    'SHIMS', 'UnsafeCheckpointError', 'apply', 'default_model_wrapper',
    'flop_analyzer', 'load_checkpoint', 'refuse_missing'
]

__getattr__ = moved_names(__name__)


def flop_analyzer(model, inputs):
    """MMEngine's FlopAnalyzer with attention counted; no longer used here.

    Use :func:`dms_razor.counting.count_macs`, which also knows what mmengine
    leaves out.

    Args:
        model (nn.Module): Called as ``model(*inputs)``.
        inputs (Tensor or tuple): Example input.

    Returns:
        mmengine.analysis.FlopAnalyzer: ``.by_operator()``, ``.total()``, …
    """
    from mmengine.analysis import FlopAnalyzer
    warnings.warn('flop_analyzer is replaced by dms_razor.counting.count_macs',
                  DeprecationWarning, 2)

    def attention(inputs, outputs) -> int:
        query, key, value = (part.type().sizes() for part in inputs[:3])
        return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])

    return FlopAnalyzer(model, inputs).set_op_handle(
        'aten::scaled_dot_product_attention', attention)
