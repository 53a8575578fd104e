# Copyright (c) dms_razor contributors. All rights reserved.
"""Proves a search space on the network itself, before it is used.

A copy of the network is pruned in several ways; the pruned copy must compute
what the masked network computes. Where it does not (code with channel counts
of its own, an operation that is no function of its channels alone) the
channels involved are fixed and named, so that a wrong subnet cannot come out
later.
"""
import copy
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..core.layout import Unit
from ..masking.attach import attach, unmask
from ..network import tensors_of, untouched
from ..space import Space
from ..subnet.slicing import slice_model
from ..tracing.training import TrainMode
from .noise import EqualNoise
from .repair import repair

#: Largest difference over largest output that rounding can explain (the
#: exact networks differ by about 1e-6).
TOLERANCE = 1e-4
#: At most this many repairs; a network needs one for each kind of module.
MOST_REPAIRS = 64
#: Most parameters of a network that is copied in double precision.
MOST_DOUBLE = 2 * 10**8
#: Subnets that a space is tried on.
TRIALS = 3


@dataclass
class Problem:
    """What does not hold.

    Attributes:
        module (str | None): Path of the module that fails, None if the
            networks run but differ.
        reason (str): In words.
        selection (Tensor): The subnet, bool ``[E]``.
    """
    module: Optional[str]
    reason: str
    selection: Tensor


def check_space(model: nn.Module,
                inputs: Tuple,
                forward: Callable,
                builder,
                space: Space,
                training: Optional[TrainMode] = None) -> Space:
    """Check a space and fix what does not hold.

    Args:
        model (nn.Module): The network.
        inputs (tuple): Example inputs.
        forward (Callable): How it is run.
        builder (SpaceBuilder): Builds the space anew after a repair.
        space (Space): The space to check.
        training (TrainMode, optional): How it is trained; what was recorded
            in train mode is proved there too. Where that does not work, it is
            told so and the space is what holds in eval mode.

    Returns:
        Space: A space that holds.

    Raises:
        RuntimeError: The network and its pruned copy differ and no repair
            helps.
    """
    checker = Checker(model, inputs, forward)
    for _ in range(MOST_REPAIRS):
        problem = checker.first_problem(space)
        if problem is None:
            if training is None or not training.to_prove:
                return space
            checked = _check_training(training, builder, space)
            if checked is space:
                return space
            space = checked
        else:
            space = repair(checker, builder, space, problem)
    raise RuntimeError(
        f'the search space of {type(model).__name__} does not hold after '
        f'{MOST_REPAIRS} repairs; the last problem: {problem.reason}. Declare '
        'the units around it fixed.')


def _check_training(training: TrainMode, builder, space: Space) -> Space:
    """The same in train mode: the space if it holds there, else a repair."""
    try:
        if training.checker is None:
            training.checker = Checker(training.model, training.probe_inputs(),
                                       training.forward, training)
        problem = training.checker.first_problem(space)
        if problem is not None:
            return repair(training.checker, builder, space, problem)
        training.proved = True
    except Exception as error:
        training.failed(error)
    return space


class Checker:
    """Compares masked with pruned copies of a network.

    Args:
        model (nn.Module): The network.
        inputs (tuple): Example inputs.
        forward (Callable): How it is run.
        training (TrainMode, optional): Compare in train mode.
    """

    def __init__(self,
                 model: nn.Module,
                 inputs: Tuple,
                 forward: Callable,
                 training: Optional[TrainMode] = None) -> None:
        self.training = training
        self.model, self.forward = model, forward
        self.probe, self.inputs = _scrambled(model), inputs
        self.tolerance = TOLERANCE
        self.same_twice = False  # not known yet, see repair.py
        # In float64 rounding explains no difference worth mentioning, not
        # even where it is amplified or decides between neighbours (top-k).
        self._original = inputs
        if sum(p.numel() for p in self.probe.parameters()) <= MOST_DOUBLE:
            self.probe.double()
            self.inputs = tree_map_only(
                Tensor, lambda x: x.double()
                if x.is_floating_point() else x, inputs)

    def _keep_types(self) -> bool:
        """Go back to the network's own types; False if that is the case."""
        if self.inputs is self._original:
            return False
        self.probe, self.inputs = _scrambled(self.model), self._original
        dtype = next(self.probe.parameters()).dtype
        if dtype in (torch.float16, torch.bfloat16):
            self.tolerance = .1
        return True

    def first_problem(self, space: Space) -> Optional[Problem]:
        """The first of some subnets that does not hold; None if all do."""
        trials = range(TRIALS)
        if self.training is not None:  # widths, then blocks: the rest repeats
            trials = range(1 + bool(space.blocks))
        tried = (
            self.problem(space, trial(space, number)) for number in trials)
        return next((problem for problem in tried if problem), None)

    def problem(self, space: Space, selection: Tensor) -> Optional[Problem]:
        """What is wrong with one subnet, or None."""
        subnet = slice_model(self.probe, space, selection)
        masks = selection.to(next(self.probe.parameters()))
        attach(self.probe, space, lambda: masks)
        try:
            expected = self._run(self.probe)
        except Exception:  # e.g. it casts to single precision somewhere
            if self._keep_types():
                return self.problem(space, selection)
            raise
        finally:
            unmask(self.probe)
        try:
            found = self._run(subnet)
        except Exception as error:
            return Problem(
                _failing_module(subnet),
                f'{type(error).__name__}: {error}'.split('\n')[0], selection)
        reason = self._compare(expected, found)
        return None if reason is None else Problem(None, reason, selection)

    def _run(self, model: nn.Module) -> List[Tensor]:
        with self._mode(model):
            out = self.forward(model, *self.inputs)
        return [t for t in tensors_of(out) if t.is_floating_point()]

    @contextmanager
    def _mode(self, model: nn.Module) -> Iterator[None]:
        if self.training is None:
            with untouched(model):
                yield
        else:
            with self.training.mode(model), EqualNoise():
                yield

    def _compare(self, expected: List[Tensor],
                 found: List[Tensor]) -> Optional[str]:
        if len(expected) != len(found):
            return f'{len(found)} outputs instead of {len(expected)}'
        for a, b in zip(expected, found):
            if a.shape != b.shape:
                return f'an output has shape {tuple(b.shape)} instead of ' \
                    f'{tuple(a.shape)}'
            if a.numel() == 0:
                continue
            a, b = (x.double().nan_to_num(0, 0, 0) for x in (a, b))
            difference = (a - b).abs().max() / a.abs().max().clamp(min=1e-30)
            if difference > self.tolerance:
                return f'outputs differ by {float(difference):.1e}'
        return None


def trial(space: Space, number: int) -> Tensor:
    """A subnet to try, bool ``[E]``.

    Numbers of channels are drawn for each unit alone: with equal shares code
    that computes with channel counts would often come out right by chance.

    Args:
        space (Space): The space.
        number (int): 0 keeps all blocks; 1 is the smallest network; others
            are random.
    """
    generator = torch.Generator().manual_seed(number)

    def kept(unit: Unit) -> int:
        most = max(unit.least, unit.most - (unit.most == unit.size))
        drawn = torch.randint(unit.least, most + 1, (), generator=generator)
        if number == 1:
            return unit.least
        whole = number == 0 and unit.kind == 'depth'
        return unit.size if whole else int(drawn)

    return space.draw(kept, generator)


def _scrambled(model: nn.Module) -> nn.Module:
    """A copy in eval mode without numbers that would hide a difference.

    Zeros and tiny scales hide what is behind them; weights far from unit
    gain let what comes early fade away behind biases.
    """
    generator = torch.Generator().manual_seed(0)
    others = {}  # they take the place of the parameters in the copy
    for name, old in model.named_parameters():
        if old.is_floating_point():
            noise = torch.rand(old.shape, generator=generator)
            others[id(old)] = type(old)(_spread(name, noise).to(old),
                                        old.requires_grad)
    probe = copy.deepcopy(model, others)
    for module in probe.modules():
        module.training = False
    return probe


def _spread(name: str, noise: Tensor) -> Tensor:
    """Numbers for a parameter of this name from noise in [0, 1]."""
    if noise.numel() == max(noise.shape, default=1):  # one number a channel
        return noise * .2 - .1 if 'bias' in name else noise + .5
    if noise.shape[0] == 1:  # e.g. position embeddings
        return noise * 2 - 1
    gain = (2 * noise.shape[0] / max(noise.numel(), 1))**.5
    return (noise - .5) * (gain * 12**.5)  # as He's initialisation


def _failing_module(subnet: nn.Module) -> str:
    """Path of the innermost module in the traceback being handled."""
    paths = {id(module): path for path, module in subnet.named_modules()}
    path, frame = '', sys.exc_info()[2]
    while frame is not None:
        owner: Any = frame.tb_frame.f_locals.get('self')
        if isinstance(owner, nn.Module):
            path = paths.get(id(owner), path)
        frame = frame.tb_next
    return path
