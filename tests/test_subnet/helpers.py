# Copyright (c) dms_razor contributors. All rights reserved.
"""A small network and its search space, written down by hand.

Nothing here comes from the tracer: the space says what a reader of
``Net.forward`` can see. ``Net.forward`` can also mask its activations, which
is the independent truth that sliced networks are compared with.
"""
import torch
from torch import nn

from dms_razor.core.layout import Layout, Unit
from dms_razor.core.resource import Axis, Cost, ResourceModel, Term
from dms_razor.space import Block as RemovableBlock
from dms_razor.space import FullWidth, SliceSite, Space

SIZE = 8
"""Height and width of the images."""


class Block(nn.Module):
    """x + conv2(relu(bn(conv1(x)))), without anything after the addition."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x, hidden=1., present=1.):
        out = self.bn(self.conv1(x)).relu() * hidden
        return x + self.conv2(out) * present


class Net(nn.Module):
    """Residual, depthwise, grouped and stepped layers, a shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.stage = nn.Sequential(Block(8, 6), Block(8, 6))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.expand = nn.Conv2d(8, 12, 1)
        self.grouped = nn.Conv2d(12, 8, 3, stride=2, padding=1, groups=2)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + .5)
        self.last = nn.Conv2d(8, 16, 1)
        self.register_buffer('shift', torch.randn(16, 1, 1), persistent=False)
        self.register_buffer('counter', torch.arange(3))
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(64, 5)
        self.twin = nn.Linear(64, 5)
        self.twin.weight = self.fc.weight

    def forward(self, x, keep=None):
        m = Masks(keep)
        x = self.bn(self.stem(x)).relu() * m['stem']
        if keep is None:
            x = self.stage(x)
        else:
            for number, block in enumerate(self.stage):
                hidden = m[f'stage.{number}.conv1']
                x = block(x, hidden, m['stage'][0, number]) * m['stem']
        x = self.depthwise(x) * m['stem']
        x = self.expand(x).relu() * m['expand']
        x = self.grouped(x).sigmoid() * self.scale * m['grouped']
        x = (self.last(x).relu() + self.shift) * m['last']
        x = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.fc(x) + self.twin(x.sin())


UNITS = (
    Unit('stem', 'width', 8, members=('stem', 'stage.0.conv2')),
    Unit('stage.0.conv1', 'width', 6, members=('stage.0.conv1', )),
    Unit('stage.1.conv1', 'width', 6, members=('stage.1.conv1', )),
    Unit('expand', 'width', 6, groups=2, members=('expand', )),
    Unit('grouped', 'width', 4, groups=2, least=2, members=('grouped', )),
    Unit('last', 'width', 4, step=4, members=('last', )),
    Unit('stage', 'depth', 2, members=('stage.0', 'stage.1')),
)


class Masks:
    """Activation masks [1, C, 1, 1] of each unit, 1 without a ``keep``."""

    def __init__(self, keep) -> None:
        self.keep = keep

    def __getitem__(self, name: str) -> torch.Tensor:
        number = [unit.name for unit in UNITS].index(name)
        unit = UNITS[number]
        if self.keep is None:
            return torch.ones(1, 1, 1, 1)
        mask = self.keep[Layout(UNITS).slice_of(number)].float()
        if unit.kind == 'depth':
            return mask.view(1, -1, 1, 1)
        return mask.repeat_interleave(unit.step).view(1, -1, 1, 1)


def net(seed: int = 0) -> Net:
    """A network whose norms, scales and biases are no constants."""
    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape) + .25)
    model.stem.weight.requires_grad_(False)
    model.bn.training = False
    return model


def space() -> Space:
    """The space of :func:`net`."""
    layout = Layout(UNITS)
    element = {
        unit.name: torch.arange(layout.E)[layout.slice_of(number)]
        for number, unit in enumerate(UNITS)
    }
    stem, expand, grouped = (
        element[name] for name in ('stem', 'expand', 'grouped'))
    last = element['last'].repeat_interleave(4)
    sites, attributes = {}, {}

    def cut(name, axis, index, groups=1):
        sites.setdefault(name, []).append(SliceSite(name, axis, index, groups))

    def layer(path, inputs=None, outputs=None, groups=1):
        widths = attributes.setdefault(path, {})
        if outputs is not None:
            cut(f'{path}.weight', 0, outputs)
            cut(f'{path}.bias', 0, outputs)
            widths['out_channels'] = outputs
        if inputs is not None:
            cut(f'{path}.weight', 1, inputs, groups)
            widths['in_channels'] = inputs

    def batch_norm(path, index):
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            cut(f'{path}.{name}', 0, index)
        attributes[path] = dict(num_features=index)

    layer('stem', outputs=stem)
    batch_norm('bn', stem)
    for number in range(2):
        hidden = element[f'stage.{number}.conv1']
        layer(f'stage.{number}.conv1', stem, hidden)
        del sites[f'stage.{number}.conv1.bias']
        batch_norm(f'stage.{number}.bn', hidden)
        layer(f'stage.{number}.conv2', hidden, stem)
    layer('depthwise', outputs=stem)
    attributes['depthwise'].update(in_channels=stem, groups=stem)
    layer('expand', stem, expand)
    layer('grouped', expand, grouped, groups=2)
    cut('scale', 0, grouped)
    layer('last', grouped, last)
    cut('shift', 0, last)
    for name in ('norm.weight', 'norm.bias'):
        cut(name, 0, last)
    attributes['norm'] = dict(normalized_shape=last)
    flat = last.repeat_interleave(4)  # 2 x 2 positions of each channel
    cut('fc.weight', 1, flat)
    for path in ('fc', 'twin'):
        attributes[path] = dict(in_features=flat)
    depth = layout.slice_of(layout.index('stage')).start
    return Space(
        units=list(UNITS),
        layout=layout,
        mask_sites=[],
        slice_sites=sites,
        blocks=[
            RemovableBlock(f'stage.{number}', depth + number, ())
            for number in range(2)
        ],
        resource=resource(layout, depth),
        full_width=[FullWidth('fc', 'it is the output of the network')],
        attributes=attributes,
        producers={},
        input_shape=(1, 3, SIZE, SIZE),
        example_inputs=(torch.zeros(1, 3, SIZE, SIZE), ))


def resource(layout: Layout, depth: int) -> ResourceModel:
    """MACs and parameters of :func:`net`, counted with pencil and paper."""
    axes, costs = [], []

    def width(name, mult=1):
        axes.append(Axis((Term(mult, (1 + layout.index(name), )), )))
        return len(axes) - 1

    def cost(name, macs, weights, own=(), blocks=(), bias=None):
        if macs:
            costs.append(Cost(name, 'layer', 'macs', macs, own, blocks))
        if weights:
            costs.append(
                Cost(f'{name}.weight', 'weight', 'params', weights, own,
                     blocks))
        if bias is not None:
            costs.append(
                Cost(f'{name}.bias', 'bias', 'params', 1, bias, blocks))

    def norm(path, axis, blocks=()):
        for name in ('weight', 'bias'):
            costs.append(
                Cost(f'{path}.{name}', 'norm', 'params', 1, (axis, ), blocks))

    area = SIZE * SIZE
    stem, last = width('stem'), width('last', 4)
    expand, expand_of_group = width('expand', 2), width('expand')
    grouped = width('grouped', 2)
    cost('stem', 27 * area, 27, (stem, ), bias=(stem, ))
    norm('bn', stem)
    for number in range(2):
        path, here = f'stage.{number}', (depth + number, )
        hidden = width(f'{path}.conv1')
        cost(f'{path}.conv1', area, 1, (stem, hidden), here)
        norm(f'{path}.bn', hidden, here)
        cost(f'{path}.conv2', 9 * area, 9, (hidden, stem), here, (stem, ))
    cost('depthwise', 9 * area, 9, (stem, ), bias=(stem, ))
    cost('expand', area, 1, (stem, expand), bias=(expand, ))
    cost(
        'grouped',
        9 * area // 4,
        9, (expand_of_group, grouped),
        bias=(grouped, ))
    costs.append(Cost('scale', 'scale', 'params', 1, (grouped, )))
    cost('last', area // 4, 1, (grouped, last), bias=(last, ))
    norm('norm', last)
    cost('fc', 20, 20, (last, ), bias=())
    cost('twin', 20, 0, (last, ), bias=())
    costs[-1] = Cost('twin.bias', 'bias', 'params', 5)
    costs[[c.name
           for c in costs].index('fc.bias')] = Cost('fc.bias', 'bias',
                                                    'params', 5)
    return ResourceModel(axes, costs, layout)


def some_keep(removed=(1, )) -> torch.Tensor:
    """A subnet: [3, 2, 5, 2x3, 2x2, 2] elements, without some blocks."""
    keep = []
    for unit, count in zip(UNITS, (3, 2, 5, 3, 2, 2)):
        generator = torch.Generator().manual_seed(unit.size + count)
        for _ in range(unit.groups):
            row = torch.zeros(unit.size, dtype=torch.bool)
            row[torch.randperm(unit.size, generator=generator)[:count]] = True
            keep.append(row)
    keep.append(torch.tensor([number not in removed for number in range(2)]))
    return torch.cat(keep)


def images(count: int = 2) -> torch.Tensor:
    """Some inputs of the network."""
    return torch.rand(
        count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
