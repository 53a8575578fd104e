# Copyright (c) dms_razor contributors. All rights reserved.
"""Count a network's MACs and parameters independently of the space.

The search works with a closed form in the kept counts (section 3.2 of the
paper, eq. 8). What a network really costs is counted on the network itself by
``torch.utils.flop_counter``, which knows nothing of the search: two FLOPs are
one MAC. Whatever runs several products as one operation (recurrent layers,
attention) is switched off meanwhile, so that each product is seen. Counted are
convolutions, linear layers and matrix products; normalisation, activation and
pooling are not.
"""
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import (Any, Callable, Dict, Iterator, List, Mapping, Optional,
                    Tuple)

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (register_module_forward_hook,
                                     register_module_forward_pre_hook)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from .core.resource import METRICS, Metric
from .errors import SubnetError, listed
from .network import call, untouched

TORCH = 'torch.utils.flop_counter'


@dataclass
class Count:
    """What a network costs, e.g. the MACs of one forward pass.

    Attributes:
        total (int): Of the whole network.
        by_module (dict[str, int]): MACs that each module runs itself, without
            those of its children, by module path; or parameters by name.
            Only where > 0.
        tool (str): What counted, for reports.
    """
    total: int
    by_module: Dict[str, int] = field(default_factory=dict)
    tool: str = TORCH

    @property
    def macs(self) -> int:
        """The total, where MACs were counted."""
        return self.total

    def of_one(self, samples: int) -> 'Count':
        """What one of ``samples`` of a batch costs."""
        return Count(self.total // samples, {
            k: n // samples
            for k, n in self.by_module.items()
        }, self.tool)


# Counters of our own, for products that PyTorch's counter does not know. They
# get shapes and return FLOPs, two for each MAC.


def _summed(first, second, *args, **kwargs) -> int:
    """mv and dot: each entry of the first operand is used once."""
    return 2 * prod(first)


def _grouped(first, second, *args, **kwargs) -> int:
    """Rows ``[n, m]``, each times one of the matrices ``[g, m, p]``; or
    columns ``[m, p]``, each with one of ``[g, n, m]``."""
    return 2 * prod(first[len(first) > len(second):]) * second[-1]


def _summed_onto(onto, first, second, *args, **kwargs) -> int:
    """addmv, also in place."""
    return 2 * prod(first)


def _product_onto(onto, first, second, *args, **kwargs) -> int:
    """addbmm and others in place: ``[b, n, m]`` times ``[b, m, p]``."""
    return 2 * prod(first) * second[-1]


def _bilinear(first, weight, second, *args, **kwargs) -> int:
    """nn.Bilinear: each weight ``[out, in1, in2]`` once a sample."""
    return 2 * first[0] * prod(weight)


def _sequences(x, weight, *args, **kwargs) -> int:
    """conv_tbc: ``[T, B, C]`` with ``[k, C, C']``, with its padding."""
    return 2 * prod(kwargs['out_shape'][:2]) * prod(weight)


#: Operations of ATen that we count ourselves.
OWN: Dict[str, Callable[..., int]] = dict(
    mv=_summed,
    dot=_summed,
    vdot=_summed,
    addmv=_summed_onto,
    addmv_=_summed_onto,
    addbmm=_product_onto,
    addbmm_=_product_onto,
    addmm_=_product_onto,
    baddbmm_=_product_onto,
    _grouped_mm=_grouped,
    _trilinear=_bilinear,
    conv_tbc=_sequences)


@contextmanager
def every_product() -> Iterator[FlopCounterMode]:
    """Count the FLOPs of the body, product by product.

    Fused forms of recurrent layers (oneDNN, cuDNN) and of attention are off
    in the body: PyTorch would count them as nothing.
    """
    cuda, core = torch.backends.cuda, torch._C
    switches = [(core._get_mkldnn_enabled, core._set_mkldnn_enabled, False),
                (core._get_cudnn_enabled, core._set_cudnn_enabled, False)]
    switches += [(getattr(cuda, f'{kind}_sdp_enabled'),
                  getattr(cuda, f'enable_{kind}_sdp'), kind == 'math')
                 for kind in ('math', 'flash', 'mem_efficient', 'cudnn')
                 if hasattr(cuda, f'enable_{kind}_sdp')]
    if hasattr(torch.backends, 'mha'):  # from torch 2.3
        mha = torch.backends.mha
        switches.append(
            (mha.get_fastpath_enabled, mha.set_fastpath_enabled, False))
    before = [current() for current, _, _ in switches]
    own = {
        getattr(torch.ops.aten, name): count
        for name, count in OWN.items()
        if hasattr(torch.ops.aten, name)  # not all are in old versions
    }
    try:
        for _, switch, value in switches:
            switch(value)
        with FlopCounterMode(display=False, custom_mapping=own) as counter:
            yield counter
    finally:
        for (_, switch, _), value in zip(switches, before):
            switch(value)


class _Unknown(TorchDispatchMode):
    """Notes operations on weights that come from outside of PyTorch.

    The counter takes them for free, and does not see what they run inside.

    Args:
        model (nn.Module): Whose weights.
        known (Mapping): Operations that can be counted.
        running (list[str]): Path of the module that runs, as the last entry.
    """

    def __init__(self, model: nn.Module, known: Mapping,
                 running: List[str]) -> None:
        super().__init__()
        self.known, self.running = known, running
        self.weights = {_memory(p) for p in model.parameters() if p.dim() > 1}
        self.found: List[Tuple[str, str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, 'namespace', '') not in (
                'aten', 'prim',
                'prims') and func.overloadpacket not in self.known and any(
                    isinstance(leaf, torch.ScriptObject) or
                    isinstance(leaf, Tensor) and _memory(leaf) in self.weights
                    for leaf in tree_flatten((args, kwargs))[0]):
            self.found.append((self.running[-1], str(func.overloadpacket)))
        return func(*args, **kwargs)

    def refuse(self) -> None:
        """Raise SubnetError if there were any."""
        if self.found:
            names = listed(
                dict.fromkeys(f'"{path or "(the network)"}" runs {operation}'
                              for path, operation in self.found))
            raise SubnetError(
                f'The MACs of a weight are not known to {TORCH}: {names}. '
                'Register what the operation costs, two FLOPs a MAC, with '
                f'{TORCH}.register_flop_formula(torch.ops.…), or let the '
                'forward run operations of PyTorch.')


def _memory(tensor: Tensor) -> int:
    """What tensors share that show the same numbers; 0 if they have none."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse
        return 0


def count_macs(model: nn.Module,
               inputs: Any,
               forward: Optional[Callable] = None) -> Count:
    """Count the MACs of one forward pass in eval mode.

    Args:
        model (nn.Module): A plain network; its flags, buffers and random
            state are as before afterwards.
        inputs (Any): Example inputs, as for
            :func:`dms_razor.network.running.call`.
            MACs are those of the whole batch.
        forward (callable, optional): As there.

    Returns:
        Count: Whole and per-module MACs.

    Raises:
        SubnetError: The forward pass fails on these inputs, or a weight goes
            into an operation that cannot be counted.
    """
    try:
        with untouched(model), _frozen(model), every_product() as counter:
            own = _run_by_module(model, inputs, forward, counter)
    except SubnetError:
        raise
    except Exception as error:
        raise SubnetError(
            f'The MACs of {type(model).__name__} cannot be counted: its '
            f'forward pass fails with {type(error).__name__}: {error}. Pass '
            'example inputs that the network accepts.') from error
    ours = sorted(
        str(operation) for operation in counter.flop_counts['Global']
        if str(operation).rpartition('.')[2] in OWN)
    tool = f'{TORCH} ({", ".join(ours)} by dms_razor)' if ours else TORCH
    by_module = {name: own[name] // 2 for name in sorted(own) if own[name]}
    return Count(counter.get_total_flops() // 2, by_module, tool)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient in the body.

    PyTorch's counter looks for the graph of each argument of a module. A view
    of a parameter (a class token for each sample) asks for a gradient and has
    none where gradients are off, which ends in an error.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _run_by_module(model: nn.Module, inputs: Any, forward: Optional[Callable],
                   counter: FlopCounterMode) -> Counter:
    """Run the network; FLOPs of each module without those of its children."""
    own: Counter = Counter()
    names = {id(module): name for name, module in model.named_modules()}
    running, counted = [''], 0

    def note() -> None:
        nonlocal counted
        own[running[-1]] += counter.get_total_flops() - counted
        counted = counter.get_total_flops()

    def enter(module, args) -> None:
        note()
        running.append(names.get(id(module), running[-1]))

    def leave(module, args, output) -> None:
        note()
        running.pop()

    known = getattr(counter, 'flop_registry', None)
    if known is None:  # its name in torch 2.1
        known = counter.flop_mapping
    unknown = _Unknown(model, known, running)
    # Hooks for all modules: scripted ones have none of their own.
    with register_module_forward_pre_hook(enter), \
            register_module_forward_hook(leave), unknown:
        call(model, inputs, forward)
    unknown.refuse()
    note()
    return own


def count_params(model: nn.Module) -> int:
    """Count the elements of all parameters, shared ones once.

    Biases and norms are included.
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_each(model: nn.Module,
               inputs: Any,
               forward: Optional[Callable] = None) -> Dict[str, Count]:
    """Count a network in every metric that can be counted, by its name.

    Args and errors: as for :func:`count_macs`.
    """
    counts = {
        metric.name: metric.count(model, inputs, forward)
        for metric in METRICS.values() if metric.count is not None
    }
    return {name: c for name, c in counts.items() if c is not None}


def _parameters(model: nn.Module, *_: Any) -> Count:
    return Count(
        count_params(model), {
            name: p.numel()
            for name, p in model.named_parameters()
        }, 'The network')


def _bytes(builder: Any, metric: str, size: int) -> list:
    return builder.weights(metric, size)


METRICS.register('macs')(
    Metric('macs', 'MACs', lambda builder: builder.macs(), count=count_macs))
METRICS.register('params')(
    Metric(
        'params',
        'parameters',
        lambda builder: builder.params(),
        count=_parameters,
        per_sample=False))
METRICS.register('memory')(
    Metric(
        'memory',
        'bytes of activations at the peak',
        lambda builder: builder.memory(),
        on_demand=True,
        activations=True))
METRICS.register('traffic')(
    Metric(
        'traffic',
        'bytes of activations that are written',
        lambda builder: builder.traffic(),
        on_demand=True,
        activations=True))
for _name, _size in dict(fp32=4, fp16=2, int8=1).items():
    METRICS.register(f'weights_{_name}')(
        Metric(
            f'weights_{_name}',
            f'bytes of the parameters in {_name}',
            partial(_bytes, metric=f'weights_{_name}', size=_size),
            per_sample=False,
            on_demand=True))
