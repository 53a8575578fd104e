# Copyright (c) dms_razor contributors. All rights reserved.
"""Small spaces and a small smooth network that the core's tests share."""
import random

import torch
from hypothesis import strategies as st
from torch import nn

from dms_razor.core import (Axis, Cost, Layout, ResourceModel, Term, Unit,
                            hard_masks, initial_order, ranks_from_order)


@st.composite
def layouts(draw, kinds=('width', 'depth', 'heads', 'qk', 'v'), largest=12):
    """One to five units of any kind."""
    units = []
    for i in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(kinds))
        size = draw(st.integers(1, largest))
        if kind == 'depth':
            units.append(Unit(f'u{i}', kind, size))
        else:
            units.append(
                Unit(f'u{i}', kind, size, groups=draw(st.integers(1, 3))))
    return Layout(units)


@st.composite
def spaces(draw, kinds=('width', 'depth', 'heads', 'qk', 'v')):
    """Layout, importances [E] with ties, and ratios [U] within bounds."""
    layout = draw(layouts(kinds))
    importance = draw(
        st.lists(st.integers(0, 6), min_size=layout.E, max_size=layout.E))
    ratios = draw(
        st.lists(
            st.floats(0, 1, width=32), min_size=layout.U, max_size=layout.U))
    high = torch.tensor([1 - unit.least / unit.size
                         for unit in layout.units]).double()
    return (layout, torch.tensor(importance).double(),
            torch.tensor(ratios).double().minimum(high))


def random_resource(seed, widths, stages=0, smallest=2, largest=6):
    """A layout and a resource model whose blocks differ in cost."""
    rng = random.Random(seed)
    units = [
        Unit(
            f'w{i}',
            'width',
            rng.randint(smallest, largest),
            groups=rng.choice((1, 1, 2)),
            step=rng.choice((1, 1, 8))) for i in range(widths)
    ]
    units += [Unit(f'd{i}', 'depth', rng.randint(1, 4)) for i in range(stages)]
    layout = Layout(units)
    blocks = layout.depth_elements.nonzero().flatten().tolist()
    axes = [
        Axis((Term(unit.step * unit.groups, (1 + i, )), ))
        for i, unit in enumerate(units[:widths])
    ]
    axes.append(Axis((Term(3), )))
    for _ in range(widths // 2):
        terms = []
        for _ in range(2):
            factors = (1 + rng.randrange(widths), )
            if blocks and rng.random() < .5:
                factors += (1 + layout.U + rng.choice(blocks), )
            terms.append(Term(rng.randint(1, 3), factors))
        axes.append(Axis(tuple(terms)))
    costs = []
    for i in range(2 * widths):
        inside = bool(blocks) and rng.random() < .6
        costs.append(
            Cost(f'c{i}', 'Conv2d', 'macs',
                 rng.randint(1, 9) * rng.randint(1, 20),
                 (rng.randrange(len(axes)), rng.randrange(len(axes))),
                 (rng.choice(blocks), ) if inside else ()))
    return layout, ResourceModel(axes, costs, layout)


def random_ranks(layout, seed):
    """Ranks of random importances."""
    return ranks_from_order(initial_order(layout, seed), layout)


def hard_figure(layout, resource, kept, ranks, metric='macs'):
    """Figure of a hard network as a Python number."""
    return resource(kept, hard_masks(kept, ranks, layout), metric).item()


class MaskedNet(nn.Module):
    """3 → [6] → residual blocks of [4] hidden features → 2, in SiLU.

    Elements: 6 of the stream, 4 of each of three blocks, 3 blocks; the last
    width unit has two groups.
    """

    layout = Layout([
        Unit('stem', 'width', 6),
        Unit('block0', 'width', 4),
        Unit('block1', 'width', 4),
        Unit('block2', 'width', 2, groups=2),
        Unit('stage', 'depth', 3),
    ])

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def weight(*shape):
            return nn.Parameter(
                torch.randn(shape, generator=generator, dtype=torch.float64) /
                2)

        self.stem = weight(3, 6)
        self.up = nn.ParameterList([weight(6, 4) for _ in range(3)])
        self.down = nn.ParameterList([weight(4, 6) for _ in range(3)])
        self.head = weight(6, 2)

    def forward(self, x, masks):
        masks = masks.double()
        stream, *hidden, stage = masks.split([6, 4, 4, 4, 3])
        y = nn.functional.silu(x @ self.stem)
        for i in range(3):
            z = nn.functional.silu((y * stream) @ self.up[i])
            y = y + stage[i] * ((z * hidden[i]) @ self.down[i])
        return (y * stream) @ self.head

    @classmethod
    def resource(cls):
        """Its multiply-adds."""
        axes = [Axis((Term(3), )), Axis((Term(2), ))]
        axes += [
            Axis((Term(unit.groups, (1 + u, )), ))
            for u, unit in enumerate(cls.layout.units[:4])
        ]
        first = cls.layout.slice_of(4).start
        costs = [Cost('stem', 'Linear', 'macs', 1, (0, 2))]
        for i in range(3):
            costs.append(
                Cost(f'up{i}', 'Linear', 'macs', 1, (2, 3 + i), (first + i, )))
            costs.append(
                Cost(f'down{i}', 'Linear', 'macs', 1, (3 + i, 2),
                     (first + i, )))
        costs.append(Cost('head', 'Linear', 'macs', 1, (2, 1)))
        return ResourceModel(axes, costs, cls.layout)


def batch(size=8, seed=1):
    """Inputs [size, 3] and targets [size, 2] in float64."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, 3, generator=generator, dtype=torch.float64),
            torch.randn(size, 2, generator=generator, dtype=torch.float64))


def task_loss(net, masks, data=None):
    """Mean squared error of a :class:`MaskedNet`."""
    x, y = batch() if data is None else data
    return (net(x, masks) - y).square().mean()
