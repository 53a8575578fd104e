# Copyright (c) dms_razor contributors. All rights reserved.
"""Builds the search space from a finished recording."""
from fnmatch import fnmatchcase
from math import prod
from typing import Dict, List, Optional, Sequence, Set, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ..core.layout import KINDS, Layout, Unit
from ..core.resource import Axis, Cost, ResourceModel, Term
from ..subnet.slim import slim_class, slim_name
from .attention_units import AttentionGroup, projection_of
from .labels import compress, core
from .residual import NotRemovable, ResidualFinder, group_stages
from .space import Block, FullWidth, MaskSite, NormSite, SliceSite, Space
from .units import UnitFinder, WidthGroup

OPTIONS = ('fixed', 'divisor', 'least', 'most')


class SpaceBuilder:
    """Turns recorded facts into a :class:`Space`.

    Args:
        recorder (Recorder): A finished recording.
        units (dict[str, dict], optional): Name pattern -> options, see
            :func:`dms_razor.tracing.trace`.
        kinds (Sequence[str]): Kinds of units to search. Defaults to all.
    """

    def __init__(self,
                 recorder,
                 units: Optional[Dict[str, dict]] = None,
                 kinds: Sequence[str] = KINDS) -> None:
        self.recorder = recorder
        self.facts = recorder.facts
        self.options = check_options(units or {})
        self.kinds = kinds
        self.blocks, self.stay = ResidualFinder(recorder).find()
        # Set by the self-check: numbers of a module's own that follow a
        # width, and the modules for which that has been tried: numbers of
        # pieces, and numbers that a module asks its parts for.
        self.extra_attributes: Dict[str, Dict[str, Tensor]] = {}
        self.followed: Set[str] = set()
        self.asked: Set[str] = set()
        self._full_width: List[FullWidth] = []

    def build(self) -> Space:
        """The space; channels that turn out to be special are fixed.

        Raises:
            ValueError: If nothing can be pruned, or an option's pattern
                matches nothing.
        """
        while True:
            self.finder = UnitFinder(self.facts, self._splits_freely)
            groups = self.finder.find()
            if groups is None:
                continue
            self.matched = set()
            units = self._width_units(groups)
            if units is None:
                continue
            self.element_of = np.full(len(self.finder.classes), -1)
            self.head_of = np.full(len(self.finder.classes), -1)
            self._number_elements(groups, units)
            self._attention_units(units)
            if self._fix_uneven(units):
                continue
            break
        blocks = self._depth_units(units)
        for pattern in self.options:
            if pattern not in self.matched:
                names = ', '.join(unit.name for unit in units) or 'none'
                raise ValueError(
                    f'the unit pattern "{pattern}" matches nothing in this '
                    f'network. Its units are: {names}. Correct the pattern '
                    'or remove it.')
        full_width = self._stays(units)
        if not units:
            why = '; '.join(f'{f.module}: {f.reason}' for f in full_width[:5])
            raise ValueError(
                'nothing can be pruned in this network. What stays and why: '
                f'{why or "no convolution or linear layer was run"}. Let the '
                'forward reach the layers that are to be searched.')
        return self._assemble(units, blocks, full_width)

    def _splits_freely(self, path: str) -> bool:
        """Whether a module's slim class takes pieces of any size."""
        return hasattr(slim_class(self.recorder.modules[path]), 'slots')

    # width

    def _width_units(self, groups: List[WidthGroup]) -> Optional[List[Unit]]:
        units, names = [], {}
        for group in groups:
            name = group.modules[0]
            names[name] = names.get(name, -1) + 1
            if names[name]:
                name = f'{name}[{names[name]}]'
            size, step = len(group.rows[0]), 1
            options = self._options_of([name] + group.modules)
            reason = None
            if 'width' not in self.kinds:
                reason = 'width is not searched'
            elif options.get('fixed'):
                reason = 'declared fixed'
            elif 'divisor' in options:
                step = options['divisor']
                if size % step:
                    reason = f'its {size} channels are no multiple of the ' \
                        f'step {step}'
            if reason is not None:
                rows = torch.tensor(group.rows)
                self.facts.variables.fix(rows, reason)
                return None
            units.append(
                make_unit(name, 'width', size, len(group.rows), step, options,
                          tuple(group.modules)))
        return units

    def _options_of(self, names: Sequence[str]) -> dict:
        merged: dict = {}
        for pattern, options in self.options.items():
            if any(fnmatchcase(name, pattern) for name in names):
                self.matched.add(pattern)
                merged.update(options)
        return merged

    def _number_elements(self, groups, units) -> None:
        first = 0
        for group, unit in zip(groups, units):
            for row in group.rows:
                numbers = np.arange(len(row)) // unit.step
                self.element_of[row] = first + numbers
                first += unit.size

    def _attention_units(self, units: List[Unit]) -> None:
        """Units of heads, query/key dims and value dims of each layer."""
        self.replacements: Dict[str, str] = {}
        for group in self.finder.attention:
            slim = slim_name(self.recorder.modules[group.module])
            before = len(units)
            heads = self._attention_unit(units, group, 'heads', [group.heads])
            if slim is not None:
                self._attention_unit(units, group, 'qk', group.queries)
                self._attention_unit(units, group, 'v', group.values)
            if heads:
                for rows in (group.queries, group.values):
                    for root, row in zip(group.heads, rows):
                        self.head_of[row] = self.element_of[root]
            if len(units) > before and slim is not None:
                self.replacements[group.module] = slim

    def _attention_unit(self, units: List[Unit], group: AttentionGroup,
                        kind: str, rows: List[List[int]]) -> bool:
        """Add one unit and number its elements, if it can be searched."""
        name, size = f'{group.module}.{kind}', len(rows[0])
        options = self._options_of([name])
        step = options.get('divisor', 1)
        if kind not in self.kinds or options.get('fixed') or size < 2 or \
                size % step:
            return False
        unit = make_unit(name, kind, size, len(rows), step, options,
                         (group.module, ))
        first = sum(u.elements for u in units)
        for row in rows:
            self.element_of[row] = first + np.arange(size) // step
            first += unit.size
        units.append(unit)
        return True

    def index(self, labels: Tensor) -> Tensor:
        """Element of each label, -1 where nothing can be pruned.

        Returns:
            Tensor: int64, the shape of ``labels``; with a last dimension of 2
            (own element, element of the head) if some belong to heads.
        """
        classes = self.finder.classes[labels.numpy()]
        own = torch.from_numpy(self.element_of[classes])
        head = torch.from_numpy(self.head_of[classes])
        return torch.stack([own, head], -1) if bool((head >= 0).any()) else own

    def _entry_axis(self, labels: Tensor) -> Optional[Tuple[int, Tensor]]:
        """Axis of a parameter used elementwise, and its elements; or None.

        Raises:
            ValueError: Its channels lie along several axes.
        """
        index = self.index(labels)
        if not bool((index >= 0).any()):
            return None
        code = index if index.shape == labels.shape else \
            index[..., 0] * len(self.element_of) * 2 + index[..., 1]
        shape = core(compress(code)).shape
        varying = [dim for dim, size in enumerate(shape) if size > 1]
        if len(varying) != 1:
            raise ValueError
        axis = varying[0]
        for dim in range(labels.dim() - 1, -1, -1):
            if dim != axis:
                index = index.select(dim, 0)
        return axis, index.contiguous()

    def _fix_uneven(self, units: List[Unit]) -> bool:
        """Fix units that an axis holds unevenly: no closed form for it."""
        if not units:
            return False
        layout = Layout(units)
        rows = layout.row_of_element
        for axis in list(self.facts.axes.values()):
            index = self.index(axis.labels)
            elements = index[index >= 0]
            times = torch.bincount(elements, minlength=layout.E)
            low = torch.full((layout.R, ), layout.E * 64)
            low = low.scatter_reduce(0, rows, times, 'amin')
            high = torch.zeros(layout.R, dtype=torch.long)
            high = high.scatter_reduce(0, rows, times, 'amax')
            bad = (low != high)[rows].nonzero().flatten()
            if len(bad):
                fix = torch.isin(index, bad).reshape(len(index), -1).any(1)
                self.facts.variables.fix(
                    axis.labels[fix], f'"{axis.name}" holds only a part of '
                    'these channels')
                return True
        for name, labels in self.facts.entry_labels.items():
            try:
                self._entry_axis(labels)
            except ValueError:
                self.facts.variables.fix(
                    labels, f'"{name}" holds these channels in several '
                    'dimensions')
                return True
        return False

    def keep_blocks(self, paths: Sequence[str], reason: str) -> None:
        """Blocks that turned out to have to stay."""
        self.blocks = [b for b in self.blocks if b.path not in paths]
        self.stay += [NotRemovable(path, reason) for path in paths]

    # depth

    def _depth_units(self, units: List[Unit]) -> List[Block]:
        if 'depth' not in self.kinds:
            return []
        streams = []
        for block in self.blocks:
            labels = self.recorder.calls[block.call].source
            classes = self.finder.classes[core(labels).numpy()]
            streams.append((classes.tobytes(), tuple(labels.shape)))
        stages = group_stages(self.blocks, streams)
        parents = [stage[0].path.rpartition('.')[0] for stage in stages]
        first = sum(unit.elements for unit in units)
        blocks = []
        for stage, parent in zip(stages, parents):
            name = parent
            if parents.count(parent) > 1 or not parent:
                ends = (stage[0].path, stage[-1].path)
                name = '{}[{}:{}]'.format(
                    parent, *(end.rpartition('.')[2] for end in ends))
            options = self._options_of([name] + [b.path for b in stage])
            if options.get('fixed'):
                self.keep_blocks([b.path for b in stage], 'declared fixed')
                continue
            units.append(
                Unit(
                    name,
                    'depth',
                    len(stage),
                    least=options.get('least'),
                    most=options.get('most'),
                    members=tuple(b.path for b in stage)))
            for block in stage:
                blocks.append(Block(block.path, first, block.tails))
                first += 1
        return blocks

    # everything else

    def _stays(self, units: List[Unit]) -> List[FullWidth]:
        stays: Dict[str, str] = {}
        for producer in self.facts.producers:
            for root in self.finder.roots(producer.labels):
                if root in self.finder.fixed:
                    stays.setdefault(producer.module, self.finder.fixed[root])
                    break
        for operation in self.facts.operations:
            path = operation.module
            if len(operation.axes) == 0 and path not in stays:
                stays[path] = self._why_unlabelled(operation)
        result = [FullWidth(*item) for item in stays.items()]
        return result + [FullWidth(b.path, b.reason) for b in self.stay]

    def _why_unlabelled(self, operation) -> str:
        node = self.recorder.nodes[operation.node]
        for labels in node.labels:
            for root in self.finder.roots(core(labels)):
                if root in self.finder.fixed:
                    return self.finder.fixed[root]
        return f'{operation.op} of activations'

    def _assemble(self, units, blocks, full_width) -> Space:
        layout = Layout(units)
        slices: Dict[str, List[SliceSite]] = {}
        masks = []
        self._find_slots(blocks)
        for axis in self.facts.axes.values():
            index = self.index(axis.labels)
            site = self.slots.get((axis.name, axis.axis))
            if site is None:
                site = SliceSite(axis.name, axis.axis, index, axis.groups)
            if bool((site.index >= 0).any()):
                slices.setdefault(axis.name, []).append(site)
            if axis.reads and bool((index >= 0).any()):
                module, _, tensor = axis.name.rpartition('.')
                masks.append(
                    MaskSite(module, tensor, axis.axis, index, axis.groups))
        for name, labels in self.facts.entry_labels.items():
            found = self._entry_axis(labels)
            if found is not None:
                slices.setdefault(name, []).append(SliceSite(name, *found))
        masks += self._query_masks()
        producers = {}
        for unit in units:
            if unit.kind == 'width':
                producers[unit.name] = [
                    (m, type(self.recorder.modules[m]).__name__)
                    for m in unit.members
                ]
        return Space(
            units=units,
            layout=layout,
            mask_sites=masks,
            slice_sites=slices,
            blocks=blocks,
            resource=self._resource(layout, blocks),
            full_width=full_width,
            attributes=self._attributes(),
            producers=producers,
            norm_sites=[
                NormSite(norm.module, norm.op, self.index(norm.labels),
                         norm.groups) for norm in self.facts.norms.values()
                if bool((self.index(norm.labels) >= 0).any())
            ],
            replacements=self.replacements)

    def _find_slots(self, blocks: List[Block]) -> None:
        """Channels of a concatenation that go with a block (C2f stages)."""
        elements = {block.path: block.element for block in blocks}
        self.slots: Dict[Tuple[str, int], SliceSite] = {}
        for path, module in self.recorder.modules.items():
            slim = slim_class(module)
            if slim is None or not hasattr(slim, 'slots'):
                continue
            layer, starts = slim.slots(module)
            name, width = f'{path}.{layer}.weight', slim.slot_width(module)
            found = self.facts.axes.get((name, 1))
            if found is None:
                continue
            own = self.index(found.labels)
            block = torch.full_like(own, -1)
            fold = torch.full_like(own, -1)
            for block_path, start in starts:
                element = elements.get(f'{path}.{block_path}')
                if element is not None:
                    block[start:start + width] = element
                    fold[start:start + width] = torch.arange(
                        start - width, start)
            if bool((block >= 0).any()):
                self.slots[name, 1] = SliceSite(
                    name, 1, torch.stack([own, block], -1), fold=fold)
            numbers = self.extra_attributes.setdefault(path, {})
            pieces = [p for p in self.facts.pieces if p.module == path]
            for number, piece in enumerate(pieces):
                numbers[f'splits.{number}'] = piece.labels
            if bool((own >= 0).any()) or bool((block >= 0).any()):
                self.replacements[path] = slim_name(module)

    def _attributes(self) -> Dict[str, Dict[str, Tensor]]:
        """Numbers in standard layers that follow the shape of a weight."""
        result: Dict[str, Dict[str, Tensor]] = {}
        for (name, axis), found in self.facts.axes.items():
            path, _, tensor = name.rpartition('.')
            module = self.recorder.modules[path]
            index = self.index(found.labels)
            if tensor != 'weight' or not bool((index >= 0).any()):
                continue
            names = attribute_names(module, axis)
            if isinstance(module, nn.modules.conv._ConvNd) and axis == 0 and \
                    module.groups == module.in_channels > 1:
                times = module.out_channels // module.groups
                inputs = result.setdefault(path, {})
                inputs['in_channels'] = index[::times].clone()
                inputs['groups'] = index[::times].clone()
            for attribute in names:
                if hasattr(module, attribute):
                    result.setdefault(path, {})[attribute] = index
        for group in self.finder.attention:
            self._attention_attributes(group, result)
        for path, norm in self.facts.norms.items():
            index = self.index(norm.labels)
            for name in ('normalized_shape', 'num_channels'):
                value = getattr(self.recorder.modules[path], name, None)
                if bool((index >= 0).any()) and value in (len(index),
                                                          (len(index), )):
                    result.setdefault(path, {})[name] = index
        for path, extra in self.extra_attributes.items():
            for attribute, labels in extra.items():
                index = self.index(labels)
                if bool((index >= 0).any()):
                    result.setdefault(path, {})[attribute] = index
        return result

    def _attention_attributes(self, group: AttentionGroup,
                              result: Dict[str, Dict[str, Tensor]]) -> None:
        """Numbers of an attention layer that follow heads and dims."""
        module = self.recorder.modules[group.module]
        fact = group.fact
        indices = {
            len(fact.heads): self.index(fact.heads),
            fact.values.numel(): self.index(fact.values.reshape(-1)),
        }
        if group.module in self.replacements:
            for name, labels in (('qk_dims', fact.queries), ('v_dims',
                                                             fact.values)):
                own = self.element_of[self.finder.classes[labels[0].numpy()]]
                result.setdefault(group.module,
                                  {})[name] = torch.from_numpy(own)
            names = slim_class(module).dms_numbers
        else:
            names = [n for n, v in vars(module).items() if type(v) is int]
        for name in names:
            index = indices.get(getattr(module, name, None))
            if index is not None and bool((index >= 0).any()):
                result.setdefault(group.module, {})[name] = index

    def _query_masks(self) -> List[MaskSite]:
        """Query/key masks act once, on what makes the queries."""
        sites = []
        for group in self.finder.attention:
            wanted = group.fact.queries.reshape(-1)
            for name in projection_of(self.facts, wanted):
                labels = self.facts.axes[name, 0].labels
                index = torch.from_numpy(
                    self.element_of[self.finder.classes[labels.numpy()]])
                index = torch.where(torch.isin(labels, wanted), index, -1)
                if bool((index >= 0).any()):
                    module, _, tensor = name.rpartition('.')
                    sites.append(MaskSite(module, tensor, 0, index))
        return sites

    def _resource(self, layout: Layout, blocks: List[Block]) -> ResourceModel:
        self._axes: List[Axis] = []
        self._axis_ids: Dict[bytes, int] = {}
        elements = {block.path: block.element for block in blocks}
        costs = []
        for op in self.facts.operations:
            ids = [self._axis(labels, layout) for labels in op.axes]
            slot = self.slots.get((f'{op.module}.weight', 1))
            if slot is not None:
                ids[0] = self._axis_of_index(slot.index, layout)
            costs.append(
                Cost(op.module, op.op, 'macs', op.coefficient, tuple(ids),
                     enclosing(op.module, elements)))
        for name, parameter in self.recorder.model.named_parameters():
            path = name.rpartition('.')[0]
            sizes, ids = [], []
            for axis in range(parameter.dim()):
                found = self.facts.axes.get((name, axis))
                if found is not None:
                    sizes.append(len(found.labels))
                    slot = self.slots.get((name, axis))
                    ids.append(
                        self._axis(found.labels, layout) if slot is
                        None else self._axis_of_index(slot.index, layout))
            labels = self.facts.entry_labels.get(name)
            found = None
            if labels is not None and not ids:
                found = self._entry_axis(labels)
            if found is not None:
                sizes.append(len(found[1]))
                ids.append(self._axis_of_index(found[1], layout))
            costs.append(
                Cost(name, 'parameter', 'params',
                     parameter.numel() / prod(sizes), tuple(ids),
                     enclosing(path, elements)))
        return ResourceModel(self._axes, costs, layout)

    def _axis(self, labels: Tensor, layout: Layout) -> int:
        return self._axis_of_index(self.index(labels), layout)

    def _axis_of_index(self, index: Tensor, layout: Layout) -> int:
        key = index.numpy().tobytes()
        if key not in self._axis_ids:
            # A factor is the count of a unit, or the mask of a block.
            factor = torch.where(layout.depth_elements,
                                 1 + layout.U + torch.arange(layout.E),
                                 1 + layout.unit_of_element)
            factors = torch.where(index < 0, 0, factor[index.clamp(min=0)])
            rows, entries = torch.unique(
                factors.reshape(len(index), -1), dim=0, return_counts=True)
            terms = []
            for row, number in zip(rows.tolist(), entries.tolist()):
                row = tuple(f for f in row if f)
                size = prod(layout.units[f - 1].size for f in row
                            if f <= layout.U)
                terms.append(Term(number / size, row))
            self._axis_ids[key] = len(self._axes)
            self._axes.append(Axis(tuple(terms)))
        return self._axis_ids[key]


def make_unit(name: str, kind: str, size: int, groups: int, step: int,
              options: dict, members: Tuple[str, ...]) -> Unit:
    """A unit of ``size`` channels a group with the user's bounds.

    Raises:
        ValueError: A bound is no multiple of the step.
    """
    bounds = {}
    for key in ('least', 'most'):
        bound = options.get(key)
        if bound is not None and bound % step:
            raise ValueError(f'unit "{name}": {key}={bound} channels are no '
                             f'multiple of its step {step}')
        bounds[key] = None if bound is None else bound // step
    return Unit(
        name, kind, size // step, groups, step, members=members, **bounds)


def enclosing(path: str, elements: Dict[str, int]) -> Tuple[int, ...]:
    """Elements of the blocks that ``path`` lies in, outermost first."""
    parts = path.split('.')
    prefixes = ['.'.join(parts[:n + 1]) for n in range(len(parts))]
    return tuple(elements[p] for p in prefixes if p in elements)


def attribute_names(module: nn.Module, axis: int) -> Tuple[str, ...]:
    """Attributes of a standard layer that give the size of a weight's axis."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return (('in_channels', ), ('out_channels', ))[axis]
    if isinstance(module, nn.modules.conv._ConvNd):
        return (('out_channels', ), ('in_channels', ))[axis]
    if isinstance(module, nn.Linear):
        return (('out_features', ), ('in_features', ))[axis]
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        return ()
    if isinstance(module, nn.PReLU):
        return ('num_parameters', )
    return ('num_features', )


def check_options(units: Dict[str, dict]) -> Dict[str, dict]:
    """Check the options of units; see :func:`dms_razor.tracing.trace`.

    Raises:
        ValueError: An option is unknown or no positive whole number.
    """
    for pattern, options in units.items():
        for key, value in dict(options).items():
            if key not in OPTIONS:
                raise ValueError(
                    f'units["{pattern}"] has the unknown option "{key}"; use '
                    f'{", ".join(OPTIONS)}')
            if key != 'fixed' and (not isinstance(value, int) or value < 1) \
                    and not (key == 'least' and value == 0):
                raise ValueError(f'units["{pattern}"]: {key}={value!r} is no '
                                 'positive whole number')
    return units
