# Copyright (c) dms_razor contributors. All rights reserved.
"""Copies of a network, with weights and inputs that hide no difference."""
import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..masking.attach import attach, unmask
from ..masking.copying import copy_network
from ..network import map_tensors, untouched
from ..space import Space
from .compare import (TOLERANCES, Tolerance, compare, evidence, numbers_of,
                      scales)
from .inputs import draw, nudge
from .noise import EqualNoise
from .precision import (LowPrecision, double_network, double_precision,
                        to_double)

#: Most parameters of a network that is copied in double precision.
MOST_DOUBLE = 2 * 10**8


class _KeepGradients(TorchFunctionMode):
    """A forward that switches gradients off (a detector's prediction) goes on
    with them: the proof asks what its outputs depend on."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch._C._set_grad_enabled:
            return None
        return function(*args, **(kwargs or {}))


class Probe:
    """A copy of a network in eval mode and inputs to compare it on.

    Args:
        network (nn.Module): The copy.
        inputs (tuple): What it is run on.
        others (tuple): Other inputs, on which it returns something else.
        forward (Callable): How it is run.
        double (bool): Whether it computes in double precision.
        reason (str): Why it does not, if it does not.
        mode (Callable, optional): ``mode(network)`` is the context that
            trains it. By default it is run in eval mode.

    Attributes:
        precision (str): What it computes in, and why it is not 'float64'.
        tolerance (Tolerance): What rounding explains.
        telling (list[bool] | None): Which of the outputs can tell networks
            apart; None before :meth:`judge`.
        silence (str): Why none can, in words.

    Raises:
        Exception: Any, if it cannot run in this precision.
    """

    def __init__(self,
                 network: nn.Module,
                 inputs: Tuple,
                 others: Tuple,
                 forward: Callable,
                 double: bool,
                 reason: str = '',
                 mode: Optional[Callable] = None) -> None:
        self.network, self.forward, self.double = network, forward, double
        self._mode = mode
        dtype = float_type(network)
        self.precision = str(dtype).split('.')[-1]
        if reason:
            self.precision += f' ({reason})'
        self.tolerance: Tolerance = TOLERANCES.get(dtype,
                                                   TOLERANCES[torch.float32])
        self.telling: Optional[List[bool]] = None
        self.silence = ''
        self._all_double = not double
        self.inputs, inputs = (
            map_tensors(to_double, x) if double else x
            for x in (others, inputs))
        self._others = self.run(network)
        self.inputs = inputs

    def judge(self, outputs: List[Tensor]) -> None:
        """See which of the whole network's outputs tell something."""
        outputs = [t.detach() for t in outputs]
        self.telling = evidence(outputs, self._others)
        if not any(self.telling):
            self.silence = _silence(outputs)

    def run(self, network: nn.Module, grad: bool = False) -> List[Tensor]:
        """What a network of this precision returns; it is as before then."""
        precision = double_precision() if self.double else nullcontext()
        keep = _KeepGradients() if grad else nullcontext()
        mode = untouched if self._mode is None else self._mode
        # What is drawn in training is the same, however wide the network is.
        noise = nullcontext() if self._mode is None else EqualNoise()
        with mode(network), torch.set_grad_enabled(grad), noise, \
                keep, precision:
            return numbers_of(self.forward(network, *self.inputs))

    def masked(self,
               space: Space,
               masks: Tensor,
               grad: bool = False) -> List[Tensor]:
        """What the network returns under masks ``[E]``."""
        masks = masks.to(next(self.network.parameters()).device)
        attach(self.network, space, lambda: masks)
        try:
            return self.run(self.network, grad=grad)
        finally:
            unmask(self.network)

    def masks(self, selection: Tensor) -> Tensor:
        """A selection as masks, in the network's precision."""
        return selection.to(float_type(self.network))

    def lower(self) -> bool:
        """Whether some operation computes in less than the network does.

        The tolerance is that of its precision from then on.
        """
        if self._all_double or self.tolerance != TOLERANCES[torch.float64]:
            return False
        with LowPrecision() as low:
            self.run(self.network)
        if low.found is None:
            self._all_double = True  # and asked once
            return False
        self.precision = f'float32 ({low.found})'
        self.tolerance = TOLERANCES[torch.float32]
        return True

    @torch.no_grad()
    def rounding(self, space: Space, masks: Tensor,
                 expected: List[Tensor]) -> float:
        """What the last digit of all parameters moves of the outputs.

        Batch norms over two values, and sums that cancel, make much of it.

        Args:
            space (Space): The space.
            masks (Tensor): A subnet's, ``[E]``.
            expected (list[Tensor]): What it returns under them.
        """
        generator = torch.Generator().manual_seed(0)
        before = [(p, p.clone()) for p in self.network.parameters()
                  if p.is_floating_point()]
        try:
            for parameter, _ in before:
                up = torch.rand(parameter.shape, generator=generator) < .5
                step = torch.finfo(parameter.dtype).eps
                parameter.mul_(1 + step * (2 * up.to(parameter) - 1))
            return compare(expected, self.masked(space, masks),
                           replace(self.tolerance, share=math.inf))[0]
        finally:
            for parameter, old in before:
                parameter.copy_(old)


class Probes:
    """The probes of a network; each is made when it is asked for.

    Args:
        model (nn.Module): The network.
        inputs (tuple): Example inputs, which the probes' are drawn from.
        forward (Callable): How it is run.
        given (tuple, optional): Inputs of the probes, instead of drawn ones.
        mode (Callable, optional): See :class:`Probe`.
        like (Probes, optional): Others, whose copies of the network serve as
            well.

    Attributes:
        problem (str): Why the last one could not be made, in words.
    """

    def __init__(self,
                 model: nn.Module,
                 inputs: Tuple,
                 forward: Callable,
                 given: Optional[Tuple] = None,
                 mode: Optional[Callable] = None,
                 like: Optional['Probes'] = None) -> None:
        self.model, self.forward, self.mode = model, forward, mode
        self.problem = ''
        self._copies: Dict[tuple, nn.Module] = {} if like is None else \
            like._copies
        pairs = [(draw(inputs, 0), draw(inputs, 1)),
                 (draw(inputs, 0, True), draw(inputs, 1, True)),
                 (inputs, nudge(inputs, 0))]
        if given is not None:
            pairs = [(given, nudge(given, 0)), (given, draw(given, 0))]
        self._candidates = ((weights, *pair) for weights in (spread, jittered)
                            for pair in pairs)
        self._made: List[Probe] = []

    def __iter__(self) -> Iterator[Probe]:
        """Those that can run, the most telling first."""
        yield from self._made
        for candidate in self._candidates:
            probe = self._try(*candidate)
            if probe is not None:
                self._made.append(probe)
                yield probe

    def _try(self, weights: Callable, inputs: Tuple,
             others: Tuple) -> Optional[Probe]:
        """A probe in double precision if possible, None if it cannot run."""
        many = sum(p.numel() for p in self.model.parameters()) > MOST_DOUBLE
        reason = f'more than {MOST_DOUBLE:,} parameters' if many else ''
        for double in (False, ) if many else (True, False):
            try:
                return Probe(
                    self._copy(weights, double), inputs, others, self.forward,
                    double, reason, self.mode)
            except Exception as error:
                reason = f'{type(error).__name__}: {error}'.split('\n')[0]
        self.problem = f'the forward fails on other numbers, {reason}'
        return None

    def _copy(self, weights: Callable, double: bool) -> nn.Module:
        if (weights, double) not in self._copies:
            network = with_other_weights(self.model, weights)
            self._copies[weights, double] = \
                double_network(network) if double else network
        return self._copies[weights, double]


def _silence(out: List[Tensor]) -> str:
    """Why outputs tell nothing, in words."""
    if not any(bool(t.isfinite().any()) for t in out):
        return 'the outputs are not finite'
    if not any(bool(t.nan_to_num(0, 0, 0).any()) for t in out):
        return 'the outputs are all 0'
    return 'the outputs do not depend on the input'


def float_type(network: nn.Module) -> torch.dtype:
    """The precision of a network's first floating-point parameter."""
    return next(
        (p.dtype for p in network.parameters() if p.is_floating_point()),
        torch.float32)


def strengths(outputs: List[Tensor], telling: List[bool],
              masks: Tensor) -> Tensor:
    """How much each element moves what the network returns, ``[E]``.

    The gradient of a sum with random signs, in which every entry counts by
    what it is measured by in the comparison.

    Args:
        outputs (list[Tensor]): Of :meth:`Probe.masked`, with gradients.
        telling (list[bool]): Which of them count.
        masks (Tensor): The masks.
    """
    generator = torch.Generator().manual_seed(0)
    total = masks.sum() * 0
    for out, tells in zip(outputs, telling):
        if not tells or not out.requires_grad or out.numel() == 0:
            continue
        scale = scales(out)
        signs = torch.rand(out.shape, generator=generator).to(scale) - .5
        weights = torch.where((scale > 0) & out.isfinite(), signs / scale,
                              scale.new_zeros(()))
        total = total + (out.nan_to_num(0, 0, 0) * weights).sum()
    if not total.requires_grad:
        return torch.zeros_like(masks)
    gradient, = torch.autograd.grad(total, masks)
    return gradient.abs().nan_to_num(0, 0, 0)


def with_other_weights(model: nn.Module, weights: Callable) -> nn.Module:
    """A copy in eval mode whose parameters are ``weights(name, old, noise)``.

    Args:
        model (nn.Module): The network.
        weights (Callable): From a parameter's name, itself and noise in
            [0, 1] of its shape to its new values.
    """
    generator = torch.Generator().manual_seed(0)
    others: Dict[int, Any] = {}
    for name, old in model.named_parameters():
        if old.is_floating_point():
            noise = torch.rand(old.shape, generator=generator)
            new = weights(name, old.detach(), noise).to(old)
            others[id(old)] = type(old)(new, False)
    probe = copy_network(model, others)
    for parameter in probe.parameters():
        parameter.requires_grad_(False)
    for module in probe.modules():
        module.training = False
    return probe


def spread(name: str, old: Tensor, noise: Tensor) -> Tensor:
    """Weights of unit gain, biases about 0 and scales about 1.

    Zeros and tiny scales hide what is behind them; weights far from unit
    gain let what comes early fade away behind biases.
    """
    if noise.numel() == max(noise.shape, default=1):  # one number a channel
        return noise * .2 - .1 if 'bias' in name else noise + .5
    if noise.shape[0] == 1:  # e.g. position embeddings
        return noise * 2 - 1
    gain = (2 * noise.shape[0] / max(noise.numel(), 1))**.5
    return (noise - .5) * (gain * 12**.5)  # as He's initialisation


def jittered(name: str, old: Tensor, noise: Tensor) -> Tensor:
    """The network's own weights, a quarter off at most, and none of them 0.

    For what computes with a parameter that has to lie in some range.
    """
    other = spread(name, old, noise.flip(0) if noise.dim() else noise).to(old)
    return torch.where(old == 0, other * .1, old * (.75 + .5 * noise).to(old))
