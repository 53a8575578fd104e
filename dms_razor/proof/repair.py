# Copyright (c) dms_razor contributors. All rights reserved.
"""Repairs of a space that the self-check found wrong."""
from bisect import bisect_left
from collections import defaultdict
from typing import Callable, Dict, List, Optional, Sequence, Set

import torch
from torch import Tensor

from ..adapters.registry import slim_class
from ..space import Space
from ..tracing.labels import compress, core
from ..tracing.sites import whole_numbers


def repair(checker, builder, space: Space, problem) -> Space:
    """Let a module's own numbers follow, else fix the channels involved.

    Args:
        checker (Checker): Compares the networks.
        builder (SpaceBuilder): Builds the space anew.
        space (Space): The space that does not hold.
        problem (Problem): What does not hold.

    Returns:
        Space: Another space, to be checked again.

    Raises:
        RuntimeError: The network does not even compute the same twice.
    """
    removed = [
        block.element for block in space.blocks
        if not problem.selection[block.element]
        and problem.module in [part.path for part in block.stand_ins]
    ]
    if removed:
        # Its owner asks a removed block for something: no width is at fault.
        stages = space.layout.unit_of_element[removed].unique().tolist()
        return _fix(checker, builder, space, problem, stages)
    blocks = _blocks_alone(checker, space, problem)
    if blocks is not None:
        return _fix(checker, builder, space, blocks, [
            number
            for number, unit in enumerate(space.units) if unit.kind == 'depth'
        ])
    if _keep_two(checker, builder, space, problem) or _follow(
            builder, problem):
        return builder.build()
    labels = _labels_of_failing_class(builder, problem.module)
    if len(labels):
        kind = type(builder.recorder.modules[problem.module]).__name__
        builder.recorder.variables.fix(
            labels, f'{kind} "{problem.module}" cannot run with fewer '
            f'channels ({problem.reason})')
        return builder.build()
    suspects = _units_within(builder, space, problem.module)
    return _fix(checker, builder, space, problem, suspects)


def _fix(checker, builder, space: Space, problem,
         suspects: List[int]) -> Space:
    """Let the channels or blocks of the unit at fault stay."""
    unit = _culprit(checker, space, problem, suspects)
    what = 'removing blocks fails: {}' if space.units[unit].kind == 'depth' \
        else 'pruning it changes what the network computes ({})'
    return leave_alone(builder, space, _alike(builder, space, unit),
                       what.format(problem.reason))


def _blocks_alone(checker, space: Space, problem):
    """What fails if the same blocks are removed and no width is pruned.

    What a removed branch does not return (the size of its image, which the
    next one is told) is missed anywhere; the widths there are not at fault.

    Returns:
        Problem | None: None if nothing fails, or no block is removed.
    """
    blocks = torch.tensor([block.element for block in space.blocks],
                          dtype=torch.long)
    some = torch.ones_like(problem.selection)
    some[blocks] = problem.selection[blocks]
    return None if some.all() else checker.problem(space, some)


def _alike(builder, space: Space, unit: int) -> List[int]:
    """A unit of an attention or a router and those of all of the same class.

    They run the same code; that a wrong number of heads shows in one is luck.
    """
    modules = builder.recorder.modules

    def code(number: int) -> tuple:
        owner, _, kind = space.units[number].name.rpartition('.')
        return kind, type(modules.get(owner))

    if space.units[unit].kind not in ('heads', 'qk', 'v', 'experts'):
        return [unit]
    return [
        number for number in range(len(space.units))
        if space.units[number].kind == space.units[unit].kind
        and code(number) == code(unit)
    ]


def leave_alone(builder, space: Space, units: Sequence[int],
                reason: str) -> Space:
    """Let the channels or blocks of some units stay.

    Args:
        builder (SpaceBuilder): Builds the space anew.
        space (Space): The space.
        units (Sequence[int]): The units.
        reason (str): Why, for the report.

    Raises:
        ValueError: Nothing is left that can be pruned.
    """
    own = builder.elements.own
    for unit in units:
        if space.units[unit].kind == 'depth':
            builder.keep_blocks(space.units[unit].members, reason)
            continue
        place = space.layout.slice_of(unit)
        classes = ((own >= place.start) & (own < place.stop)).nonzero()[0]
        builder.recorder.variables.fix(torch.from_numpy(classes), reason)
    return builder.build()


def _keep_two(checker, builder, space: Space, problem) -> bool:
    """Whether a module runs if two channels stay where one has stayed.

    A filter that is standardised has no variance if it reads one number.
    Two stay then at what all modules of this class read.
    """
    path, layout = problem.module, space.layout
    if path is None:
        return False
    some = problem.selection.clone()
    for unit in _units_within(builder, space, path):
        place = layout.slice_of(unit)
        groups = some[place].view(space.units[unit].groups, -1)
        if space.units[unit].kind == 'width' and groups.shape[1] > 2 and bool(
            (groups.sum(1) == 1).all()):
            # The first that is gone comes back, in each group.
            groups[torch.arange(len(groups)), groups.int().argmin(1)] = True
    if torch.equal(some, problem.selection):
        return False
    found = checker.problem(space, some)
    if found is not None and found.module == path:
        return False
    kind = type(builder.recorder.modules[path])
    return _hold_two(
        builder, {
            other
            for other, module in builder.recorder.modules.items()
            if type(module) is kind
        })


def _hold_two(builder, paths: Set[str]) -> bool:
    """Two channels stay at least of each width that these modules touch."""
    before = len(builder.two_stay)
    builder.two_stay |= paths
    builder.needed_twice.update(
        _variables_of(builder, lambda call: call.path in paths).tolist())
    return len(builder.two_stay) > before


def _follow(builder, problem) -> bool:
    """Whether some number was found that can follow a pruned width."""
    path = problem.module
    if path is None:  # a wrong number need not fail, it may just be wrong
        modules = {piece.module for piece in builder.facts.pieces}
        return any([_follow_numbers(builder, m) for m in sorted(modules)])
    parts = path.split('.')
    callers = ['.'.join(parts[:n]) for n in range(len(parts), -1, -1)]
    if any(_follow_numbers(builder, caller) for caller in callers):
        return True
    return bool(path) and _follow_outputs(builder, path) or _follow_sizes(
        builder, path)


def follow_like(builder, other) -> None:
    """Let the same numbers follow as another builder, of a twin, does."""
    _hold_two(builder, other.two_stay)
    for path in sorted(other.followed):
        _follow_numbers(builder, path)
    for path in sorted(other.asked):
        _follow_outputs(builder, path)
    builder.reshaped |= other.reshaped


def _follow_numbers(builder, path: str) -> bool:
    """Attributes of a module that give the size of a piece it cuts off.

    A module such as Res2Net's splits its channels by a number of its own;
    that number follows the pruned width, in all modules of this class.
    """
    kind = type(builder.recorder.modules[path])
    new = False
    for piece in builder.facts.pieces:
        module = builder.recorder.modules[piece.module]
        if type(module) is not kind or piece.module in builder.followed:
            continue
        for name, number in whole_numbers(module).items():
            if number == len(piece.labels) > 1:
                numbers = builder.extra_attributes[piece.module]
                numbers.setdefault(name, piece.labels)
                new = True
    for owner, pieces in _pieces_of(builder, kind).items():
        sizes = [len(piece) for piece in pieces]
        for name, value in vars(builder.recorder.modules[owner]).items():
            times = len(sizes) // max(1, len(value)) if isinstance(
                value, (list, tuple)) else 0
            if times and sizes == list(value) * times:  # once a call
                for place, piece in enumerate(pieces[:len(value)]):
                    builder.extra_attributes[owner][f'{name}.{place}'] = piece
                new = True
    builder.followed.update(builder.extra_attributes)
    return new


def _pieces_of(builder, kind: type) -> Dict[str, List[Tensor]]:
    """Labels of all pieces, where modules of a class cut off several."""
    pieces: Dict[str, List[Tensor]] = defaultdict(list)
    for piece in builder.facts.pieces:
        if type(builder.recorder.modules[piece.module]) is kind and \
                piece.module not in builder.followed:
            pieces[piece.module].append(piece.labels)
    return {path: own for path, own in pieces.items() if len(own) > 1}


def _follow_outputs(builder, path: str) -> bool:
    """Attributes that tell a module's callers how wide its output is.

    A backbone such as Swin's shapes the output of a stage by a number that
    it asks the stage for; such numbers follow the width of the output.
    """
    if path in builder.asked:
        return False
    builder.asked.add(path)
    recorder = builder.recorder
    widths: Dict[int, List[Tensor]] = defaultdict(list)
    found = builder.extra_attributes
    before = sum(map(len, found.values()))
    for call, nodes in ((call, one.nodes) for one in recorder.passes
                        for call in one.calls):
        module = recorder.modules[call.path]
        if not call.path.startswith(path) or len(call.outputs) != 1:
            continue
        labels = nodes[call.outputs[0]].labels[0]
        classes = torch.from_numpy(builder.finder.classes[labels.numpy()])
        vector = core(compress(classes)).reshape(-1)
        widths[len(vector)] = [
            own for own in widths[len(vector)] if not torch.equal(own, vector)
        ] + [vector]
        if call.path in builder.replacements or not len(
                list(module.children())):
            continue  # a layer's own numbers follow its weight
        for name, number in whole_numbers(module).items():
            if number == len(vector) > 1:
                found[call.path].setdefault(name, vector)
    for name, numbers in vars(recorder.modules[path]).items():
        # Lists of widths, not of indices or kernel sizes.
        if isinstance(numbers, (list, tuple)) and numbers and all(
                type(number) is int and number >= 8 for number in numbers):
            for place, number in enumerate(numbers):
                own, times = widths.get(number, []), numbers.count(number)
                if own and (times == 1 or len(own) in (1, times)):
                    turn = numbers[place:].count(number)
                    found[path].setdefault(f'{name}.{place}',
                                           own[-min(turn, len(own))])
    return sum(map(len, found.values())) > before


def _follow_sizes(builder, path: str) -> bool:
    """Let the sizes that a class takes off its stream follow the labels.

    Returns:
        bool: Whether there are modules of this class that are new to it.
    """
    modules = builder.recorder.modules
    while path and type(modules[path]).__module__.startswith('torch.nn'):
        path = path.rpartition('.')[0]  # it was given the wrong thing
    kind = type(modules[path])
    sites = [
        node.site for one in builder.recorder.passes for node in one.nodes
        if node.site is not None and node.site.call is not None
    ]
    with_sites = {id(site.module) for site in sites}
    found = {
        name
        for name, module in modules.items() if type(module) is kind
        and id(module) in with_sites and slim_class(module) is None
    } - builder.reshaped
    builder.reshaped |= found
    return bool(found)


def _labels_of_failing_class(builder, path: Optional[str]) -> Tensor:
    """Prunable variables in the code of a class of which many modules fail.

    Empty as long as no two modules of the class have failed.
    """
    modules = builder.recorder.modules
    while path and type(modules[path]).__module__.startswith('torch.nn'):
        path = path.rpartition('.')[0]  # it was given the wrong thing
    kind = type(modules[path or ''])
    if path:
        builder.failed[kind].add(path)
    several = path and len(builder.failed[kind]) > 1
    found = _variables_of(
        builder, lambda call: several and type(modules[call.path]) is kind)
    return found[builder.elements.own_index(found) >= 0]


def _units_within(builder, space: Space, path: Optional[str]) -> List[int]:
    """Units whose channels a module's own code or that of its owner touches.
    """
    if path is None:
        return []
    owner = path.rpartition('.')[0]
    # Queries, keys and values have the element of their head.
    index = builder.elements.index(
        _variables_of(builder, lambda call: call.path in (path, owner)))
    units = space.layout.unit_of_element[index[index >= 0]]
    return units.unique().tolist()


def _variables_of(builder, wanted: Callable) -> Tensor:
    """Variables that operations in the wanted calls touch."""
    labels = [torch.zeros(0, dtype=torch.long)]
    for recorder in builder.recorder.passes:
        for node in recorder.nodes:
            if node.call >= 0 and wanted(recorder.calls[node.call]):
                labels += node.labels
                for source in node.inputs:
                    labels += recorder.nodes[source].labels
    return torch.cat([core(x).reshape(-1) for x in labels]).unique()


def _culprit(checker, space: Space, problem, suspects: List[int]) -> int:
    """A unit that makes the networks differ when it is pruned too.

    With no unit pruned they agree, with all they differ: halving finds two
    neighbouring numbers of pruned units between which that changes. What
    fails elsewhere is another problem, which has its turn.

    Args:
        checker (Checker): Compares the networks.
        space (Space): The space.
        problem (Problem): What does not hold.
        suspects (list[int]): Units to try first.
    """

    def fails(units: Sequence[int]) -> bool:
        some = torch.ones_like(problem.selection)
        for unit in units:
            place = space.layout.slice_of(unit)
            some[place] = problem.selection[place]
        found = checker.problem(space, some)
        return found is not None and found.module == problem.module

    if not checker.same_twice and fails([]):
        raise RuntimeError(
            'two runs of the network with nothing pruned differ: it does not '
            'compute the same twice, e.g. since it changes buffers in its '
            'forward. Make it repeatable in eval mode, or trace it with '
            'check=False.')
    checker.same_twice = True
    units = list(range(len(space.units)))
    if 0 < len(suspects) < len(units) and fails(suspects):
        units = suspects
    return units[bisect_left(
        range(1, len(units)), True, key=lambda number: fails(units[:number]))]
