# Copyright (c) dms_razor contributors. All rights reserved.
"""Where masks act, how tensors shrink and which numbers of layers follow."""
import re
from typing import Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..adapters.registry import Slots, slim_class, slim_name, slots_of
from ..space import Block, MaskSite, NormSite, SliceSite
from .facts import Heads
from .labels import vector_along
from .rules.table import has
from .units import Elements, projection_of


def prunable(index: Tensor) -> bool:
    """Whether some entry belongs to an element."""
    return bool((index >= 0).any())


class SiteBuilder:
    """Turns facts and elements into sites.

    Args:
        recorder (Recorder): The finished recording.
        elements (Elements): Element of every channel.
        attention (list[Heads]): Attention layers with units.
        replacements (dict[str, str]): Layers that get a slim class; modules
            with slots are added.
        extra (dict[str, dict[str, Tensor]]): Further numbers of modules and
            the labels that they follow; those of slim modules are added.
        blocks (list[Block]): Removable blocks.
    """

    def __init__(self, recorder, elements: Elements, attention: List[Heads],
                 replacements: Dict[str, str], extra: Dict[str, Dict[str,
                                                                     Tensor]],
                 blocks: List[Block]) -> None:
        self.modules, self.facts = recorder.modules, recorder.facts
        self.elements, self.attention = elements, attention
        self.replacements, self.extra_attributes = replacements, extra
        self.folding = MaskFolding(recorder)
        self.slots: Dict[Tuple[str, int], SliceSite] = {}
        found = {b.path: b.element for b in blocks if not b.branch}
        for path, module in self.modules.items():
            slots = slots_of(module)
            if slots is not None:
                self._find_slots(path, slots, found)
        self.gone = [part.path for b in blocks for part in b.stand_ins]
        self.calls = recorder.calls

    def index_of(self, name: str, axis: int) -> Optional[Tensor]:
        """Elements along an axis of a tensor; None if it holds no channels."""
        if (name, axis) in self.slots:
            return self.slots[name, axis].index
        found = self.facts.axes.get((name, axis))
        return None if found is None else self.elements.index(found.labels)

    def slices(self) -> Dict[str, List[SliceSite]]:
        """How parameters and buffers shrink."""
        result: Dict[str, List[SliceSite]] = {}
        for (name, axis), found in self.facts.axes.items():
            index = self.index_of(name, axis)
            if prunable(index):
                site = SliceSite(name, axis, index, found.groups)
                result.setdefault(name, []).append(
                    self.slots.get((name, axis), site))
        for name, labels in self.facts.entry_labels.items():
            held = self.elements.entry_axis(labels)
            if held is not None:
                result.setdefault(name, []).append(SliceSite(name, *held))
        return result

    def masks(self) -> List[MaskSite]:
        """Where layers read masks: what they sum up, and queries."""
        result = []
        for axis in self.facts.axes.values():
            index = self.elements.index(axis.labels)
            weight = self.facts.read_how.get(axis.name)
            rows = weight is not None and weight.rows and (
                axis.name, axis.axis) == (weight.name, weight.axes[0])
            if not (axis.reads or rows) or not prunable(index):
                continue
            names = self.facts.read_as.get(axis.name) or {axis.name}
            for name in sorted(names):
                affine = () if weight is not None else self.folding.norm_of(
                    name.rpartition('.')[0], len(index))
                for part in affine:
                    norm, _, scale = part.rpartition('.')
                    result.append(MaskSite(norm, scale, 0, index))
                if not affine:
                    result.append(
                        self._site(name, axis.axis, index, axis.groups))
        return result + self._query_masks()

    def _site(self,
              name: str,
              axis: int,
              index: Tensor,
              groups: int = 1) -> MaskSite:
        """Where a parameter reads masks, and who reads it then."""
        module, _, tensor = name.rpartition('.')
        weight = self.facts.read_how.get(name)
        return MaskSite(module, tensor, axis, index, groups,
                        'plain' if weight is None else weight.how,
                        tuple(sorted(self.facts.borrowed.get(name, ()))))

    def norms(self) -> List[NormSite]:
        """Norms whose statistics follow the masks."""
        sites = [
            NormSite(norm.module, norm.op, self.elements.index(norm.labels),
                     norm.groups) for norm in self.facts.norms.values()
        ]
        return [site for site in sites if prunable(site.index)]

    def _find_slots(self, path: str, slots: Slots, blocks: Dict[str,
                                                                int]) -> None:
        """Channels of a concatenation that go with a block."""
        name = f'{path}.{slots.layer}.weight'
        own = self.index_of(name, 1)
        if own is None:
            return
        block, fold = torch.full_like(own, -1), torch.full_like(own, -1)
        for block_path, start in slots.starts:
            stop = start + slots.width
            if f'{path}.{block_path}' in blocks:
                block[start:stop] = blocks[f'{path}.{block_path}']
                fold[start:stop] = torch.arange(start, stop) - slots.width
        if prunable(block):
            self.slots[name, 1] = SliceSite(
                name, 1, torch.stack([own, block], -1), fold=fold)
        numbers = self.extra_attributes[path]
        pieces = [p for p in self.facts.pieces if p.module == path]
        for number, piece in enumerate(pieces):
            numbers[f'{slots.pieces}.{number}'] = piece.labels
        if prunable(own) or prunable(block):
            self.replacements[path] = slim_name(self.modules[path])

    def find_around(self) -> None:
        """Slim classes of modules that change with what is in them."""
        changed = [*self.slices(), *self.gone]
        for path, module in self.modules.items():
            known = slim_class(module)
            start = f'{path}.' if path else ''
            if not getattr(known, 'dms_around', False) or not any(
                    name.startswith(start) for name in changed):
                continue
            self.replacements[path] = slim_name(module)
            source = next((call.source
                           for call in self.calls if call.path == path), None)
            for name in getattr(known, 'dms_source_numbers', ()):
                if source is not None:
                    labels = vector_along(source, -1)
                    self.extra_attributes[path].setdefault(name, labels)

    def attributes(self) -> Dict[str, Dict[str, Tensor]]:
        """Numbers in standard layers that follow the shape of a weight."""
        result: Dict[str, Dict[str, Tensor]] = {}

        def follow(path: str, name: str, index: Tensor) -> None:
            if prunable(index):
                result.setdefault(path, {})[name] = index

        for (name, axis), path in self._layers():
            module, index = self.modules[path], self.index_of(name, axis)
            if isinstance(module, nn.modules.conv._ConvNd) and axis == 0 and \
                    module.groups == module.in_channels > 1:
                times = module.out_channels // module.groups
                follow(path, 'in_channels', index[::times].clone())
                follow(path, 'groups', index[::times].clone())
                follow(path, 'out_channels', index)
            reads = self.facts.axes[name, axis].reads
            for attribute in size_names(module, axis, len(index), reads):
                follow(path, attribute, index)
        for weight in self.facts.computed:
            for axis, own in enumerate(weight.axes):
                names = attribute_names(self.modules[weight.module], axis)
                found = self.index_of(weight.name, own)
                if found is not None and names not in ('', 'num_features') \
                        and hasattr(self.modules[weight.module], names):
                    follow(weight.module, names, found)
        for fact in self.attention:
            for attribute, index in self._attention_attributes(fact):
                follow(fact.module, attribute, index)
        for path, norm in self.facts.norms.items():
            index = self.elements.index(norm.labels)
            for attribute in ('normalized_shape', 'num_channels'):
                value = getattr(self.modules[path], attribute, None)
                if value in (len(index), (len(index), )):
                    follow(path, attribute, index)
        for path, extra in (*self.facts.numbers.items(),
                            *self.extra_attributes.items()):
            for attribute, labels in extra.items():
                follow(path, attribute, self.elements.index(labels))
        return result

    def _layers(self) -> Iterator[Tuple[Tuple[str, int], str]]:
        """Weights by axis, and the layers that have them."""
        for name, axis in self.facts.axes:
            for own in sorted({name, *self.facts.read_as.get(name, ())}):
                path, _, tensor = own.rpartition('.')
                if tensor == 'weight':
                    yield (name, axis), path

    def _attention_attributes(self,
                              fact: Heads) -> Iterator[Tuple[str, Tensor]]:
        """Numbers of an attention layer that follow heads and dims."""
        module, index = self.modules[fact.module], self.elements.index
        numbers = whole_numbers(module)
        if fact.module in self.replacements:
            yield 'qk_dims', self.elements.own_index(fact.queries[0])
            yield 'v_dims', self.elements.own_index(fact.values[0])
            wanted = slim_class(module).dms_numbers
            numbers = {n: numbers[n] for n in wanted if n in numbers}
        for name, number in numbers.items():
            for says, size, labels in (
                (_HEADS, len(fact.scores), fact.scores),
                (_KEY_HEADS, len(fact.heads), fact.heads),
                (_DIMS, fact.results.numel(), fact.results.reshape(-1)),
            ):
                if number == size and says.search(name):
                    yield name, index(labels)
                    break
            else:
                inner = self.elements.query_heads(fact)
                if number == len(inner) and _TIMES.search(name):
                    yield name, inner

    def _query_masks(self) -> List[MaskSite]:
        """Query/key masks act once, on what makes the queries."""
        sites = []
        for fact in self.attention:
            if fact.inner is not None:
                continue  # their dims stay
            wanted = fact.queries.reshape(-1)
            for name in projection_of(self.facts, wanted):
                labels = self.facts.axes[name, 0].labels
                index = self.elements.own_index(labels)
                index = torch.where(torch.isin(labels, wanted), index, -1)
                if prunable(index):
                    sites.append(self._site(name, 0, index))
        return sites


# What a number of an attention layer counts is told by its name and value:
# of eight heads of eight dims ``head_dim`` stays, and ``layer_idx`` always.
_HEADS = re.compile(
    r'^(?!.*(dim|size|width|chan|layer|idx|index|group|key|kv))')
_KEY_HEADS = re.compile(r'^(?=.*(key|kv))(?!.*(dim|size|layer|idx|group))')
_TIMES = re.compile(r'group|rep')
_DIMS = re.compile(r'^(?!.*(num|layer|idx|index|depth|block|len|window))'
                   r'(?=.*all|(?!.*head))')


def whole_numbers(module: nn.Module) -> Dict[str, int]:
    """A module's own attributes that are whole numbers."""
    return {name: n for name, n in vars(module).items() if type(n) is int}


#: Classes of standard layers -> attributes with the sizes of weight's axes.
_SIZES = (
    (nn.modules.conv._ConvTransposeNd, ('in_channels', 'out_channels')),
    (nn.modules.conv._ConvNd, ('out_channels', 'in_channels')),
    (nn.Linear, ('out_features', 'in_features')),
    ((nn.LayerNorm, nn.GroupNorm), ('', '')),
    (nn.Embedding, ('', 'embedding_dim')),
    (nn.PReLU, ('num_parameters', )),
    (nn.Module, ('num_features', 'num_features')),
)


def attribute_names(module: nn.Module, axis: int) -> str:
    """Attribute of a layer that gives the size of a weight's axis, or ''."""
    return next(names[axis] for kind, names in _SIZES
                if isinstance(module, kind))


def size_names(module: nn.Module, axis: int, size: int,
               reads: bool) -> List[str]:
    """Attributes of a layer that give the size of an axis of its weight.

    Those of a layer of no known class (Hugging Face's Conv1D, whose weight is
    ``[in, out]``) are told by their usual names and value.
    """
    name = attribute_names(module, axis)
    if hasattr(module, name) or name != 'num_features':
        return [name] if hasattr(module, name) else []
    usual = ('nx', 'in_features',
             'in_channels') if reads else ('nf', 'out_features',
                                           'out_channels')
    return [n for n in usual if getattr(module, n, None) == size]


# Where a width mask costs least: the norm in front of a layer.
#
# A mask m on what a layer reads can be moved back through a rectifier, since
# ``relu(z) * m = relu(z * m)`` for m >= 0, and into the affine parameters of
# the norm before it: ``(norm(x) * w + b) * m = norm(x) * (w m) + b m``. That
# is the same function with the same gradients, at O(channels) instead of
# O(weights of the layer). It takes a chain in which nothing else is read.


class MaskFolding:
    """Finds the norm that can carry a layer's masks.

    Args:
        recorder (Recorder): The finished recording, maybe with a second one.
    """

    def __init__(self, recorder) -> None:
        self.passes, self.axes = recorder.passes, recorder.facts.axes

    def norm_of(self, layer: str, channels: int) -> Tuple[str, ...]:
        """The affine parameters that can carry the masks of ``layer``.

        Args:
            layer (str): Path of a convolution or linear layer.
            channels (int): How many channels it reads.

        Returns:
            tuple[str]: Full names of a norm's parameters; none if there is no
            such norm, or not in each mode that runs it or the layer.
        """
        found = {
            self._norm_in(recorder, layer, channels)
            for recorder in self.passes if recorder.times[layer]
        }
        names = found.pop() if len(found) == 1 else ()
        path = names[0].rpartition('.')[0] if names else ''
        apart = names and any(recorder.times[path] != recorder.times[layer]
                              for recorder in self.passes)
        return () if apart else names

    def _norm_in(self, recorder, layer: str, channels: int) -> Tuple[str, ...]:
        """The same in one recording."""
        nodes = [
            operation.node for operation in recorder.operations
            if operation.module == layer and has(operation.op, 'layer')
        ]
        if len(nodes) != 1 or recorder.times[layer] != 1:
            return ()
        node = recorder.nodes[nodes[0]]
        while len(node.inputs) == 1 \
                and len(recorder.readers[node.inputs[0]]) == 1 \
                and node.inputs[0] not in recorder.output_nodes:
            node = recorder.nodes[node.inputs[0]]
            if has(node.op, 'affine'):
                return self._affine(recorder, node, channels)
            if not has(node.op, 'homogeneous'):
                return ()
        return ()

    def _affine(self, recorder, node, channels: int) -> Tuple[str, ...]:
        """Names of the norm's parameters, if they scale what the node is."""
        path = recorder.calls[node.call].path
        shift = getattr(recorder.modules[path], 'bias', None)
        names = (f'{path}.weight', ) if shift is None else (f'{path}.weight',
                                                            f'{path}.bias')
        axes = [self.axes.get((name, 0)) for name in names]
        fits = node.call >= 0 and recorder.times[path] == 1 and all(
            axis is not None and len(axis.labels) == channels for axis in axes)
        return names if fits else ()
