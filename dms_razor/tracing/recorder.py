# Copyright (c) dms_razor contributors. All rights reserved.
"""Runs a network once and records operations, module calls and labels.

The recorder watches one ordinary forward pass through a
``TorchFunctionMode``: no symbolic tracing, so any Python control flow works.
Rules (see :mod:`dms_razor.tracing.rules`) say how channels pass through an
operation; an operation without a rule keeps the channels it touches at full
width and says so by name.
"""
from collections import Counter, defaultdict
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from ..adapters.experts import experts_as_operations
from ..network import named_tensors, tensors_of
from ..network.running import after_scripts
from .facts import Facts, Operation
from .labels import Variables, compress, core
from .record import (ModuleCall, Node, NotUnderstood, OpCall, Value,
                     reshape_site, version_of)
from .rules.norm import settle_means
from .rules.table import has, op_name
from .rules.unknown import not_known
from .weights import settle_weights


class Recorder(TorchFunctionMode):
    """Records one forward pass of ``model``.

    Args:
        model (nn.Module): The network, in eval mode.
        rules (dict[str, Callable]): Canonical operation name -> rule; a rule
            is called as ``rule(recorder, call)`` with an :class:`OpCall` and
            returns the label tensors of the outputs, None for a constant.
        first (Recorder, optional): A finished recording in another mode, of
            which this is the second: both find out the same facts, and what
            operations cost is known from the first.

    Attributes:
        again (Recorder): The second recording of this one, if there is one.
        asked (dict[str, str]): Modules whose mode the network's code asked
            for, see :func:`~dms_razor.tracing.modes.mode_reads`.
        operations (list[Operation]): What was run here that costs something.
        touched (set[str]): Parameters and buffers that operations read.
    """

    def __init__(self,
                 model: nn.Module,
                 rules: Dict[str, Callable],
                 first: Optional['Recorder'] = None) -> None:
        super().__init__()
        self.model = model
        self.rules = rules
        self.variables = Variables() if first is None else first.variables
        self.nodes: List[Node] = []
        self.calls: List[ModuleCall] = []
        self.facts = Facts(self.variables) if first is None else first.facts
        self.first, self.again = first, None
        self.asked: Dict[str, str] = {}
        self.operations: List[Operation] = [] if first else \
            self.facts.operations
        self.touched: Set[str] = set()
        self.heads_before = len(self.facts.heads)  # those of the first
        self.modules = dict(model.named_modules())
        self.batch_size = 1  # samples in the example: costs are of one
        self.metrics: List[str] = []  # what it costs is asked in
        self.idle: Set[str] = set()  # layers without effect, see spared.py
        self._own = named_tensors(model)  # held, so that ids stay theirs
        self._names = {id(t): n for n, t in reversed(self._own.items())}
        self._values: Dict[int, Value] = {}
        self._hidden: Dict[int, Tensor] = {}
        self._given: Dict[int, Tensor] = {}  # words, and what is made of them
        self._stack: List[int] = [-1]

    @property
    def passes(self) -> List['Recorder']:
        """The recordings of a network, this one first."""
        return [self] if self.again is None else [self, self.again]

    # what is known about tensors

    def value(self, tensor: Any) -> Optional[Value]:
        """What is known about ``tensor``; None for a constant."""
        return self._values.get(id(tensor))

    def nodes_of(self, value: Any) -> Tuple[int, ...]:
        """Where the activations in anything came from."""
        known = map(self.value, tensors_of(value))
        return tuple(v.node for v in known if v is not None)

    def name_of(self, tensor: Any) -> Optional[str]:
        """Its (first) name if ``tensor`` is a parameter or a buffer."""
        return self._names.get(id(tensor))

    def own_name_of(self, tensor: Tensor) -> Optional[str]:
        """Its name in the running module, which others may have as well."""
        parameters = self.modules[self.path]._parameters
        return next((f'{self.path}.{name}'
                     for name, own in parameters.items() if own is tensor),
                    None)

    def labels_of(self, tensor: Tensor) -> Optional[Tensor]:
        """Labels of an activation, or entry by entry of a parameter."""
        value = self.value(tensor)
        if value is not None:
            return value.labels
        name = self.name_of(tensor)
        if name is None or tensor.dim() == 0:
            return None
        return self.facts.entries(name, tensor)

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether it is a parameter or buffer, or computed from those."""
        value = self.value(tensor)
        return self.name_of(tensor) is not None or (
            value is not None and self.nodes[value.node].constant)

    def core_of(self, tensor: Tensor) -> Tensor:
        """Labels at core size; 0 for a constant."""
        labels = self.labels_of(tensor)
        return torch.zeros((1, ) * tensor.dim(), dtype=torch.long) \
            if labels is None else core(labels)

    def own_shape(self, tensor: Tensor) -> Tuple[int, ...]:
        """Shape of a tensor before it was expanded to that of another."""
        value = self.value(tensor)
        return tuple(tensor.shape) if value is None else value.own_shape

    def bind(self,
             tensor: Tensor,
             node: Node,
             labels: Tensor,
             own_shape: Optional[Tuple[int, ...]] = None) -> None:
        """Remember node and labels of a tensor (and keep it alive)."""
        labels = compress(labels)
        node.labels.append(labels)
        self._values[id(tensor)] = Value(tensor, node.index, labels, own_shape
                                         or tuple(tensor.shape))

    def fix(self, tensors: List[Tensor], reason: str) -> None:
        """The channels of these tensors stay, of weights all axes."""
        for tensor in tensors:
            value, name = self.value(tensor), self.name_of(tensor)
            if value is not None:
                self.variables.fix(value.labels, reason)
            elif name is not None:
                self.facts.whole.setdefault(name, reason)

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

    def require(self,
                holds: bool,
                reason: str,
                call: Optional[OpCall] = None,
                macs: float = 0) -> None:
        """For rules: the channels of the operation stay unless this holds.

        Args:
            holds (bool): What the rule relies on.
            reason (str): What the running module does instead.
            call (OpCall, optional): The operation, if it costs something.
            macs (float): MACs of the whole batch, which are counted.

        Raises:
            NotUnderstood: It does not hold; the running module is named.
        """
        if not holds:
            if call is not None:
                self.count(call, macs)
            raise NotUnderstood(f'{self.where} {reason}')

    def new_node(self, op: str, tensors: List[Tensor]) -> Node:
        """Append a node that reads ``tensors`` to the record."""
        inputs = self.nodes_of(tensors)
        node = Node(
            len(self.nodes), op, self._stack[-1], list(dict.fromkeys(inputs)),
            len(inputs))
        node.names = {self._names.get(id(t), '') for t in tensors} - {''}
        node.constant = op != 'input' and all(
            self.nodes[n].constant for n in node.inputs) and not any(
                id(t) in self._given for t in tensors)
        self.nodes.append(node)
        return node

    # operations

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_flatten((args, kwargs))[0]
        tensors = [t for t in leaves if isinstance(t, Tensor)]
        versions = [version_of(t) for t in tensors]
        out = func(*args, **kwargs)
        names = {self.name_of(t) for t in tensors} - {None}
        if not names and all(self.value(t) is None for t in tensors):
            if any(id(t) in self._given for t in tensors):
                self._given.update((id(t), t) for t in tensors_of(out))
            return out
        self.touched |= names
        outs = [t for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
        call = OpCall(func, op_name(func), args, kwargs, outs, tensors)
        if call.op == 'setitem':
            call.outs = outs = [args[0]]
        if not outs and has(call.op, 'read_out'):
            self.fix(
                tensors, f'{self.where} reads their values into Python '
                f'({call.op})')
        call.changed = [
            t for t, v in zip(tensors, versions) if version_of(t) != v
        ]
        if has(call.op, 'constant') or all(
                any(t is other for other in tensors) for t in outs) \
                and not call.changed:
            return out  # nothing new: a dropout that is off, x.contiguous()
        if any(self.name_of(t) is not None for t in outs):
            # Of buffers alone (a counter, a cache), or for spectral_norm.
            ok = call.op == 'normalize' and all(map(self.is_constant, tensors))
            if not ok and any(self.value(t) is not None for t in tensors):
                self.fix(
                    tensors, f'{self.where} writes them into a buffer '
                    f'({call.op})')
            return out
        self._record(call, leaves)
        return out

    def _record(self, call: OpCall, leaves: List[Any]) -> None:
        tensors = call.tensors
        node = self.new_node(call.op, tensors)
        node.shape, node.site = call.outs[0].shape, reshape_site(call.op)
        node.settings = tuple(x for x in leaves if not isinstance(x, Tensor))
        node.plain_add = call.op == 'add' and len(tensors) == 2 \
            and call.kwargs.get('alpha', 1) == 1 and len(call.args) == 2 \
            and tensors[0].shape == tensors[1].shape
        self._expanded: Dict[int, Tuple[int, ...]] = {}
        for tensor, label in zip(call.outs, self._apply_rule(call)):
            if label is None:
                continue
            self.bind(tensor, node, label, self._expanded.get(id(tensor)))
            base = tensor._base
            if base is not None and any(t is tensor for t in call.changed):
                self._write_through(base, node, label)
            elif base is not None and not any(t is base for t in tensors):
                # The operation itself made it: nobody else can look at it.
                self._hidden.setdefault(id(base), base)

    def _write_through(self, base: Tensor, node: Node, labels: Tensor) -> None:
        """An operation in place on a view changes the tensor it shows."""
        known = self.value(base)
        if known is None:
            if self.name_of(base) is not None or id(base) in self._hidden:
                return
            reason = f'{self.where} writes them into a part of a tensor'
            self.variables.fix(labels, reason)
            labels = torch.zeros((), dtype=torch.long).expand(base.shape)
        else:
            labels = known.labels
            node.inputs.append(known.node)
        self.bind(base, node, labels)

    def expanded(self, tensor: Tensor, own_shape: Tuple[int, ...]) -> None:
        """For rules: an output is an expansion of something smaller."""
        self._expanded[id(tensor)] = own_shape

    def _apply_rule(self, call: OpCall) -> List[Optional[Tensor]]:
        try:
            return self.rules.get(call.op, not_known)(self, call)
        except NotUnderstood as problem:
            reason = str(problem)
        except Exception as error:
            # No failure of the network's: its channels stay, and say why.
            reason = (f'{self.where} uses {call.op} in a way that is not '
                      f'understood ({type(error).__name__}: {error})')
        self.fix(call.tensors, reason)
        variable = self.variables.new_fixed(reason)
        return [variable.expand(t.shape) for t in call.outs]

    def count(self, call: OpCall, macs: float, *axes: Tensor) -> None:
        """For rules: what the operation costs.

        Args:
            call (OpCall): The operation.
            macs (float): MACs of the whole batch, for one channel in each
                axis.
            axes (Tensor): Labels of the channels that MACs grow with.
        """
        self.operations.append(
            Operation(self.path, call.op,
                      len(self.nodes) - 1, macs, axes))

    # module calls

    def enter(self, module: nn.Module, args, kwargs) -> None:
        """Forward pre-hook of every module."""
        first = self.value(args[0]) if args else None
        call = ModuleCall(
            len(self.calls),
            self._paths[id(module)],
            self._stack[-1],
            len(self.nodes),
            inputs=self.nodes_of((args, kwargs)),
            source=None if first is None else first.labels)
        self.calls.append(call)
        self._stack.append(call.index)

    def leave(self, module: nn.Module, args, kwargs, out) -> None:
        """Forward hook of every module."""
        call = self.calls[self._stack.pop()]
        while call.path != self._paths[id(module)]:  # failed, and was caught
            call = self.calls[self._stack.pop()]
        call.last = len(self.nodes)
        call.returns_tensor = isinstance(out, Tensor)
        call.tensor_first = isinstance(
            out[0] if isinstance(out, tuple) and out else out, Tensor)
        call.length = len(out) if isinstance(out, tuple) else 0
        call.outputs = self.nodes_of(out)
        call.hands_on = any(map(self.name_of, tensors_of(out)))

    def leave_script(self, module: nn.Module, args, kwargs, out) -> None:
        """After a call of a scripted module, whose operations are not seen."""
        path = self._paths.get(id(module), type(module).__name__)
        self.touched |= {n for n in self._own if n.startswith(f'{path}.')}
        reason = f'what the scripted module "{path}" does is not seen'
        self.fix(tensors := tensors_of((args, kwargs)), reason)
        node = self.new_node('script', tensors)
        variable = self.variables.new_fixed(reason)
        for tensor in tensors_of(out):
            self.bind(tensor, node, variable.expand(tensor.shape))

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
            if not isinstance(module, torch.jit.ScriptModule):
                handles += [
                    module.register_forward_pre_hook(
                        self.enter, with_kwargs=True),
                    module.register_forward_hook(self.leave, with_kwargs=True)
                ]
        try:
            self._bind_inputs(tensors_of(example_inputs))
            with torch.no_grad(), after_scripts(self.leave_script), \
                    experts_as_operations(self.model), self:
                out = forward(self.model, *example_inputs)
        finally:
            for handle in handles:
                handle.remove()
        outs = tensors_of(out)
        self.fix([t for t in outs if self.value(t) is not None],
                 'output of the network')
        self.result_nodes = self.nodes_of(outs)
        self.output_nodes = self.nodes_of(
            [t for t in outs if t.is_floating_point()])
        self.readers: Dict[int, List[int]] = defaultdict(list)
        for node in self.nodes:
            for source in node.inputs:
                self.readers[source].append(node.index)
        self.times = Counter(call.path for call in self.calls)
        settle_weights(self)
        settle_means(self)
        self.facts.finish()
        self._values.clear()
        self._given.clear()
        self._hidden.clear()
        return out

    def _bind_inputs(self, tensors: List[Tensor]) -> None:
        node = self.new_node('input', [])
        for tensor in tensors:
            if not tensor.is_floating_point():
                self._given[id(tensor)] = tensor
                continue
            variable = self.variables.new_fixed('input of the network')
            self.bind(tensor, node, variable.expand(tensor.shape))
