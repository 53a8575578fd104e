# Copyright (c) dms_razor contributors. All rights reserved.
"""Residual blocks that can be removed, and the stages they form.

Depth is searched as ``block(x) = x + m * branch(x)`` (METHOD section 2): a
block is a module whose output is its input plus branches. It is found in the
recorded operations, not by class name, so it works for any architecture.
"""
from collections import defaultdict
from dataclasses import dataclass
from typing import Dict, Iterable, List, Optional, Set, Tuple, Union

from torch import Tensor, nn

from ..network import named_tensors
from ..space import FullWidth, StandIn, Tail
from .record import Node
from .rules.table import has


@dataclass(frozen=True, eq=False)
class ResidualBlock:
    """A removable block: without it the network has an identity there.

    Attributes:
        path (str): Path of the module that it is told by.
        source (int): The operation whose result it reads and adds to.
        stream (Tensor): Labels of that result.
        tails (tuple[Tail]): Where its mask acts.
        stage (str): Path of what holds it beside others.
        branch (tuple[StandIn]): See :class:`~dms_razor.space.Block`.
    """
    path: str
    source: int
    stream: Tensor
    tails: Tuple[Tail, ...]
    stage: str
    branch: Tuple[StandIn, ...] = ()

    @property
    def stand_ins(self) -> Tuple[StandIn, ...]:
        """What takes the place of all modules that go."""
        return self.branch or (StandIn(self.path), )


class ResidualFinder:
    """Finds residual blocks in one finished recording."""

    def __init__(self, recorder) -> None:
        self.nodes = recorder.nodes
        self.calls = recorder.calls
        self.modules = recorder.modules
        self.facts = recorder.facts
        self.readers, self.times = recorder.readers, recorder.times
        self.output_nodes = set(recorder.output_nodes)
        self.live = self._live(recorder.result_nodes)
        names: Dict[int, List[str]] = defaultdict(list)
        for name, tensor in named_tensors(recorder.model).items():
            names[id(tensor)].append(name)
        self.shared = [held for held in names.values() if len(held) > 1]
        # Computed from parameters alone.
        self.constant = {node.index for node in self.nodes if node.constant}

    def _live(self, results: Iterable[int]) -> Dict[int, List[int]]:
        """Readers of each result that something returned depends on."""
        dead: Set[int] = set(range(len(self.nodes))).difference(results)
        live: Dict[int, List[int]] = defaultdict(list)
        for node in reversed(self.nodes):
            live[node.index] = [
                n for n in self.readers[node.index] if n not in dead
            ]
            if live[node.index]:
                dead.discard(node.index)
        return live

    def results(self) -> Dict[str, Union[ResidualBlock, FullWidth]]:
        """Path -> a block that can be removed, or one that must stay."""
        found = {
            c.path: self._block(c)
            for c in self.calls if self._may_be_block(c)
        }
        return {path: r for path, r in found.items() if r is not None}

    def one_level(self, found: List[ResidualBlock]) -> List[ResidualBlock]:
        """Of blocks inside blocks, keep one level.

        A stage of equal blocks is itself a residual chain: its blocks are the
        elements. A block of unequal residual parts (attention, then a
        feed-forward network) is one element as a whole, also where some of
        its parts (position encodings) are equal blocks of their own.
        """
        dropped: Set[str] = set()
        for block in found:
            if block.path in dropped:
                continue
            inner = [b for b in found if b.path.startswith(block.path + '.')]
            top = [
                b for b in inner
                if not any(b.path.startswith(o.path + '.') for o in inner)
            ]
            # Types of a block's modules tell repeated blocks from parts.
            kinds = {
                tuple(map(type, self.modules[b.path].modules()))
                for b in top
            }
            chain = sum(len(b.tails) for b in top) == len(block.tails)
            equal = chain and len(top) > 1 and len(kinds) == 1
            dropped.update(b.path for b in ([block] if equal else inner))
        return [block for block in found if block.path not in dropped]

    def in_chain(self, path: str) -> bool:
        """Whether a module is one of a chain, or numbered like one."""
        parent, _, name = path.rpartition('.')
        chains = (nn.Sequential, nn.ModuleList)
        return name != '' and (isinstance(self.modules[parent], chains)
                               or name[-1].isdigit()) \
            and not isinstance(self.modules[path], chains)

    def _may_be_block(self, call) -> bool:
        return self.in_chain(call.path) \
            and call.source is not None and call.returns_tensor \
            and len(call.outputs) == 1 \
            and self.times[call.path] == 1 and call.last > call.first

    def _block(self, call):
        source, end = call.inputs[0], call.outputs[0]
        if not call.first <= end < call.last:
            return None
        after: List[Node] = []
        node = self.nodes[end]
        while has(node.op, 'pointwise', 'binary',
                  'norm') and not (node.plain_add and len(node.inputs) == 2):
            inputs = [i for i in node.inputs if i not in self.constant]
            if len(inputs) != 1 or inputs[0] < call.first:
                break
            after.append(node)
            node = self.nodes[inputs[0]]
        branches = self._branches(node.index, source, call)
        if not branches:
            return None
        tails = tuple(
            tail for branch in branches for tail in self._tails(branch, call))
        reason = self._reason(call, after, None in tails)
        return FullWidth(call.path, reason) if reason else ResidualBlock(
            call.path, source, call.source, tails,
            call.path.rpartition('.')[0])

    def _reason(self, call, after: List[Node],
                no_module: bool) -> Optional[str]:
        """Why a residual block has to stay; None if it can go."""
        for node in after:
            if not has(node.op, 'idempotent') or not self._is_result_of(
                    node, call.inputs[0]):
                return f'{node.op} after the addition would act on the ' \
                    'input again if the block were an identity'
        shared = self.why_shared([call.path])
        if shared is not None:
            return shared
        if self._leaks(call, call.outputs[0]):
            return 'its inner activations are used outside it'
        if no_module:
            return 'the end of its residual branch is not the output of a ' \
                'module'
        return None

    def why_shared(self, paths: List[str]) -> Optional[str]:
        """Why modules cannot go alone: others have parameters of theirs."""
        prefixes = tuple(f'{path}.' for path in paths)
        for names in self.shared:
            inside = [name.startswith(prefixes) for name in names]
            if any(inside) and not all(inside):
                other = names[inside.index(False)]
                return f'it shares parameters with "{other}"'
        return None

    def _branches(self, end: int, source: int, call) -> Optional[List[int]]:
        """Branch ends if ``end = source + branch + ...``, else None."""
        if end == source:
            return []
        node = self.nodes[end]
        if end < call.first or not node.plain_add or len(node.inputs) != 2:
            return None
        for identity, branch in (node.inputs, node.inputs[::-1]):
            if branch < call.first:
                continue
            rest = self._branches(identity, source, call)
            if rest is not None:
                return rest + [branch]
        return None

    def _is_result_of(self, rectifier: Node, index: int) -> bool:
        node = self.nodes[index]
        while has(node.op, 'keeps_range') and len(node.inputs) == 1:
            node = self.nodes[node.inputs[0]]
        return node.op == rectifier.op and (
            node.op != 'hardtanh'
            or node.settings[:2] == rectifier.settings[:2])  # its bounds

    def _leaks(self, call, end: int) -> bool:
        """Whether anything but the result leaves the block."""
        return any(index != end and (index in self.output_nodes or any(
            reader >= call.last for reader in self.readers[index]))
                   for index in range(call.first, call.last))

    def tail(self, node: int, call) -> Optional[Tail]:
        """The module whose scale or output carries the block's mask.

        Args:
            node (int): The end of the branch.
            call (ModuleCall): The block, in which the module is.
        """
        if len(self.live[node]) != 1:
            return None
        output = None
        while node >= call.first:
            output = output or self._module_of_output(node, call)
            record = self.nodes[node]
            module = self.calls[record.call].path
            if (has(record.op, 'layer')
                    or record.op == 'batch_norm') and self.times[module] == 1:
                if module in self.facts.affine:
                    return Tail(module, fold=True)
                break
            inputs = [i for i in record.inputs if i not in self.constant]
            if not has(record.op, 'linear') or len(inputs) != 1 or len(
                    record.inputs) < record.uses or len(
                        self.live[inputs[0]]) != 1:
                break  # x * x has one input and two uses
            node = inputs[0]
        return None if output is None else Tail(output, fold=False)

    def _tails(self, node: int, call) -> List[Optional[Tail]]:
        """Those of the parts, where branches side by side were added first."""
        found, record = self.tail(node, call), self.nodes[node]
        sides = [i for i in record.inputs if i >= call.first]
        if found is None and record.plain_add and len(sides) == 2 and len(
                self.live[node]) == 1:
            return [tail for side in sides for tail in self._tails(side, call)]
        return [found]

    def _module_of_output(self, node: int, block) -> Optional[str]:
        """Innermost module inside the block that returns this very tensor."""
        inside = f'{block.path}.' if block.path else ''
        for call in reversed(self.calls):
            if call.outputs[:1] == (node, ) and call.tensor_first and \
                    self.times[call.path] == 1 and \
                    block.first <= call.first <= node < call.last and \
                    call.index != block.index and \
                    call.path.startswith(inside) and call.path:
                return call.path
        return None


def find_blocks(
    finders: List[ResidualFinder]
) -> Tuple[List[ResidualBlock], List[FullWidth]]:
    """All removable blocks of a network, and residual blocks that must stay.

    A block can go if it can in each mode that calls it: one that returns more
    in train mode is missed there. Blocks of training alone cost nothing that
    is counted and stay.

    Args:
        finders (list[ResidualFinder]): Of each finished recording.
    """
    first, *others = finders
    found = first.results()
    for other in others:
        again = other.results()
        for path, block in found.items():
            if not isinstance(block, ResidualBlock) or not other.times[path]:
                continue
            twin = again.get(path)
            if isinstance(twin, FullWidth):
                found[path] = FullWidth(path, f'in train mode {twin.reason}')
            elif twin is None or twin.tails != block.tails:
                found[path] = FullWidth(
                    path, 'in train mode it is no such residual block')
    blocks = [b for b in found.values() if isinstance(b, ResidualBlock)]
    return first.one_level(blocks), [
        stay for stay in found.values() if isinstance(stay, FullWidth)
    ]


def group_stages(blocks: List[ResidualBlock],
                 streams: List[tuple]) -> List[List[ResidualBlock]]:
    """Blocks that follow one another on the same residual stream.

    Args:
        blocks (list[ResidualBlock]): In the order of execution.
        streams (list[tuple]): For each block the channels of its input; a
            change of width or resolution starts another stage.
    """
    stages: Dict[tuple, List[ResidualBlock]] = {}
    for block, stream in zip(blocks, streams):
        stages.setdefault((block.stage, stream), []).append(block)
    return list(stages.values())
