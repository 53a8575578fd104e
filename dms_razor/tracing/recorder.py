# Copyright (c) dms_razor contributors. All rights reserved.
"""Runs a network once and records operations, module calls and labels.

The recorder watches one ordinary forward pass through a
``TorchFunctionMode``: no symbolic tracing, so any Python control flow works.
Rules (see :mod:`dms_razor.tracing.rules`) say how channels pass through an
operation; an operation without a rule keeps the channels it touches at full
width and says so by name.
"""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from .labels import Variables, compress

#: Several spellings of one operation -> the name rules are registered under.
ALIASES = dict(
    iadd='add',
    radd='add',
    isub='sub',
    rsub='sub',
    subtract='sub',
    imul='mul',
    rmul='mul',
    multiply='mul',
    truediv='div',
    itruediv='div',
    rtruediv='reciprocal',
    true_divide='div',
    divide='div',
    concat='cat',
    concatenate='cat',
    absolute='abs',
    negative='neg',
    swapaxes='transpose',
    swapdims='transpose',
    moveaxis='movedim',
    clip='clamp')


class NotUnderstood(Exception):
    """Raised by a rule: the channels of the operation stay, with a reason."""


@dataclass
class Node:
    """One recorded operation.

    Attributes:
        index (int): Position in the order of execution.
        op (str): Canonical name of the function, e.g. ``'conv2d'``.
        call (int): Index of the innermost module call, -1 outside of any.
        inputs (list[int]): Nodes whose outputs were read.
        shape (tuple[int, ...]): Shape of the (first) output.
        plain_add (bool): An addition of two tensors of the same shape with
            no scaling: the only operation a residual connection may end with.
    """
    index: int
    op: str
    call: int
    inputs: List[int]
    shape: Tuple[int, ...] = ()
    plain_add: bool = False
    labels: List[Tensor] = field(default_factory=list)


@dataclass
class ModuleCall:
    """One call of a module: its path, its nodes and what went in and out.

    ``source`` holds the labels of its first tensor argument.
    """
    index: int
    path: str
    parent: int
    first: int
    last: int = -1
    inputs: Tuple[int, ...] = ()
    outputs: Tuple[int, ...] = ()
    returns_tensor: bool = False
    source: Optional[Tensor] = None


@dataclass
class Value:
    """What is known about a tensor: its node and the label of every entry."""
    node: int
    labels: Tensor


class Recorder(TorchFunctionMode):
    """Records one forward pass of ``model``.

    Args:
        model (nn.Module): The network, in eval mode.
        rules (dict[str, Callable]): Canonical operation name -> rule; a rule
            is called as ``rule(recorder, call)`` with an :class:`OpCall` and
            returns the label tensors of the outputs.
    """

    def __init__(self, model: nn.Module, rules: Dict[str, Callable]) -> None:
        super().__init__()
        from .facts import Facts
        self.model = model
        self.rules = rules
        self.variables = Variables()
        self.nodes: List[Node] = []
        self.calls: List[ModuleCall] = []
        self.facts = Facts(self.variables)
        self.modules = dict(model.named_modules())
        self.tensor_names = {}
        named = list(model.named_parameters(remove_duplicate=False))
        named += list(model.named_buffers(remove_duplicate=False))
        for name, tensor in named:
            self.tensor_names.setdefault(id(tensor), name)
        self._values: Dict[int, Tuple[Tensor, Value]] = {}
        self._stack: List[int] = [-1]
        self._entries: Dict[str, Tensor] = {}

    # what is known about tensors

    def value(self, tensor: Any) -> Optional[Value]:
        """What is known about ``tensor``; None for a constant."""
        known = self._values.get(id(tensor))
        return None if known is None else known[1]

    def name_of(self, tensor: Any) -> Optional[str]:
        """Full name if ``tensor`` is a parameter or a buffer of the model."""
        return self.tensor_names.get(id(tensor))

    def labels_of(self, tensor: Tensor) -> Optional[Tensor]:
        """Labels of an activation, or entry by entry of a parameter."""
        value = self.value(tensor)
        if value is not None:
            return value.labels
        name = self.name_of(tensor)
        if name is None or tensor.dim() == 0:
            return None
        return self.facts.entries(name, tensor)

    def bind(self, tensor: Tensor, node: Node, labels: Tensor) -> None:
        """Remember node and labels of a tensor (and keep it alive)."""
        labels = compress(labels)
        node.labels.append(labels)
        self._values[id(tensor)] = (tensor, Value(node.index, labels))

    @property
    def path(self) -> str:
        """Path of the module that is running."""
        call = self._stack[-1]
        return '' if call < 0 else self.calls[call].path

    @property
    def where(self) -> str:
        """The running module in words, for reasons."""
        module = self.modules[self.path]
        return f'{type(module).__name__} "{self.path}"' if self.path \
            else type(module).__name__

    def new_node(self, op: str, inputs: List[int]) -> Node:
        """Append a node to the record."""
        node = Node(
            len(self.nodes), op, self._stack[-1], list(dict.fromkeys(inputs)))
        self.nodes.append(node)
        return node

    # operations

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        outs = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
        tensors = [
            t for t in tree_flatten((args, kwargs))[0]
            if isinstance(t, Tensor)
        ]
        if not outs or not any(
                self.value(t) is not None or self.name_of(t) is not None
                for t in tensors):
            return out
        if any(
                t is p for t in outs for p in tensors
                if self.name_of(p) is not None):
            return out  # e.g. parameter.data, parameter.requires_grad_()
        call = OpCall(func, op_name(func), args, kwargs, outs, tensors)
        inputs = [self.value(t).node for t in tensors if self.value(t)]
        node = self.new_node(call.op, inputs)
        node.shape = tuple(outs[0].shape)
        node.plain_add = call.op == 'add' and kwargs.get('alpha', 1) == 1 \
            and len(tensors) == 2 and len(args) == 2 \
            and tensors[0].shape == tensors[1].shape
        labels = self._apply_rule(call)
        for tensor, label in zip(outs, labels):
            self.bind(tensor, node, label)
        return out

    def _apply_rule(self, call: 'OpCall') -> List[Tensor]:
        rule = self.rules.get(call.op)
        try:
            if rule is None:
                raise NotUnderstood(
                    f'{self.where} uses {call.op}, for which it is not known '
                    'how channels pass through it')
            return rule(self, call)
        except NotUnderstood as reason:
            for tensor in call.tensors:
                value = self.value(tensor)
                if value is not None:
                    self.variables.fix(value.labels, str(reason))
            variable = torch.tensor(self.variables.new_fixed(str(reason)))
            return [variable.expand(t.shape) for t in call.outs]

    # module calls

    def enter(self, module: nn.Module, args, kwargs) -> None:
        """Forward pre-hook of every module."""
        tensors = tree_flatten((args, kwargs))[0]
        call = ModuleCall(
            len(self.calls), self._paths[id(module)], self._stack[-1],
            len(self.nodes))
        call.inputs = tuple(
            self.value(t).node for t in tensors
            if isinstance(t, Tensor) and self.value(t))
        known = [self.value(t) for t in tensors if isinstance(t, Tensor)]
        call.source = known[0].labels if known and known[0] else None
        self.calls.append(call)
        self._stack.append(call.index)

    def leave(self, module: nn.Module, args, out) -> None:
        """Forward hook of every module."""
        call = self.calls[self._stack.pop()]
        call.last = len(self.nodes)
        call.returns_tensor = isinstance(out, Tensor)
        call.outputs = tuple(
            self.value(t).node for t in tree_flatten(out)[0]
            if isinstance(t, Tensor) and self.value(t))

    def run(self, forward: Callable, example_inputs: Tuple) -> Any:
        """Run ``forward(model, *example_inputs)`` once and record it.

        Args:
            forward (Callable): How the network is run.
            example_inputs (tuple): Its arguments; every floating tensor in
                them is an input of the network.

        Returns:
            Any: What the network returned.
        """
        self._paths = {id(m): name for name, m in self.modules.items()}
        handles = []
        for module in self.modules.values():
            handles.append(
                module.register_forward_pre_hook(self.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self.leave))
        node = self.new_node('input', [])
        self.batch_size = 1
        for tensor in tree_flatten(example_inputs)[0]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.batch_size = tensor.shape[0] if tensor.dim() else 1
                variable = self.variables.new_fixed('input of the network')
                self.bind(tensor, node,
                          torch.tensor(variable).expand(tensor.shape))
        try:
            with torch.no_grad(), self:
                out = forward(self.model, *example_inputs)
        finally:
            for handle in handles:
                handle.remove()
        for tensor in tree_flatten(out)[0]:
            value = self.value(tensor) if isinstance(tensor, Tensor) else None
            if value is not None:
                self.variables.fix(value.labels, 'output of the network')
        self.output_nodes = [
            self.value(t).node for t in tree_flatten(out)[0]
            if isinstance(t, Tensor) and self.value(t)
        ]
        self._values.clear()
        return out


@dataclass
class OpCall:
    """One call of a PyTorch function, as rules see it."""
    func: Callable
    op: str
    args: tuple
    kwargs: dict
    outs: List[Tensor]
    tensors: List[Tensor]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by name."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)


def op_name(func: Callable) -> str:
    """Canonical name: ``torch.Tensor.__iadd__`` and ``torch.add`` -> 'add'."""
    name = getattr(func, '__name__', str(func))
    if name == '__get__':  # a property such as Tensor.T
        name = getattr(getattr(func, '__self__', None), '__name__', name)
    name = name.strip('_')
    return ALIASES.get(name, name)
