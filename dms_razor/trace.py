# Copyright (c) dms_razor contributors. All rights reserved.
"""``trace``: the way in to tracing."""
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import nn

from .counting import count_each
from .network import run_model, untouched
from .proof.check import check_space
from .space import Space
from .tracing import RULES
from .tracing.builder import SpaceBuilder
from .tracing.recorder import Recorder


def trace(model: nn.Module,
          example_inputs: Any,
          forward: Optional[Callable] = None,
          units: Optional[Dict[str, dict]] = None,
          width: bool = True,
          depth: bool = True,
          heads: bool = True,
          qk: bool = True,
          v: bool = True,
          check: bool = True) -> Space:
    """Find everything that can be pruned in a network.

    The network runs once on the example input, in eval mode and without
    gradients; its weights, buffers and training flags are as before.

    Args:
        model (nn.Module): Any network.
        example_inputs (Tensor | tuple): What one forward pass takes, of the
            shape MACs are to be counted for. A batch of one is enough.
        forward (Callable, optional): Called as ``forward(model, *inputs)``,
            where the model's own ``forward`` does not reach all layers.
        units (dict[str, dict], optional): Name pattern (as in fnmatch) of
            units or layers -> ``fixed=True``, ``divisor`` (channels that go
            together), ``least`` and ``most`` (bounds on what is kept, in
            channels a group, or in blocks), ``choices`` (the numbers that
            may be kept, counted in the same way). Later patterns win.
        width (bool): Whether widths are searched. Defaults to True.
        depth (bool): Whether depths are searched. Defaults to True.
        heads (bool): Whether attention heads are searched, by default True.
        qk (bool): Whether query/key dims are searched, by default True.
        v (bool): Whether value dims are searched. Defaults to True.
        check (bool): Prune a copy at random and compare it with the masked
            network; what does not agree is fixed and named. Defaults to
            True.

    Returns:
        Space: The search space.

    Raises:
        RuntimeError: The forward fails on the example input.
        TypeError: A switch is no bool.
        ValueError: Nothing can be pruned, a pattern matches nothing, the
            forward returns no tensor, or the network is compiled.
    """
    wanted = _switches(width=width, depth=depth, heads=heads, qk=qk, v=v)
    example_inputs = tuple(example_inputs) if isinstance(
        example_inputs, (tuple, list)) else (example_inputs, )
    forward = forward or run_model
    recorder = record(model, example_inputs, forward)
    builder = SpaceBuilder(recorder, units, wanted)
    space = builder.build()
    if check:
        space = check_space(model, example_inputs, forward, builder, space)
    space.example_inputs = example_inputs
    first = [x for x in example_inputs if isinstance(x, torch.Tensor)]
    space.input_shape = tuple(first[0].shape) if first else ()
    space.batch_size = recorder.batch_size
    space.counted = count_each(model, example_inputs, forward)
    return space


def _switches(**kinds: bool) -> List[str]:
    """The kinds of units that are searched."""
    for kind, switch in kinds.items():
        if not isinstance(switch, bool):  # 'no' would switch it on
            raise TypeError(f'{kind}={switch!r} is neither True nor False; it '
                            f'says whether {kind} is searched')
    return [kind for kind, switch in kinds.items() if switch]


def record(model: nn.Module, example_inputs: Tuple,
           forward: Callable) -> Recorder:
    """Run ``forward`` once and record it, leaving no mark on the model."""
    if isinstance(model, torch.jit.ScriptModule) or any(
            hasattr(module, '_orig_mod') for module in model.modules()):
        raise ValueError(
            f'this {type(model).__name__} was compiled or scripted, so that '
            'its layers cannot be masked; search the network that it was '
            'made from (torch.compile keeps it as _orig_mod), and compile '
            'the subnet')
    recorder = Recorder(model, RULES)
    name = type(model).__name__
    try:
        with untouched(model):
            recorder.run(forward, example_inputs)
    except Exception as error:
        shapes = [
            tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            for x in example_inputs
        ]
        raise RuntimeError(
            f'the forward of {name} fails on the example input {shapes} '
            f'({type(error).__name__}: {error}). Give an example input of '
            'the shape that the network takes.') from error
    if not recorder.output_nodes:
        raise ValueError(
            f'the forward of {name} returns no floating-point tensor that '
            'depends on its input, so that nothing can be compared. Give a '
            'forward that returns the features or scores of the network.')
    return recorder
