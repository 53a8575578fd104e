# Copyright (c) dms_razor contributors. All rights reserved.
"""The subnets that a space is tried on."""
from collections import Counter
from typing import List, Optional, Set, Tuple

import torch
from torch import Tensor

from ..core.layout import Unit
from ..space import Block, Space
from ..tracing.record import Node
from ..tracing.recorder import Recorder

#: Kinds of units inside of an attention.
ATTENTION = ('heads', 'qk', 'v')
#: Units with so many choices at most would often have the same count.
FEW = 8


def trial(space: Space,
          number: int,
          gone: Optional[List[int]] = None) -> Tensor:
    """A subnet to try, bool ``[E]``.

    Numbers of channels are drawn for each unit alone: with equal shares code
    that computes with channel counts would often come out right by chance.
    Units of few choices take turns in 2: none has the count of the next.

    Args:
        space (Space): The space.
        number (int): 0 keeps all blocks; 1 is the smallest network; 2 is
            random; 3 prunes attentions alone, since with few channels in
            front all tokens may look alike, and wrong heads then show nothing.
        gone (list[int], optional): Elements of the blocks that go, those of
            all others stay.
    """
    generator = torch.Generator().manual_seed(number)
    turns: Counter = Counter()

    def kept(unit: Unit) -> int:
        choices = unit.most - unit.least + 1
        if number == 2 and unit.kind != 'depth' and choices <= FEW:
            turns[choices] += 1
            return unit.least + (turns[choices] - 1) % choices
        most = max(unit.least, unit.most - (unit.most == unit.size))
        drawn = torch.randint(unit.least, most + 1, (), generator=generator)
        if number == 1:
            return unit.least
        whole = unit.kind == 'depth' and (number == 0 or gone is not None) or \
            number == 3 and unit.kind not in ATTENTION
        return unit.size if whole else int(drawn)

    selection = space.draw(kept, generator)
    if gone is not None:
        selection[gone] = False
    return selection


def trials(space: Space, recorder: Recorder, training: bool) -> List[Tensor]:
    """The subnets that a space is tried on, each bool ``[E]``.

    What a block leaves to others, such as the position biases that the first
    layer of T5 computes for all, is missed only where those others stay: so a
    block of each kind goes while all others are there.

    Args:
        space (Space): The space.
        recorder (Recorder): The recording that it was built from.
        training (bool): For train mode, where a part of them will do: of
            blocks whose inside is read as in eval mode, that proof counts.
    """
    lists = rounds(space, recorder)
    if training:
        lists[1:] = rounds(space, recorder, recorder.again)
    blocks = [trial(space, 2, gone) for gone in lists[:1]]
    for gone in lists[1:]:
        whole = torch.ones(space.layout.E, dtype=torch.bool)
        whole[gone] = False
        blocks.append(whole)
    if training:
        return blocks or [trial(space, 0)]
    attends = any(unit.kind in ATTENTION for unit in space.units)
    return [
        trial(space, 0), *(blocks or [trial(space, 2)]),
        *([trial(space, 3)] if attends else []),
        trial(space, 1)
    ]


def rounds(space: Space,
           recorder: Recorder,
           again: Optional[Recorder] = None) -> List[List[int]]:
    """Blocks to remove while all others are there: one of each kind.

    Args:
        space (Space): The space.
        recorder (Recorder): The recording that it was built from.
        again (Recorder, optional): That in train mode: only blocks of which
            others read something else there.

    Returns:
        list[list[int]]: Elements of blocks, of each stage one at most in a
        list; none of a stage that may lose nothing.
    """
    found: List[List[int]] = []
    known: Set[tuple] = set()
    lists: Counter = Counter()
    for block in space.blocks:
        stage = int(space.layout.unit_of_element[block.element])
        kind = stage, _kind(block, again or recorder)
        if again and _reads(block, again) == _reads(block, recorder):
            continue
        if kind in known or space.units[stage].least == \
                space.units[stage].size:
            continue
        known.add(kind)
        if lists[stage] == len(found):
            found.append([])
        found[lists[stage]].append(block.element)
        lists[stage] += 1
    return found


def _kind(block: Block, recorder: Recorder) -> tuple:
    """What a block is: its modules, its operations, and what reads them
    besides its result.

    Blocks of one kind differ in sizes alone.
    """
    modules = tuple(
        (type(recorder.modules[part.path]), part.zero, part.outputs)
        for part in block.stand_ins)
    own = Counter(node.op for node in _inside(block, recorder)[0])
    return (modules, tuple(tail.fold for tail in block.tails),
            frozenset(own.items()), _reads(block, recorder))


def _inside(block: Block, recorder: Recorder) -> Tuple[List[Node], Set[int]]:
    """The operations of a block, and the nodes that are its results."""
    paths = tuple(f'{part.path}.' for part in block.stand_ins)
    calls = {
        call.index: call.outputs[:1]
        for call in recorder.calls if f'{call.path}.'.startswith(paths)
    }
    return ([node for node in recorder.nodes if node.call in calls],
            {node
             for outputs in calls.values()
             for node in outputs})


def _reads(block: Block, recorder: Recorder) -> frozenset:
    """What others do with a block's inside, besides its result."""
    own, results = _inside(block, recorder)
    calls = {node.call for node in own}
    readers = Counter(recorder.nodes[reader].op for node in own
                      for reader in recorder.readers[node.index]
                      if recorder.nodes[reader].call not in calls
                      and node.index not in results)
    readers['returned'] = len({node.index
                               for node in own}
                              & set(recorder.output_nodes) - results)
    return frozenset(readers.items())
