# Copyright (c) dms_razor contributors. All rights reserved.
import pytest
import torch
from torch import nn

from dms_razor.core import Axis, Cost, Layout, ResourceModel, Term, Unit
from .helpers import random_ranks, random_resource


def small_network(mid=8, hidden=6, blocks=(True, True), groups=2):
    """Plain torch network that the closed form below describes.

    Stem of ``mid`` channels; up to two residual blocks of ``hidden`` channels
    in a grouped convolution; the input is concatenated before the head.
    """

    class Block(nn.Module):

        def __init__(self, width):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(mid, width, 1, bias=False), nn.BatchNorm2d(width),
                nn.Conv2d(
                    width, width, 3, padding=1, groups=groups, bias=False),
                nn.Conv2d(width, mid, 1))

        def forward(self, x):
            return x + self.body(x)

    class Net(nn.Module):

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, mid, 3, padding=1)
            self.blocks = nn.Sequential(*(Block(width) for width in hidden
                                          if width))
            self.head = nn.Linear(mid + 3, 10)

        def forward(self, x):
            y = self.blocks(self.stem(x))
            return self.head(torch.cat((y, x), 1).mean((2, 3)))

    return Net()


def closed_form(side=5, groups=2):
    """Units: stem 8, hidden 3 x 2 groups in either block, one stage of 2."""
    layout = Layout([
        Unit('stem', 'width', 8),
        Unit('hidden0', 'width', 3, groups=groups),
        Unit('hidden1', 'width', 3, groups=groups),
        Unit('stage', 'depth', 2),
    ])
    axes = [
        Axis((Term(3), )),
        Axis((Term(1, (1, )), )),
        Axis((Term(groups, (2, )), )),
        Axis((Term(groups, (3, )), )),
        Axis((Term(1, (1, )), Term(3))),
        Axis((Term(10), )),
    ]
    costs = []

    def layer(name, positions, kernel, factors, blocks=(), bias=None):
        costs.append(
            Cost(name, 'Conv2d', 'macs', positions * kernel, factors, blocks))
        costs.append(Cost(name, 'Conv2d', 'params', kernel, factors, blocks))
        if bias is not None:
            costs.append(Cost(name, 'Conv2d', 'params', 1, (bias, ), blocks))

    first = layout.slice_of(3).start
    layer('stem', side**2, 9, (0, 1), bias=1)
    for i in range(2):
        block, hidden = (first + i, ), 2 + i
        layer(f'{i}.0', side**2, 1, (1, hidden), block)
        costs.append(Cost(f'{i}.1', 'Norm', 'params', 2, (hidden, ), block))
        # grouped: groups is constant, so width · width / groups
        layer(f'{i}.2', side**2, 9 / groups, (hidden, hidden), block)
        layer(f'{i}.3', side**2, 1, (hidden, 1), block, bias=1)
    layer('head', 1, 1, (4, 5), bias=5)
    return layout, ResourceModel(axes, costs, layout)


def counted(net, side=5):
    """MACs by hooks on a real forward, and parameters by their size."""
    total = 0

    def count(module, args, output):
        nonlocal total
        positions = output[0, 0].numel() if output.dim() == 4 else 1
        total += module.weight.numel() * positions

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    net.eval()(torch.zeros(1, 3, side, side))
    return total, sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize('kept, blocks', [
    ((8, 3, 3), (1, 1)),
    ((5, 3, 3), (1, 1)),
    ((8, 1, 2), (1, 1)),
    ((3, 2, 1), (1, 0)),
    ((3, 2, 1), (0, 1)),
    ((1, 1, 1), (0, 0)),
])
def test_hard_figures_equal_a_network_of_that_size(kept, blocks):
    layout, resource = closed_form()
    hidden = [2 * k if there else 0 for k, there in zip(kept[1:], blocks)]
    net = small_network(kept[0], hidden)
    counts = torch.tensor([*kept, sum(blocks)])
    masks = torch.ones(layout.E)
    masks[layout.slice_of(3)] = torch.tensor(blocks).float()
    macs, params = counted(net)
    assert resource(counts, masks, 'macs').item() == macs
    assert resource(counts, masks, 'params').item() == params
    for metric, total in (('macs', macs), ('params', params)):
        each = resource.per_cost(counts, masks, metric)
        assert each.shape == (len(resource.costs_of(metric)), )
        assert each.sum().item() == total


def test_extremes():
    _, resource = closed_form()
    assert resource.metrics == ('macs', 'params')
    macs, params = counted(small_network(8, (6, 6)))
    assert resource.supernet('macs') == macs
    assert resource.supernet('params') == params
    macs, params = counted(small_network(1, (0, 0)))
    assert resource.minimum('macs') == macs
    assert resource.minimum('params') == params


def test_minimum_keeps_the_cheapest_blocks_it_must():
    layout = Layout([Unit('stage', 'depth', 3, least=1)])
    axes = [Axis((Term(1), ))]
    costs = [
        Cost(f'{e}', 'Conv2d', 'macs', coef, (0, ), (e, ))
        for e, coef in enumerate((7, 2, 5))
    ]
    assert ResourceModel(axes, costs, layout).minimum('macs') == 2


def naive(resource, counts, masks, metric):
    """The closed form with Python loops over the dataclasses."""
    values = [1., *counts.tolist(), *masks.tolist()]
    widths = []
    for axis in resource.axes:
        total = 0.
        for term in axis.terms:
            product = term.mult
            for f in term.factors:
                product *= values[f]
            total += product
        widths.append(total)
    total = 0.
    for cost in resource.costs:
        if cost.metric == metric:
            product = cost.coef
            for a in cost.axes:
                product *= widths[a]
            for b in cost.blocks:
                product *= values[1 + len(counts) + b]
            total += product
    return total


@pytest.mark.parametrize('seed', range(8))
def test_soft_figures_against_loops(seed):
    layout, resource = random_resource(seed, widths=7, stages=seed % 3)
    torch.manual_seed(seed)
    counts = torch.rand(layout.U, dtype=torch.float64) * layout.size
    masks = torch.rand(layout.E, dtype=torch.float64)
    assert resource(counts, masks, 'macs').item() == pytest.approx(
        naive(resource, counts, masks, 'macs'), rel=1e-12)
    # a batch of networks is what each of them is
    many = torch.rand(2, 3, layout.U, dtype=torch.float64)
    gates = torch.rand(2, 3, layout.E, dtype=torch.float64)
    figures = resource(many, gates)
    assert figures.shape == (2, 3)
    assert figures[1, 2].item() == pytest.approx(
        resource(many[1, 2], gates[1, 2]).item(), rel=1e-12)


@pytest.mark.parametrize('metric', ['macs', 'params'])
def test_gradients(metric):
    layout, resource = closed_form()
    counts = (torch.rand(layout.U).double() + .5).requires_grad_()
    masks = torch.rand(layout.E).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda c, m: resource(c, m, metric),
                                    (counts, masks))
    # at zero masks too, where a product has no logarithm
    zero = torch.zeros(layout.E).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda c, m: resource(c, m, metric),
                                    (counts, zero))


def test_gradients_with_terms_of_several_factors():
    layout, resource = random_resource(3, widths=6, stages=2)
    counts = (torch.rand(layout.U).double() + .5).requires_grad_()
    masks = torch.rand(layout.E).double().requires_grad_()
    assert torch.autograd.gradcheck(resource, (counts, masks))


def test_large_figures_are_exact_integers():
    layout = Layout([Unit('a', 'width', 4099), Unit('b', 'width', 4111)])
    axes = [Axis((Term(3, (1, )), Term(1, (2, )))), Axis((Term(1, (2, )), ))]
    costs = [
        Cost(f'{i}', 'Conv2d', 'macs', 9 * 223 * 223 + i, (0, 1))
        for i in range(50)
    ]
    resource = ResourceModel(axes, costs, layout)
    expected = sum(
        (9 * 223 * 223 + i) * (3 * 4001 + 4003) * 4003 for i in range(50))
    assert expected < 2**53
    counts = torch.tensor([4001, 4003])
    assert int(resource(counts, torch.ones(layout.E))) == expected


def test_figures_grow_with_every_element():
    layout, resource = random_resource(1, widths=5, stages=2)
    ranks = random_ranks(layout, 0)
    least = torch.tensor([u.least for u in layout.units])
    from .helpers import hard_figure
    for u, unit in enumerate(layout.units):
        previous = -1.
        for k in range(unit.least, unit.most + 1):
            kept = least.clone()
            kept[u] = k
            figure = hard_figure(layout, resource, kept, ranks)
            assert figure >= previous
            previous = figure


@pytest.mark.parametrize('axes, cost, message', [
    ([], Cost('fc', 'Linear', 'macs', 1, (0, )), '"fc": 0 in axes is out'),
    ([Axis((Term(-1), ))], None, 'axis 0: mult is -1'),
    ([Axis((Term(1, (99, )), ))], None, 'axis 0: 99 in factors'),
    ([Axis((Term(1, (1, ) * 4), ))], None, 'axis 0 has 4 factors'),
    ([], Cost('fc', 'Linear', 'macs', float('nan')), '"fc": coef is nan'),
    ([], Cost('fc', 'Linear', 'macs', 1, (), (9, )), '"fc": 9 in blocks'),
    ([Axis(())], Cost('fc', 'Linear', 'macs', 1, (0, ) * 5), 'has 5 axes'),
])
def test_bad_models_are_named(axes, cost, message):
    layout = Layout([Unit('a', 'width', 4)])
    with pytest.raises(ValueError, match=message):
        ResourceModel(axes, [cost] if cost else [], layout)


def test_unknown_metric():
    _, resource = closed_form()
    with pytest.raises(ValueError, match='no costs in "latency".*macs'):
        resource.supernet('latency')
