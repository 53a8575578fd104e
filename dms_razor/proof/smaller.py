# Copyright (c) dms_razor contributors. All rights reserved.
"""Smaller images on which a network does the same: a proof that costs less.

Whether a subnet is right is a matter of channels; how many positions an image
has decides what the proof of it costs. Smaller images count as well if the
network runs the very same operations on them: a window that is padded or a
head that is skipped there makes another list, and then the example's own size
is taken.
"""
from typing import Any, Callable, ContextManager, List, Optional, Tuple

from torch import Tensor

from ..network import map_tensors, tensors_of, untouched
from ..tracing import RULES
from ..tracing.record import OpCall
from ..tracing.recorder import Recorder
from ..tracing.training import TrainMode, operations

#: MACs of a sample from which on smaller images are worth a try.
DEAR = 10**9
#: No side of an image gets smaller than this.
LEAST_SIDE = 48


def smaller_inputs(recorder: Recorder, inputs: Tuple, forward: Callable,
                   training: TrainMode) -> Tuple:
    """Example inputs of fewer positions that run the same operations.

    Args:
        recorder (Recorder): The recording on the example inputs.
        inputs (tuple): The example inputs.
        forward (Callable): How the network is run.
        training (TrainMode): How it is trained; its inputs get smaller too
            where that changes no operation either.

    Returns:
        tuple: The inputs; the example itself where there are none.
    """
    model, again = recorder.model, recorder.again
    for divisor in (8, 4, 2):
        found = _divided(inputs, divisor)
        if found is None or not _same(recorder, found, forward,
                                      untouched(model)):
            continue
        if again is not None and not training.given:
            fewer = _divided(training.inputs, divisor)
            if fewer is not None and _same(again, fewer, training.forward,
                                           training.mode(model)):
                training.inputs = fewer
        return found
    return inputs


def _divided(inputs: Any, divisor: int) -> Optional[Any]:
    """Every ``divisor``-th row and column of images ``[…, C, H, W]``."""
    images = [t for t in tensors_of(inputs) if _is_image(t)]
    if not images or any(side % divisor or side // divisor < LEAST_SIDE
                         for t in images for side in t.shape[-2:]):
        return None
    return map_tensors(
        lambda t: t[..., ::divisor, ::divisor].contiguous()
        if _is_image(t) else t, inputs)


def _is_image(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() >= 4


def _same(recorder: Recorder, inputs: Tuple, forward: Callable,
          mode: ContextManager) -> bool:
    """Whether another run consists of the operations of a recording.

    Maps do not shrink to a single row or column, which hides what is
    computed over positions, and which a norm may refuse.
    """
    other = _Operations(recorder.model, RULES)
    try:
        with mode:
            other.run(forward, inputs)
    except Exception:  # e.g. it has a parameter for each position
        return False
    return operations(other) == operations(recorder) and all(
        min(small.shape[-2:]) > 1 or min(node.shape[-2:]) < 2
        for small, node in zip(other.nodes, recorder.nodes)
        if len(small.shape) >= 4)


class _Operations(Recorder):
    """A recording of operations whose labels nobody will ask for."""

    def _apply_rule(self, call: OpCall) -> List[Optional[Tensor]]:
        if not all(t.is_floating_point() for t in call.outs):
            return super()._apply_rule(call)  # not all of these are followed
        if not hasattr(self, '_any'):
            self._any = self.variables.new_fixed('not asked for')
        return [self._any.expand(t.shape) for t in call.outs]
