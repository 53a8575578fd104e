# Copyright (c) dms_razor contributors. All rights reserved.
"""Builds the search space from a finished recording."""
from collections import Counter, defaultdict
from typing import Dict, List, Optional, Sequence, Set

import numpy as np
import torch
from torch import Tensor

from ..adapters.registry import slim_name, slots_of
from ..adapters.reshaping import RESHAPED
from ..core.layout import KINDS, Layout, Unit
from ..space import Block, FullWidth, Space
from .blocks import group_stages
from .branches import find_residuals
from .costs import CostBuilder
from .labels import compress, core
from .options import (DIVIDE, INDIVISIBLE, Options, at_least, check_divisor,
                      make_unit, matches, two_stay)
from .reshaping import find_sizes
from .rules.experts import settle_choices
from .rules.multihead import settle_shown
from .sites import SiteBuilder
from .spared import spare
from .units import Elements, UnitFinder, WidthGroup
from .unseen import blocks_with, fix_unseen


class SpaceBuilder:
    """Turns recorded facts into a :class:`Space`.

    Args:
        recorder (Recorder): A finished recording.
        options (Options, optional): What may be removed. Defaults to all.
    """

    def __init__(self, recorder, options: Optional[Options] = None) -> None:
        self.recorder = recorder
        self.facts = recorder.facts
        self.wanted = options or Options()
        self.options, self.kinds = self.wanted.units, self.wanted.kinds
        # What the first recording ran: the rest has no MACs to save.
        self.measured = set(recorder.times) | {
            name.rpartition('.')[0]
            for name in recorder.touched
        } | {''}
        settle_shown(recorder)
        settle_choices(recorder)
        self.unseen = fix_unseen(recorder)
        self.blocks, self.stay = find_residuals(recorder)
        for path, part in blocks_with(self.unseen, self.blocks).items():
            self.keep_blocks([path], f'its part "{part}" was not run')
        # Set by the self-check: numbers of a module's own that follow a
        # width, and the modules for which that has been tried: numbers of
        # pieces, and numbers that a module asks its parts for.
        self.extra_attributes: Dict[str, Dict[str, Tensor]] = defaultdict(dict)
        self.followed: Set[str] = set()
        self.asked: Set[str] = set()
        # Classes whose code takes sizes off the stream, and their modules.
        self.reshaped: Set[str] = set()
        self.failed: Dict[type, Set[str]] = defaultdict(
            set)  # class -> modules that fail
        # Modules that do not run on one channel, and what they touch.
        self.two_stay: Set[str] = set()
        self.needed_twice = {
            n
            for labels in self.facts.twice
            for n in labels.tolist()
        }
        self.matched: Set[str] = set()
        stay = spare(recorder, self.wanted, self.blocks)
        for path, reason in stay.items():
            self.keep_blocks([path], reason)

    def build(self) -> Space:
        """The space; channels that turn out to be special are fixed.

        Raises:
            ValueError: If nothing can be pruned, or an option's pattern
                matches nothing.
        """
        while True:
            # A module whose slim class has slots takes pieces of any size.
            self.finder = UnitFinder(
                self.facts,
                lambda path: slots_of(self.recorder.modules[path]) is not None)
            self.elements = Elements(self.finder.classes)
            groups = self.finder.find()
            units = None if groups is None else self._width_units(groups)
            if units is not None:
                self._attention_units(units)
                self._expert_units(units)
                if not self._fix_uneven(units):
                    break
        blocks = self._depth_units(units)
        full_width = self._stays(units)
        self._check_patterns(units, full_width)
        if not units:
            why = '; '.join(f'{f.module}: {f.reason}' for f in full_width[:5])
            raise ValueError(
                'nothing can be pruned in this network. What stays and why: '
                f'{why or "no convolution or linear layer was run"}. '
                f'{self._remedy(full_width)}')
        return self._assemble(units, blocks, full_width)

    def _remedy(self, full_width: List[FullWidth]) -> str:
        """What to do about a network in which nothing can be pruned."""
        if any(INDIVISIBLE in stay.reason for stay in full_width):
            return DIVIDE
        off = [kind for kind in KINDS if kind not in self.kinds]
        if off and full_width:
            return f'Switched off are {", ".join(off)}: switch one on.'
        if any(stay.reason == 'declared fixed' for stay in full_width):
            return 'Declare less of it fixed.'
        if any('self-check cannot' in stay.reason for stay in full_width):
            return ('Give probe_inputs= for which the network returns '
                    'something that depends on them.')
        return 'Let the forward reach the layers that are to be searched.'

    def _check_patterns(self, units: List[Unit],
                        full_width: List[FullWidth]) -> None:
        stays = [stay.module for stay in full_width]
        self.wanted.check_only(self.recorder.modules,
                               [m for unit in units for m in unit.members])
        for pattern, options in self.options.items():
            kinds = {
                unit.kind
                for unit in units if any(
                    matches(name, pattern)
                    for name in (unit.name, *unit.members))
            }
            if 'divisor' in options and kinds == {'depth'}:
                check_divisor(pattern, options['divisor'], full_width)
                raise ValueError(
                    f'the unit pattern "{pattern}" gives blocks a divisor, '
                    'which channels and heads alone have. Name the numbers '
                    'of blocks that may stay: choices=[2, 4].')
            if pattern in self.matched or (options.get('fixed') and any(
                    matches(module, pattern) for module in stays)):
                continue
            names = ', '.join(unit.name for unit in units) or 'none'
            raise ValueError(
                f'the unit pattern "{pattern}" matches nothing that can be '
                f'pruned in this network. Its units are: {names}. Correct '
                'the pattern or remove it.')

    # width

    def _width_units(self, groups: List[WidthGroup]) -> Optional[List[Unit]]:
        """Units of all widths; None if some turned out to have to stay."""
        units: List[Unit] = []
        names: Counter = Counter()
        reasons = []
        for group in groups:
            name = group.modules[0]
            number, names[name] = names[name], names[name] + 1
            if number:
                name = f'{name}[{number}]'
            reason = self._add_unit(units, 'width', name, group.rows,
                                    group.modules)
            if reason is not None:
                reasons.append(reason)
                self.facts.variables.fix(torch.tensor(group.rows), reason)
        return None if reasons else units

    def _add_unit(self,
                  units: List[Unit],
                  kind: str,
                  name: str,
                  rows: Sequence[Sequence[int]],
                  modules: Sequence[str],
                  fewest: int = 1) -> Optional[str]:
        """Add a unit and number its elements; else say why there is none."""
        size, width = len(rows[0]), kind == 'width'
        options = self._options_of([name, *modules] if width else [name])
        step = options.get('divisor') or self.finder.step_of(rows)
        if kind not in self.kinds:
            return f'{kind} is not searched'
        if self.measured.isdisjoint(modules):
            return 'it runs in train mode alone, where nothing is counted'
        if options.get('fixed'):
            return 'declared fixed' if width else f'its {kind}: declared fixed'
        outside = self.wanted.outside(modules)
        if outside is not None:
            return outside
        if size % step:
            what = f'{size} channels are' if width else f'{kind}: {size} is'
            return f'its {what} {INDIVISIBLE} {step}'
        if size == step:
            what = 'channels' if width else kind
            return f'its {what} go together, there is no choice'
        if width and step == 1 and self._needed_twice(rows):
            options = two_stay(options, size)
            if options is None:
                return 'what touches it does not run on one channel'
        options = at_least(name, options, fewest, size, step)
        unit = make_unit(name, kind, size, len(rows), step, options,
                         tuple(modules))
        first = sum(u.elements for u in units)
        for row in rows:
            self.elements.own[row] = first + np.arange(size) // step
            first += unit.size
        units.append(unit)
        return None

    def _needed_twice(self, rows: Sequence[Sequence[int]]) -> bool:
        """Whether what touches these channels does not run on one alone."""
        needed = self.finder.classes[sorted(self.needed_twice)]
        return bool(np.isin(np.concatenate(rows), needed).any())

    def _options_of(self, names: Sequence[str]) -> dict:
        merged: dict = {}
        for pattern, options in self.options.items():
            if any(matches(name, pattern) for name in names):
                self.matched.add(pattern)
                merged.update(options)
        return merged

    def _attention_units(self, units: List[Unit]) -> None:
        """Units of heads, query/key dims and value dims of each layer."""
        self.replacements: Dict[str, str] = {}
        self.attention_stays: List[FullWidth] = []
        classes, known = self.finder.classes, {}
        stays: Dict[bytes, str] = defaultdict(str)
        for fact in self.finder.attention:
            for labels in (fact.heads, fact.inner):
                if labels is not None:
                    stays[classes[labels.numpy()].tobytes()] += fact.stays
        for fact in self.finder.attention:
            path = fact.module
            slim = slim_name(self.recorder.modules[path])
            rows = dict(heads=classes[fact.heads.numpy()][None])
            if fact.inner is not None:
                rows['query_heads'] = classes[fact.inner.numpy()]
            elif slim is not None:
                rows.update(
                    qk=self.finder.dims(fact, fact.queries),
                    v=self.finder.dims(fact, fact.values))
            found = False
            for name, own in rows.items():
                kind = name.rpartition('_')[2]
                reason = own if isinstance(own, str) else ''
                if kind == 'heads':
                    # Layers that share a bias of each head share their heads.
                    key = own.tobytes()
                    if key not in known:
                        known[key] = stays[key] or self._add_unit(
                            units, kind, f'{path}.{name}', own, [path])
                    reason = known[key]
                else:
                    reason = reason or self._add_unit(
                        units, kind, f'{path}.{name}', own, [path])
                found |= not reason
                if reason and kind in self.kinds and len(own[0]) > 1:
                    self.attention_stays.append(FullWidth(path, reason))
            self.elements.join_heads(fact)
            if found and slim is not None:
                self.replacements[path] = slim

    def _expert_units(self, units: List[Unit]) -> None:
        """Units of the experts that routers choose among."""
        for roots, choice in self.finder.choices.items():
            path = choice.module
            reason = self._add_unit(units, 'experts', f'{path}.experts',
                                    [list(roots)], [path], choice.least)
            if reason and 'experts' in self.kinds:
                self.attention_stays.append(FullWidth(path, reason))

    def _fix_uneven(self, units: List[Unit]) -> bool:
        """Fix units that an axis holds unevenly: no closed form for it."""
        if not units:
            return False
        layout = Layout(units)
        rows = layout.row_of_element
        for axis in {  # each vector once
                axis.labels.numpy().tobytes(): axis
                for axis in self.facts.axes.values()
        }.values():
            index = self.elements.index(axis.labels)
            elements = index[index >= 0]
            times = torch.bincount(elements, minlength=layout.E)
            low, high = (
                times.new_zeros(layout.R).scatter_reduce(
                    0, rows, times, extreme, include_self=False)
                for extreme in ('amin', 'amax'))
            bad = (low != high)[rows].nonzero().flatten()
            if len(bad):
                fix = torch.isin(index, bad).reshape(len(index), -1).any(1)
                self.facts.variables.fix(
                    axis.labels[fix], f'"{axis.name}" holds only a part of '
                    'these channels')
                return True
        for name, labels in self.facts.entry_labels.items():
            try:
                self.elements.entry_axis(labels)
            except ValueError:
                self.facts.variables.fix(
                    labels, f'"{name}" holds these channels in several '
                    'dimensions')
                return True
        return False

    def keep_blocks(self, paths: Sequence[str], reason: str) -> None:
        """Blocks that turned out to have to stay."""
        self.blocks = [b for b in self.blocks if b.path not in paths]
        self.stay += [FullWidth(path, reason) for path in paths]

    # depth

    def _depth_units(self, units: List[Unit]) -> List[Block]:
        if 'depth' not in self.kinds:
            return []
        streams = []
        for block in self.blocks:
            labels = block.stream
            classes = self.finder.classes[core(labels).numpy()]
            classes = core(compress(torch.from_numpy(classes)))
            streams.append((classes.numpy().tobytes(), tuple(labels.shape)))
        stages = group_stages(self.blocks, streams)
        parents = [stage[0].stage for stage in stages]
        first = sum(unit.elements for unit in units)
        blocks = []
        for stage, parent in zip(stages, parents):
            name = parent
            if parents.count(parent) > 1 or not parent:
                start = len(parent) + 1 if parent else 0
                name = '{}[{}:{}]'.format(parent, stage[0].path[start:],
                                          stage[-1].path[start:])
            options = self._options_of([name] + [b.path for b in stage])
            if options.get('fixed'):
                self.keep_blocks([b.path for b in stage], 'declared fixed')
                continue
            units.append(
                make_unit(name, 'depth', len(stage), 1, 1, options,
                          tuple(b.path for b in stage)))
            blocks += [
                Block(block.path, first + number, block.tails, block.branch)
                for number, block in enumerate(stage)
            ]
            first += len(stage)
        return blocks

    # everything else

    def _stays(self, units: List[Unit]) -> List[FullWidth]:
        stays: Dict[str, str] = {}
        for producer in self.facts.producers:
            roots = self.finder.roots(producer.labels)
            reasons = [
                self.finder.fixed[root] for root in roots
                if root in self.finder.fixed
            ]
            if reasons:
                partly = 'partly: ' if len(reasons) < len(roots) else ''
                stays.setdefault(producer.module, partly + reasons[0])
        for recorder in self.recorder.passes:
            for operation in recorder.operations:
                path = operation.module
                if len(operation.axes) == 0 and path not in stays:
                    stays[path] = self._why_unlabelled(recorder, operation)
        result = [FullWidth(*item) for item in stays.items()]
        return result + self.attention_stays + self.stay + self.unseen

    def _why_unlabelled(self, recorder, operation) -> str:
        roots = [
            root for labels in recorder.nodes[operation.node].labels
            for root in self.finder.roots(core(labels))
        ]
        return next(
            (self.finder.fixed[r] for r in roots if r in self.finder.fixed),
            f'{operation.op} of activations')

    def _assemble(self, units, blocks, full_width) -> Space:
        layout = Layout(units)
        sites = SiteBuilder(self.recorder, self.elements,
                            self.finder.attention, self.replacements,
                            self.extra_attributes, blocks)
        sites.find_around()
        costs = CostBuilder(self.recorder, sites, layout, blocks)
        modules, attributes = self.recorder.modules, sites.attributes()
        sizes = find_sizes(self.recorder, self.elements, self.reshaped)
        for path, numbers in sizes.items():
            self.replacements[path] = RESHAPED
            attributes.setdefault(path, {}).update(numbers)
        return Space(
            units=units,
            layout=layout,
            mask_sites=sites.masks(),
            slice_sites=sites.slices(),
            blocks=blocks,
            resource=costs.build(),
            full_width=full_width,
            attributes=attributes,
            producers={
                unit.name: [(m, type(modules[m]).__name__)
                            for m in unit.members]
                for unit in units if unit.kind == 'width'
            },
            norm_sites=sites.norms(),
            replacements=self.replacements)
