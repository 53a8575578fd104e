# Copyright (c) dms_razor contributors. All rights reserved.
"""Where masks act, how tensors shrink and which numbers of layers follow."""
from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from ..adapters.registry import slim_class, slim_name
from ..space import Block, MaskSite, NormSite, SliceSite
from .rules.table import has
from .units import AttentionGroup, Elements, projection_of


class SiteBuilder:
    """Turns facts and elements into sites.

    Args:
        recorder (Recorder): The finished recording.
        elements (Elements): Element of every channel.
        attention (list[AttentionGroup]): Attention layers with units.
        replacements (dict[str, str]): Layers that get a slim class; C2f
            stages are added.
        extra (dict[str, dict[str, Tensor]]): Further numbers of modules and
            the labels that they follow; those of C2f stages are added.
    """

    def __init__(self, recorder, elements: Elements,
                 attention: List[AttentionGroup], replacements: Dict[str, str],
                 extra: Dict[str, Dict[str, Tensor]]) -> None:
        self.modules, self.facts = recorder.modules, recorder.facts
        self.elements, self.attention = elements, attention
        self.replacements, self.extra_attributes = replacements, extra
        self.folding = MaskFolding(recorder)
        self.slots: Dict[Tuple[str, int], SliceSite] = {}

    def slices(self) -> Dict[str, List[SliceSite]]:
        """How parameters and buffers shrink."""
        result: Dict[str, List[SliceSite]] = {}
        for axis in self.facts.axes.values():
            site = self.slots.get((axis.name, axis.axis))
            if site is None:
                index = self.elements.index(axis.labels)
                site = SliceSite(axis.name, axis.axis, index, axis.groups)
            if bool((site.index >= 0).any()):
                result.setdefault(axis.name, []).append(site)
        for name, labels in self.facts.entry_labels.items():
            found = self.elements.entry_axis(labels)
            if found is not None:
                result.setdefault(name, []).append(SliceSite(name, *found))
        return result

    def masks(self) -> List[MaskSite]:
        """Where layers read masks: what they sum up, and queries."""
        result = []
        for axis in self.facts.axes.values():
            index = self.elements.index(axis.labels)
            if not axis.reads or not bool((index >= 0).any()):
                continue
            module, _, tensor = axis.name.rpartition('.')
            affine = self.folding.norm_of(module, len(index))
            for name in affine:
                norm, _, scale = name.rpartition('.')
                result.append(MaskSite(norm, scale, 0, index))
            if not affine:
                result.append(
                    MaskSite(module, tensor, axis.axis, index, axis.groups))
        return result + self._query_masks()

    def norms(self) -> List[NormSite]:
        """Norms whose statistics follow the masks."""
        result = []
        for norm in self.facts.norms.values():
            index = self.elements.index(norm.labels)
            if bool((index >= 0).any()):
                result.append(
                    NormSite(norm.module, norm.op, index, norm.groups))
        return result

    def find_slots(self, blocks: List[Block]) -> None:
        """Channels of a concatenation that go with a block (C2f stages)."""
        elements = {block.path: block.element for block in blocks}
        self.slots: Dict[Tuple[str, int], SliceSite] = {}
        for path, module in self.modules.items():
            slim = slim_class(module)
            if slim is None or not hasattr(slim, 'slots'):
                continue
            layer, starts = slim.slots(module)
            name, width = f'{path}.{layer}.weight', slim.slot_width(module)
            found = self.facts.axes.get((name, 1))
            if found is None:
                continue
            own = self.elements.index(found.labels)
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

    def attributes(self) -> Dict[str, Dict[str, Tensor]]:
        """Numbers in standard layers that follow the shape of a weight."""
        result: Dict[str, Dict[str, Tensor]] = {}
        for (name, axis), found in self.facts.axes.items():
            path, _, tensor = name.rpartition('.')
            module = self.modules[path]
            slot = self.slots.get((name, axis))
            index = self.elements.index(
                found.labels) if slot is None else slot.index
            if tensor != 'weight' or not bool((index >= 0).any()):
                continue
            names = attribute_names(module, axis)
            if isinstance(module, nn.modules.conv._ConvNd) and axis == 0 and \
                    module.groups == module.in_channels > 1:
                times = module.out_channels // module.groups
                inputs = result.setdefault(path, {})
                inputs['in_channels'] = index[::times].clone()
                inputs['groups'] = index[::times].clone()
                inputs['out_channels'] = index
            for attribute in names:
                if hasattr(module, attribute):
                    result.setdefault(path, {})[attribute] = index
        for group in self.attention:
            self._attention_attributes(group, result)
        for path, norm in self.facts.norms.items():
            index = self.elements.index(norm.labels)
            for name in ('normalized_shape', 'num_channels'):
                value = getattr(self.modules[path], name, None)
                if bool((index >= 0).any()) and value in (len(index),
                                                          (len(index), )):
                    result.setdefault(path, {})[name] = index
        for path, extra in self.extra_attributes.items():
            for attribute, labels in extra.items():
                index = self.elements.index(labels)
                if bool((index >= 0).any()):
                    result.setdefault(path, {})[attribute] = index
        return result

    def _attention_attributes(self, group: AttentionGroup,
                              result: Dict[str, Dict[str, Tensor]]) -> None:
        """Numbers of an attention layer that follow heads and dims."""
        module = self.modules[group.module]
        fact = group.fact
        indices = {
            len(fact.heads): self.elements.index(fact.heads),
            fact.values.numel(): self.elements.index(fact.values.reshape(-1)),
        }
        if group.module in self.replacements:
            for name, labels in (('qk_dims', fact.queries), ('v_dims',
                                                             fact.values)):
                own = self.elements.own_index(labels[0])
                result.setdefault(group.module, {})[name] = own
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
        for group in self.attention:
            wanted = group.fact.queries.reshape(-1)
            for name in projection_of(self.facts, wanted):
                labels = self.facts.axes[name, 0].labels
                index = self.elements.own_index(labels)
                index = torch.where(torch.isin(labels, wanted), index, -1)
                if bool((index >= 0).any()):
                    module, _, tensor = name.rpartition('.')
                    sites.append(MaskSite(module, tensor, 0, index))
        return sites


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
    if isinstance(module, nn.Embedding):
        return ((), ('embedding_dim', ))[axis]
    if isinstance(module, nn.PReLU):
        return ('num_parameters', )
    return ('num_features', )


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
        recorder (Recorder): The finished recording.
    """

    def __init__(self, recorder) -> None:
        self.nodes, self.calls = recorder.nodes, recorder.calls
        self.modules = recorder.modules
        self.axes = recorder.facts.axes
        self.readers: Dict[int, int] = {}
        for node in self.nodes:
            for source in node.inputs:
                self.readers[source] = self.readers.get(source, 0) + 1
        for source in recorder.output_nodes:
            self.readers[source] = self.readers.get(source, 0) + 1
        self.times: Dict[str, int] = {}
        for call in self.calls:
            self.times[call.path] = self.times.get(call.path, 0) + 1
        self.layers: Dict[str, List[int]] = {}
        for operation in recorder.facts.operations:
            if has(operation.op, 'layer'):
                self.layers.setdefault(operation.module,
                                       []).append(operation.node)

    def norm_of(self, layer: str, channels: int) -> Tuple[str, ...]:
        """The affine parameters that can carry the masks of ``layer``.

        Args:
            layer (str): Path of a convolution or linear layer.
            channels (int): How many channels it reads.

        Returns:
            tuple[str]: Full names of a norm's parameters; none if there is no
            such norm.
        """
        nodes = self.layers.get(layer, ())
        if len(nodes) != 1 or self.times[layer] != 1:
            return ()
        node = self.nodes[nodes[0]]
        while len(node.inputs) == 1 and self.readers[node.inputs[0]] == 1:
            node = self.nodes[node.inputs[0]]
            if has(node.op, 'affine'):
                return self._affine(node, channels)
            if not has(node.op, 'homogeneous'):
                return ()
        return ()

    def _affine(self, node, channels: int) -> Tuple[str, ...]:
        """Names of the norm's parameters, if they scale what the node is."""
        if node.call < 0:
            return ()
        path = self.calls[node.call].path
        if self.times[path] != 1 or (f'{path}.weight', 0) not in self.axes:
            return ()
        names = tuple(f'{path}.{name}' for name in ('weight', 'bias')
                      if (f'{path}.{name}', 0) in self.axes)
        shift = getattr(self.modules[path], 'bias', None)
        if shift is not None and len(names) == 1:
            return ()
        if any(len(self.axes[name, 0].labels) != channels for name in names):
            return ()
        return names
