# Copyright (c) dms_razor contributors. All rights reserved.
"""Proves a search space on the network itself, before it is used.

A copy of the network is pruned at random; the pruned copy must compute what
the masked network computes. Where it does not (code with channel counts of
its own, an operation that is no function of its channels alone) the channels
involved are fixed and named, so that a wrong subnet cannot come out later.
"""
import copy
import sys
from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from .labels import compress, core
from .space import Space

#: Largest difference over largest output that rounding can explain (the
#: exact networks differ by about 1e-6).
TOLERANCE = 1e-4
#: At most this many repairs; a network needs one for each kind of module.
MOST_REPAIRS = 64


def check_space(model: nn.Module, inputs: Tuple, forward: Callable, builder,
                space: Space) -> Space:
    """Check a space and fix what does not hold.

    Args:
        model (nn.Module): The network.
        inputs (tuple): Example inputs.
        forward (Callable): How it is run.
        builder (SpaceBuilder): Builds the space anew after a repair.
        space (Space): The space to check.

    Returns:
        Space: A space that holds.

    Raises:
        RuntimeError: The network and its pruned copy differ and no repair
            helps.
    """
    probe = _scrambled(model)
    for _ in range(MOST_REPAIRS):
        problem = _problem(probe, inputs, forward, space)
        if problem is None:
            return space
        space = _repair(probe, inputs, forward, builder, space, problem)
    raise RuntimeError(
        f'the search space of {type(model).__name__} does not hold after '
        f'{MOST_REPAIRS} repairs; the last problem: {problem}. Declare the '
        'units around it fixed.')


def _scrambled(model: nn.Module) -> nn.Module:
    """A copy in eval mode without zeros that would hide a difference."""
    probe = copy.deepcopy(model)
    for module in probe.modules():
        module.training = False
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in probe.named_parameters():
            if tensor.is_floating_point() and tensor.dim() <= 1 or bool(
                (tensor == 0).all()):
                noise = torch.rand(tensor.shape, generator=generator)
                scale = .5 if name.endswith('weight') else -.1
                tensor.copy_(scale + noise * abs(scale) * 2)
    return probe


def _problem(probe: nn.Module, inputs: Tuple, forward: Callable,
             space: Space) -> Optional[Tuple[str, str]]:
    """(module, reason) of what does not hold, or None."""
    from ..masking import attach, unmask
    from ..subnet.slicing import slice_model
    keep = space.random_keep(torch.Generator().manual_seed(1))
    subnet = slice_model(probe, space, keep)
    masks = keep.to(next(probe.parameters()))
    attach(probe, space, lambda: masks)
    try:
        with torch.no_grad():
            expected = _tensors(forward(probe, *inputs))
    finally:
        unmask(probe)
    try:
        with torch.no_grad():
            found = _tensors(forward(subnet, *inputs))
    except Exception as error:
        path = _failing_module(subnet)
        return path, f'{type(error).__name__}: {error}'.split('\n')[0]
    for a, b in zip(expected, found):
        if a.shape != b.shape:
            return '', f'an output has shape {tuple(b.shape)} instead of ' \
                f'{tuple(a.shape)}'
        difference = (a - b).abs().max() / a.abs().max().clamp(min=1e-30)
        if not bool(difference < TOLERANCE):
            return '', f'outputs differ by {float(difference):.1e}'
    return None


def _tensors(out: Any) -> List[Tensor]:
    return [
        t for t in tree_flatten(out)[0]
        if isinstance(t, Tensor) and t.is_floating_point() and t.numel()
    ]


def _failing_module(subnet: nn.Module) -> str:
    """Path of the innermost module in the traceback being handled."""
    paths = {id(module): path for path, module in subnet.named_modules()}
    path, frame = '', sys.exc_info()[2]
    while frame is not None:
        owner = frame.tb_frame.f_locals.get('self')
        if isinstance(owner, nn.Module):
            path = paths.get(id(owner), path)
        frame = frame.tb_next
    return path


def _repair(probe, inputs, forward, builder, space,
            problem: Tuple[str, str]) -> Space:
    """Let a module's own numbers follow, else fix the channels involved."""
    path, why = problem
    parts = path.split('.')
    callers = ['.'.join(parts[:n]) for n in range(len(parts), 0, -1)]
    if path and (any(_follow_numbers(builder, caller)
                     for caller in callers) or _follow_outputs(builder, path)):
        return builder.build()
    recorder = builder.recorder
    for caller in callers:
        labels = _labels_within(builder, caller)
        if path and len(labels):
            kind = type(recorder.modules[path]).__name__
            recorder.variables.fix(
                labels, f'{kind} "{path}" cannot run with fewer channels '
                f'({why})')
            return builder.build()
    culprit = _bisect(probe, inputs, forward, space)
    if culprit is None:
        raise RuntimeError(
            f'the pruned network differs from the masked one ({why}), and '
            'no single unit explains it. Declare units fixed until it agrees '
            'and please report the network.')
    unit = space.units[culprit]
    if unit.kind == 'depth':
        builder.keep_blocks(unit.members, f'removing blocks fails: {why}')
    else:
        start = space.layout.slice_of(culprit)
        elements = set(range(start.start, start.stop))
        classes = [
            c for c, e in enumerate(builder.elements.own.tolist())
            if e in elements
        ]
        recorder.variables.fix(
            torch.tensor(classes),
            f'pruning it changes what the network computes ({why})')
    return builder.build()


def _follow_numbers(builder, path: str) -> bool:
    """Attributes of a module that give the size of a piece it cuts off.

    A module such as Res2Net's splits its channels by a number of its own;
    that number follows the pruned width, in all modules of this class.
    """
    kind = type(builder.recorder.modules[path])
    new = False
    for piece in builder.facts.pieces:
        module = builder.recorder.modules[piece.module]
        if type(module) is not kind or piece.module in builder.followed:
            continue
        for name, number in vars(module).items():
            if type(number) is int and number == piece.size > 1:
                numbers = builder.extra_attributes.setdefault(piece.module, {})
                numbers.setdefault(name, piece.labels)
                new = True
    builder.followed.update(builder.extra_attributes)
    return new


def _follow_outputs(builder, path: str) -> bool:
    """Attributes that tell a module's callers how wide its output is.

    A backbone such as Swin's shapes the output of a stage by a number that
    it asks the stage for; such numbers follow the width of the output.
    """
    if path in builder.asked:
        return False
    builder.asked.add(path)
    recorder, widths = builder.recorder, {}
    found = builder.extra_attributes
    before = sum(map(len, found.values()))
    for call in recorder.calls:
        module = recorder.modules[call.path]
        if not call.path.startswith(path) or len(call.outputs) != 1:
            continue
        labels = recorder.nodes[call.outputs[0]].labels[0]
        classes = torch.from_numpy(builder.finder.classes[labels.numpy()])
        vector = core(compress(classes)).reshape(-1)
        widths[len(vector)] = vector
        if call.path in builder.replacements or not len(
                list(module.children())):
            continue  # a layer's own numbers follow its weight
        for name, number in vars(module).items():
            if type(number) is int and number == len(vector) > 1:
                found.setdefault(call.path, {}).setdefault(name, vector)
    for name, numbers in vars(recorder.modules[path]).items():
        # Lists of widths, not of indices or kernel sizes.
        if isinstance(numbers, (list, tuple)) and numbers and all(
                type(number) is int and number >= 8 for number in numbers):
            for place, number in enumerate(numbers):
                if number in widths:
                    found.setdefault(path,
                                     {}).setdefault(f'{name}.{place}',
                                                    widths[number])
    return sum(map(len, found.values())) > before


def _labels_within(builder, path: str) -> Tensor:
    """Prunable variables that operations of a module's own code touch."""
    recorder = builder.recorder
    labels = []
    for node in recorder.nodes:
        if node.call >= 0 and recorder.calls[node.call].path == path:
            labels += node.labels
            for source in node.inputs:
                labels += recorder.nodes[source].labels
    if not labels:
        return torch.zeros(0, dtype=torch.long)
    flat = torch.cat([core(x).reshape(-1) for x in labels]).unique()
    return flat[builder.elements.index(flat) >= 0]


def _bisect(probe, inputs, forward, space: Space) -> Optional[int]:
    """A unit whose pruning alone makes the networks differ."""
    for number in range(len(space.units)):
        single = _OnlyUnit(space, number)
        if _problem(probe, inputs, forward, single) is not None:
            return number
    return None


class _OnlyUnit:
    """A space of which one unit alone is pruned."""

    def __init__(self, space: Space, number: int) -> None:
        self._space, self._number = space, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def random_keep(self, generator: torch.Generator) -> Tensor:
        """Everything stays but elements of the one unit."""
        keep = self._space.random_keep(generator)
        alone = torch.ones_like(keep)
        place = self._space.layout.slice_of(self._number)
        alone[place] = keep[place]
        return alone
