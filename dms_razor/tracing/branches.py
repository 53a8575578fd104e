# Copyright (c) dms_razor contributors. All rights reserved.
"""Residual branches that a module adds in its own forward: ``x = x + f(x)``.

Where a whole module is no block (a loop over layers in the network itself, a
norm or an activation behind the addition, a tuple that is returned), the
branch alone can go: ``x + 0``. All modules with parameters that compute for
nothing but the branch go with it; zeros take the place of one behind which
the branch is linear, identities that of the others.
"""
from bisect import bisect_left, bisect_right
from typing import Dict, Iterator, List, Optional, Set, Tuple, Union

from torch import Tensor

from ..space import FullWidth, StandIn
from .blocks import ResidualBlock, ResidualFinder, find_blocks
from .labels import compress, core
from .record import ModuleCall, Node
from .rules.table import has

Found = Union[ResidualBlock, FullWidth]


class BranchFinder:
    """Finds branches in one finished recording.

    Args:
        recorder (Recorder): The recording.
        blocks (ResidualFinder): What finds whole blocks in it.
    """

    def __init__(self, recorder, blocks: ResidualFinder) -> None:
        self.blocks, self.nodes = blocks, recorder.nodes
        self.calls, self.modules = recorder.calls, recorder.modules
        self.readers, self.live = recorder.readers, blocks.live
        self.times = recorder.times
        self.starts = [call.first for call in self.calls]
        self.costly = [op.node for op in recorder.operations]

    def results(self) -> List[Found]:
        """Branches that can go, and those that must stay."""
        found = []
        for node in self.nodes:
            if node.plain_add and len(node.inputs) == 2:
                result = self._of_addition(node)
                if isinstance(result, ResidualBlock) and hasattr(
                        self.modules[self._owner(node)], 'backward_pass'):
                    # Reversible networks, as they are commonly written.
                    result = FullWidth(
                        result.path, 'it is called in a backward_pass of its '
                        'own, which a removed branch would break')
                if result is not None:
                    found.append((self._owner(node), result))
        owners = [owner for owner, _ in found]
        return [
            self._named(result, owner,
                        owners.count(owner) == 1) for owner, result in found
        ]

    def _owner(self, node: Node) -> str:
        """Path of the module in whose forward an addition stands."""
        return self.calls[node.call].path if node.call >= 0 else ''

    def _named(self, found: Found, owner: str, alone: bool) -> Found:
        """A block that is told by its layer, if it has one branch alone."""
        if isinstance(found, FullWidth):
            return FullWidth(owner, found.reason) if owner else found
        path = owner if alone and self.blocks.in_chain(owner) else found.path
        parts = owner.split('.') if owner else []
        chains = [
            prefix for n in range(len(parts), 0, -1)
            for prefix in ['.'.join(parts[:n])] if self.blocks.in_chain(prefix)
        ]
        stage = (chains or [found.path])[0].rpartition('.')[0]
        return ResidualBlock(path, found.source, found.stream, found.tails,
                             stage, found.branch)

    def _of_addition(self, add: Node) -> Optional[Found]:
        for source, end in (add.inputs, add.inputs[::-1]):
            for source in self._sources(source):
                below = self._below(source, end) if source < end else set()
                if end in below and self.live[end] == [add.index]:
                    return self._branch(source, end, below, add)
        return None

    def _sources(self, node: int) -> Iterator[int]:
        """What a branch may begin at: the stream, also before other branches
        were added to it (branches side by side)."""
        waiting, known = [node], set()
        while waiting:
            node = waiting.pop(0)
            record = self.nodes[node]
            if record.op == 'input' or len(record.labels) != 1:
                continue  # the network's input; pieces of a split
            yield node
            known.add(node)
            if record.plain_add:
                waiting += [n for n in record.inputs if n not in known]

    def _below(self, source: int, end: int) -> Set[int]:
        """Operations up to ``end`` that depend on the source."""
        below = {source}
        for node in range(source + 1, end + 1):
            if not below.isdisjoint(self.nodes[node].inputs):
                below.add(node)
        return below

    def _branch(self, source: int, end: int, below: Set[int],
                add: Node) -> Optional[Found]:
        """The branch that ends at ``end``; None if no layer is in it."""
        cone: Set[int] = set()
        for node in range(end, source, -1):
            if node in below and node not in self.blocks.output_nodes and (
                    node == end
                    or self.live[node] and cone.issuperset(self.live[node])):
                cone.add(node)
        gone = self._modules(source, cone, add.index)
        first = bisect_right(self.costly, source)
        costly = [
            node for node in self.costly[first:bisect_right(self.costly, end)]
            if node in cone
        ]
        if not costly or not gone:
            return None
        region = ModuleCall(-2, '', -1, source + 1, add.index)
        tail = self.blocks.tail(end, region)
        main = self._main(gone, end, source)
        reason = self._reason(source, cone, below, gone, costly)
        if reason is None and (tail is None or main is None):
            reason = 'the end of its residual branch is not the output of a ' \
                'module'
        if reason is not None:
            return FullWidth(gone[-1].path, reason)
        branch = tuple(
            StandIn(call.path, call is main, call.length) for call in gone)
        return ResidualBlock(main.path, source, self.nodes[source].labels[0],
                             (tail, ), '', branch)

    def _modules(self, source: int, cone: Set[int],
                 stop: int) -> List[ModuleCall]:
        """Outermost modules with parameters that compute for it alone."""
        gone: List[ModuleCall] = []
        known: Set[int] = set()
        for call in self.calls[bisect_right(self.starts, source
                                            ):bisect_left(self.starts, stop)]:
            if call.parent in known:
                known.add(call.index)
            elif self._goes(call, cone, stop):
                known.add(call.index)
                gone.append(call)
        return gone

    def _goes(self, call: ModuleCall, cone: Set[int], stop: int) -> bool:
        """Whether a module can go with the branch."""
        if not (call.first < call.last <= stop and call.tensor_first
                and call.outputs and call.outputs[0] in cone
                and call.outputs[0] >= call.first
                and self.times[call.path] == 1 and next(
                    self.modules[call.path].parameters(), None) is not None):
            return False
        if call.hands_on or any(
                node < call.first and max(self.readers[node]) >= call.last
                for node in call.outputs[1:]):
            # Handed on by it, and read behind it: nothing would be then.
            return False
        others = set(range(call.first, call.last)) - {call.outputs[0]}
        return all(
            max(self.readers[node], default=0) < call.last
            and node not in self.blocks.output_nodes for node in others)

    def _main(self, gone: List[ModuleCall], end: int,
              source: int) -> Optional[ModuleCall]:
        """The largest of the modules behind which the branch is linear."""
        linear, node = [end], self.nodes[end]
        while has(node.op, 'linear'):
            inputs = [i for i in node.inputs if i not in self.blocks.constant]
            if len(inputs) != 1 or len(node.inputs) < node.uses or len(
                    self.live[inputs[0]]) != 1 or inputs[0] <= source:
                break
            linear.append(inputs[0])
            node = self.nodes[inputs[0]]
        return max(
            (call for call in gone if call.outputs[0] in linear),
            key=lambda call: sum(
                p.numel() for p in self.modules[call.path].parameters()),
            default=None)

    def _reason(self, source: int, cone: Set[int], below: Set[int],
                gone: List[ModuleCall], costly: List[int]) -> Optional[str]:
        """Why the branch has to stay; None if it can go."""
        own = next((node for node in costly if not any(c.first <= node < c.last
                                                       for c in gone)), None)
        if own is not None:
            record = self.nodes[own]
            return f'{record.op} in its residual branch is run by no module ' \
                'that could go with it'
        stream = self.nodes[source]
        for node in sorted(cone):
            for read in self.nodes[node].inputs:
                if read in below and read not in cone and read != source and \
                        not _same(self.nodes[read], stream):
                    return 'its inner activations are used outside it'
        return self.blocks.why_shared([call.path for call in gone])


def _same(node: Node, other: Node) -> bool:
    """Whether two activations have the same channels in the same places."""
    return node.shape == other.shape and len(node.labels) == 1 and _equal(
        node.labels[0], other.labels[0])


def _equal(left: Tensor, right: Tensor) -> bool:
    left, right = core(compress(left)), core(compress(right))
    return left.shape == right.shape and bool((left == right).all())


def find_residuals(recorder) -> Tuple[List[ResidualBlock], List[FullWidth]]:
    """All blocks and branches that can be removed, and those that must stay.

    Args:
        recorder (Recorder): A finished recording, maybe with a second one.
    """
    finders = [ResidualFinder(one) for one in recorder.passes]
    blocks, stay = find_blocks(finders)
    named = {one.module for one in stay}
    for found in find_branches(recorder, finders, blocks):
        if isinstance(found, ResidualBlock):
            blocks.append(found)
        elif found.module not in named:
            named.add(found.module)
            stay.append(found)
    branches = {block.path for block in blocks}
    blocks.sort(key=lambda block: block.source)
    return blocks, [one for one in stay if one.module not in branches]


def find_branches(recorder, finders: List[ResidualFinder],
                  blocks: List[ResidualBlock]) -> List[Found]:
    """Branches outside of all blocks, and those that must stay.

    A branch can go if it can in each mode that runs it. Of branches that lie
    in one another, or have blocks in them, the inner ones are the elements.

    Args:
        recorder (Recorder): A finished recording, maybe with a second one.
        finders (list[ResidualFinder]): What finds blocks in each of them.
        blocks (list[ResidualBlock]): Blocks that can go.
    """
    first, *others = ([
        found for found in BranchFinder(one, finder).results() if not _inside(
            found.branch[0].path if isinstance(found, ResidualBlock
                                               ) else found.module, blocks)
    ] for one, finder in zip(recorder.passes, finders))
    result: List[Found] = []
    for found in first:
        for again, one in zip(others, recorder.passes[1:]):
            if isinstance(found, ResidualBlock):
                found = _in_train_mode(found, again, one.times)
        result.append(found)
    known = [block.path for block in blocks]
    inner = []
    for found in result:  # in the order of the additions: inner ones first
        if isinstance(found, ResidualBlock):
            gone = tuple(f'{part.path}.' for part in found.branch)
            if any(f'{path}.'.startswith(gone) for path in known):
                continue
            known += [part.path for part in found.branch]
        inner.append(found)
    return inner


def _in_train_mode(found: ResidualBlock, again: List[Found],
                   times: Dict[str, int]) -> Found:
    """The branch, if it is the same in the recording of train mode."""
    ran = any(times[part.path] for part in found.branch)
    same = [(other.branch, other.tails) for other in again
            if isinstance(other, ResidualBlock)]
    if ran and (found.branch, found.tails) not in same:
        return FullWidth(found.path,
                         'in train mode it is no such residual branch')
    return found


def _inside(path: str, blocks: List[ResidualBlock]) -> bool:
    return any(f'{path}.'.startswith(f'{block.path}.') for block in blocks)
