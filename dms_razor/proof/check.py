# Copyright (c) dms_razor contributors. All rights reserved.
"""Proves a search space on the network itself, before it is used.

A copy of the network is pruned in several ways; the pruned copy must compute
what the masked network computes, on inputs that are drawn for it. Where it
does not (code with channel counts of its own, an operation that is no
function of its channels alone) the channels involved are fixed and named, so
that a wrong subnet cannot come out later. A unit counts as proved only if the
outputs that were compared depend on it.
"""
import sys
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..space import Proof, Space
from ..subnet.slicing import slice_model
from ..tracing.recorder import Recorder
from ..tracing.training import TrainMode
from .compare import TOLERANCES, compare
from .probe import Probe, Probes, strengths
from .repair import leave_alone, repair
from .trials import trial, trials

#: At most this many repairs; a network needs one for each kind of module.
MOST_REPAIRS = 64
#: What an element must move of a slice's largest entry to be seen, over what
#: rounding explains.
SEEN = 100
#: How far subnets may be apart, over what the last digit of the parameters
#: moves: sums of another order round a few times as much.
AMPLIFIED = 30


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
                probe_inputs: Optional[Tuple] = None,
                training: Optional[TrainMode] = None) -> Space:
    """Check a space and fix what does not hold.

    Args:
        model (nn.Module): The network to prove it on.
        inputs (tuple): Example inputs, which others are drawn from.
        forward (Callable): How it is run.
        builder (SpaceBuilder): Builds the space anew after a repair.
        space (Space): The space to check.
        probe_inputs (tuple, optional): Inputs to prove it on, as they are.
        training (TrainMode, optional): How it is trained; what was recorded
            in train mode is proved there too. Where that does not work, it is
            told so and the space is what holds in eval mode.

    Returns:
        Space: A space that holds, with its :attr:`Space.proof`.

    Raises:
        RuntimeError: The network and its pruned copy differ and no repair
            helps.
        ValueError: Nothing is left that can be pruned.
    """
    checker = Checker(builder.recorder, inputs, forward, probe_inputs)
    unproved: Dict[str, str] = {}
    for _ in range(MOST_REPAIRS):
        problem = checker.first_problem(space)
        if problem is None and training is not None and training.to_prove:
            checked = _check_training(training, checker, builder, space)
            if checked is not space:
                space = checked
                continue
        if problem is None:
            problem = checker.go_on(space)
        if problem is not None:
            space = repair(checker, builder, space, problem)
            continue
        missing = checker.unproved()
        if not missing:
            space.proof = checker.proof(space, unproved)
            return space
        reason = f'the self-check cannot prove it: {checker.silence}'
        unproved.update((space.units[u].name, reason) for u in missing)
        space = leave_alone(builder, space, missing, reason)
    raise RuntimeError(
        f'the search space of {type(model).__name__} does not hold after '
        f'{MOST_REPAIRS} repairs; the last problem: {problem.reason}. Declare '
        'the units around it fixed.')


def _check_training(training: TrainMode, checker: 'Checker', builder,
                    space: Space) -> Space:
    """The same in train mode: the space if it holds there, else a repair.

    What is proved there is proved for ``checker`` as well.
    """
    try:
        if training.checker is None:
            training.checker = Checker(checker.recorder, *training.probed(),
                                       training, checker.probes)
        other = training.checker
        problem = other.first_problem(space, checker.proved)
        if problem is not None:
            return repair(other, builder, space, problem)
        if not other.subnets:
            raise RuntimeError(other.silence)
        checker.proved |= other.proved
        checker.error = max(checker.error, other.error)
        training.proved = True
    except Exception as error:
        training.failed(error)
    return space


class Checker:
    """Compares masked with pruned copies of a network.

    Args:
        recorder (Recorder): The recording of the network.
        inputs (tuple): Example inputs.
        forward (Callable): How it is run.
        probe_inputs (tuple, optional): Inputs to run it on, as they are.
        training (TrainMode, optional): Compare in train mode.
        like (Probes, optional): See :class:`.probe.Probes`.

    Attributes:
        probe (Probe): What :meth:`problem` compares on.
        proved (Tensor): Which units :meth:`first_problem` has proved, bool
            ``[U]``.
        silence (str): Why others are not, in words.
    """

    def __init__(self,
                 recorder: Recorder,
                 inputs: Tuple,
                 forward: Callable,
                 probe_inputs: Optional[Tuple] = None,
                 training: Optional[TrainMode] = None,
                 like: Optional[Probes] = None) -> None:
        self.recorder, self.training = recorder, training
        self.name = type(recorder.model).__name__
        self.probes = Probes(recorder.model, inputs, forward, probe_inputs,
                             training and training.mode, like)
        self.probe: Optional[Probe] = next(iter(self.probes), None)
        self.same_twice = False  # not known yet, see repair.py
        self._begin()

    def _begin(self) -> None:
        self.proved = torch.zeros(0, dtype=torch.bool)
        self.error, self.subnets, self.precision = 0., 0, 'nothing'
        self.silence = self.probes.problem
        self._rest = iter(self.probes)

    def first_problem(self,
                      space: Space,
                      known: Optional[Tensor] = None) -> Optional[Problem]:
        """The first of some subnets that does not hold; None if all do.

        They are compared on the first probe that tells anything.

        Args:
            space (Space): The space.
            known (Tensor, optional): Units that need no proof of moving the
                outputs, bool ``[U]``.
        """
        self._begin()
        # A unit of which nothing may go is no question.
        smallest = trial(space, 1)
        self.proved = torch.tensor([
            bool(smallest[space.layout.slice_of(unit)].all())
            for unit in range(len(space.units))
        ]) if known is None else known.clone()
        for self.probe in self._rest:
            problem = self._first_problem(space)
            if problem is not None or any(self.probe.telling):
                return problem
        return None

    def go_on(self, space: Space) -> Optional[Problem]:
        """The same on other probes, as long as units are not proved."""
        while not self.proved.all():
            self.probe, probe = next(self._rest, None), self.probe
            if self.probe is None:
                self.probe = probe
                return None
            problem = self._first_problem(space)
            if problem is not None:
                return problem
        return None

    def _first_problem(self, space: Space) -> Optional[Problem]:
        probe = self.probe
        selections = trials(space, self.recorder, self.training is not None)
        # What does not even run shows at once, before all that is dear.
        found = self._outputs(space, selections[0])
        if isinstance(found, Problem):
            return found
        if probe.telling is None:
            probe.judge(probe.run(probe.network))
        if not any(probe.telling):
            self.silence = probe.silence
            return None
        self.precision = probe.precision
        self.silence = 'pruning it changes nothing that is returned'
        for number, selection in enumerate(selections):
            if number:
                found = self._outputs(space, selection)
            if isinstance(found, Problem):
                return found
            seen, expected = self._seen(space, selection)
            problem = self._difference(space, selection, expected, found)
            if problem is not None:
                return problem
            self.proved |= seen
            self.subnets += 1
        return self._one_by_one(space)

    def _seen(self, space: Space,
              selection: Tensor) -> Tuple[Tensor, List[Tensor]]:
        """Which pruned units move the outputs that tell something, bool
        ``[U]``, in the very subnet that is compared, and its outputs."""
        probe, masks = self.probe, self.probe.masks(selection)
        seen = torch.zeros_like(self.proved)
        pruned = torch.zeros(space.layout.U).index_add_(
            0, space.layout.unit_of_element.cpu(), (~selection).float()) > 0
        if not (pruned & ~self.proved).any():
            return seen, probe.masked(space, masks)
        masks.requires_grad_()
        try:
            outputs = probe.masked(space, masks, grad=True)
            found = strengths(outputs, probe.telling, masks) > self._least
        except Exception:  # e.g. it hands its outputs to NumPy
            return seen, probe.masked(space, masks.detach())
        moved = torch.zeros(space.layout.U).index_add_(
            0, space.layout.unit_of_element.cpu(),
            found.float().cpu()) > 0
        return moved & pruned, outputs

    def _one_by_one(self, space: Space) -> Optional[Problem]:
        """The same for the units that did not show, with no other pruned.

        One channel that stays behind a norm hides all that is in front of it.
        """
        smallest = trial(space, 1)
        whole = torch.ones_like(smallest)
        before = None
        for unit in (~self.proved).nonzero().flatten().tolist():
            some, place = whole.clone(), space.layout.slice_of(unit)
            some[place] = smallest[place]
            found = self._outputs(space, some)
            if isinstance(found, Problem):
                return found
            expected = self.probe.masked(space, self.probe.masks(some))
            problem = self._difference(space, some, expected, found)
            if problem is not None:
                return problem
            if before is None:
                before = self._telling(self.probe.run(self.probe.network))
            self.proved[unit] = compare(before, self._telling(expected),
                                        self.probe.tolerance)[0] > self._least
        return None

    @property
    def _least(self) -> float:
        """What a unit has to move the outputs to be seen."""
        return SEEN * self.probe.tolerance.share

    def _telling(self, outputs: List[Tensor]) -> List[Tensor]:
        return [t for t, tells in zip(outputs, self.probe.telling) if tells]

    def unproved(self) -> List[int]:
        """Units of which :meth:`first_problem` has shown nothing."""
        return (~self.proved).nonzero().flatten().tolist()

    def proof(self, space: Space, unproved: Dict[str, str]) -> Proof:
        """What :meth:`first_problem` has shown."""
        return Proof(self.name, len(space.units), self.subnets, self.precision,
                     self.error, unproved)

    def problem(self, space: Space, selection: Tensor) -> Optional[Problem]:
        """What is wrong with one subnet, bool ``[E]``, or None."""
        found = self._outputs(space, selection)
        return found if isinstance(found, Problem) else self._difference(
            space, selection,
            self.probe.masked(space, self.probe.masks(selection)), found)

    def _outputs(self, space: Space,
                 selection: Tensor) -> Union[Problem, List[Tensor]]:
        """What a subnet returns, or why it does not run."""
        subnet = slice_model(self.probe.network, space, selection)
        try:
            return self.probe.run(subnet)
        except Exception as error:
            return Problem(
                _failing_module(subnet),
                f'{type(error).__name__}: {error}'.split('\n')[0], selection)

    def _difference(self, space: Space, selection: Tensor,
                    expected: List[Tensor],
                    found: List[Tensor]) -> Optional[Problem]:
        """What is wrong with a subnet's outputs, if anything."""
        probe = self.probe
        error, reason = compare(expected, found, probe.tolerance)
        if reason is not None and probe.lower():
            self.precision = probe.precision
            error, reason = compare(expected, found, probe.tolerance)
        if reason is not None and error < TOLERANCES[torch.float32].share:
            amplified = probe.rounding(space, probe.masks(selection), expected)
            share = min(AMPLIFIED * amplified, TOLERANCES[torch.float32].share)
            if share > probe.tolerance.share:
                self.precision = f'{probe.precision} (its rounding is ' \
                    f'amplified to {amplified:.0e})'
                error, reason = compare(expected, found,
                                        replace(probe.tolerance, share=share))
        if reason is not None:
            return Problem(None, reason, selection)
        self.error = max(self.error, error)
        return None


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
