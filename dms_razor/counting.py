# Copyright (c) dms_razor contributors. All rights reserved.
"""Count a network's MACs and parameters independently of the space.

The search works with a closed form in the kept counts (section 3.2 of the
paper, eq. 8). What an exported network really costs is counted on the network
itself by a library that knows nothing of the search: mmengine's
``FlopAnalyzer`` where mmengine is installed, else ``torch.utils.flop_counter``
(two FLOPs are one MAC). Counted are convolutions, linear layers and matrix
products; normalisation, activation and pooling are not.
"""
import importlib.util
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from torch import Tensor, nn

from .errors import SubnetError
from .network import call, evaluating, tensors_in

MMENGINE = "mmengine's FlopAnalyzer"
TORCH = 'torch.utils.flop_counter'
PRODUCTS = ('conv', 'linear', 'addmm', 'mm', 'bmm', 'matmul', 'einsum',
            'scaled_dot_product_attention')
"""What counts, under mmengine's names of operations."""


@dataclass
class Count:
    """What one forward pass of a network costs.

    Attributes:
        macs (int): Multiply-accumulates of the whole network.
        by_module (dict[str, int]): The MACs that each module runs itself,
            without those of its children, by module path; only where > 0.
        tool (str): The library that counted.
    """
    macs: int
    by_module: Dict[str, int] = field(default_factory=dict)
    tool: str = TORCH

    def of_one(self, samples: int) -> 'Count':
        """What one of ``samples`` of a batch costs."""
        by_module = {
            path: macs // samples
            for path, macs in self.by_module.items()
        }
        return Count(self.macs // samples, by_module, self.tool)


def count_macs(model: nn.Module,
               inputs: Any,
               forward: Optional[Callable] = None,
               tool: Optional[str] = None) -> Count:
    """Count the MACs of one forward pass in eval mode.

    Args:
        model (nn.Module): A plain network; its flags and random state are as
            before afterwards.
        inputs (Any): Example inputs: a tensor, a tuple of arguments or a
            dict of keyword arguments. MACs are those of the whole batch.
        forward (callable, optional): ``forward(model, *inputs)`` when the
            network is not simply called.
        tool (str, optional): :data:`MMENGINE` or :data:`TORCH`. The default
            is mmengine's where it is installed.

    Returns:
        Count: Whole and per-module MACs.

    Raises:
        SubnetError: The forward pass fails on these inputs.
    """
    if tool is None:
        installed = importlib.util.find_spec('mmengine') is not None
        tool = MMENGINE if installed else TORCH
    count = {MMENGINE: _count_by_mmengine, TORCH: _count_by_torch}[tool]
    try:
        with evaluating(model):
            return count(_Forward(model, inputs, forward))
    except Exception as error:
        raise SubnetError(
            f'The MACs of {type(model).__name__} cannot be counted: its '
            f'forward pass fails with {type(error).__name__}: {error}. Pass '
            'example inputs that the network accepts.') from error


def count_params(model: nn.Module) -> int:
    """Count the elements of all distinct parameters.

    Args:
        model (nn.Module): Any network.

    Returns:
        int: Shared parameters count once, biases and norms included.
    """
    return sum(parameter.numel() for parameter in model.parameters())


class _Forward(nn.Module):
    """A forward pass without arguments, as counters like to see it.

    ``torch.jit`` takes and returns only tensors, so whatever the network
    returns is reduced to the tensors in it.
    """

    def __init__(self, model: nn.Module, inputs: Any,
                 forward: Optional[Callable]) -> None:
        super().__init__()
        self.net = model
        self.inputs = inputs
        self.custom = forward

    def forward(self) -> Tuple[Tensor, ...]:
        return tuple(tensors_in(call(self.net, self.inputs, self.custom)))


def _count_by_mmengine(forward: _Forward) -> Count:
    """Count with mmengine's JIT-based analyzer."""
    from mmengine.analysis.jit_handles import conv_flop_count, get_shape

    from .compat.flop_counter import flop_analyzer

    def conv_same(inputs, outputs):
        # a convolution with padding='same'; mmengine skips it
        shapes = [get_shape(part) for part in (*inputs[:2], outputs[0])]
        return Counter(conv=int(conv_flop_count(*shapes)))

    analyzer = flop_analyzer(forward, ())
    analyzer.set_op_handle('aten::_convolution_mode', conv_same)
    analyzer.unsupported_ops_warnings(False)
    analyzer.uncalled_modules_warnings(False)
    analyzer.tracer_warnings('none')
    with_children = {
        name: sum(macs[op] for op in PRODUCTS)
        for name, macs in analyzer.by_module_and_operator().items()
    }
    own = Counter(with_children)
    for name, macs in with_children.items():
        if name:
            own[name.rpartition('.')[0]] -= macs
    return _summary(with_children[''], own, MMENGINE)


def _count_by_torch(forward: _Forward) -> Count:
    """Count with torch's dispatch-based counter."""
    from torch.utils.flop_counter import FlopCounterMode
    counter = FlopCounterMode(display=False)
    own: Counter = Counter()
    running: List[List[int]] = []  # [FLOPs at entry, FLOPs of children]

    def enter(module, args):
        running.append([counter.get_total_flops(), 0])

    def leave(name):

        def hook(module, args, output):
            before, of_children = running.pop()
            flops = counter.get_total_flops() - before
            own[name] += flops - of_children
            if running:
                running[-1][1] += flops

        return hook

    hooks = []
    for name, module in forward.named_modules():
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(leave(name)))
    try:
        with counter:
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    macs = {name: flops // 2 for name, flops in own.items()}
    return _summary(counter.get_total_flops() // 2, macs, TORCH)


def _summary(macs, own: Mapping[str, Any], tool: str) -> Count:
    """Drop zeros and the name of the :class:`_Forward` around the network."""
    by_module = {
        name.partition('.')[2]: int(value)
        for name, value in sorted(own.items()) if value
    }
    return Count(int(macs), by_module, tool)
