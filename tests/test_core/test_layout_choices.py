# Copyright (c) dms_razor contributors. All rights reserved.
"""Units that may keep only the counts of a given list."""
import itertools

import pytest
import torch

from dms_razor.core.bank import Bank
from dms_razor.core.layout import Layout, Unit
from dms_razor.core.projection import project
from dms_razor.core.resource import Axis, Cost, ResourceModel, Term
from dms_razor.core.topk import kept_counts, nearest_counts

UNITS = (Unit('a', 'width', 12, choices=(3, 12, 6)), Unit('b', 'width', 30),
         Unit('c', 'depth', 4, choices=(2, 4)), Unit('d', 'heads', 3, least=2))


@pytest.fixture
def layout():
    return Layout(UNITS)


def nearest(wanted, allowed):
    """The larger one of the nearest choices."""
    return max(allowed, key=lambda c: (-abs(c - wanted), c))


def resource_of(layout):
    """a·b a layer, each block of c with it, and d."""
    axes = [Axis((Term(1., (1 + u, )), )) for u in (0, 1, 3)]
    first = layout.slice_of(2).start
    costs = [Cost('ab', 'conv', 'macs', 7., (0, 1), ())]
    costs += [
        Cost(f'c{i}', 'conv', 'macs', 3. + i, (0, 2), (first + i, ))
        for i in range(4)
    ]
    costs += [Cost('p', 'parameter', 'params', 1., (0, ), ())]
    return ResourceModel(axes, costs, layout)


def test_bounds_follow_the_choices():
    unit = UNITS[0]
    assert (unit.choices, unit.least, unit.most) == ((3, 6, 12), 3, 12)
    assert unit.allowed == (3, 6, 12)
    assert UNITS[3].allowed == (2, 3)


@pytest.mark.parametrize('arguments, message', [
    (dict(choices=()), 'choices is empty'),
    (dict(choices=(3, 13)), r'choices=\(3, 13\) are not all in 1 ... 12'),
    (dict(choices=(0, 3)), 'not all in 1'),
    (dict(choices=(3, 6), least=2), 'contradict'),
    (dict(choices=(3, 6), most=12), 'contradict'),
])
def test_bad_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        Unit('a', 'width', 12, **arguments)


def test_hard_counts_are_the_nearest_choices(layout):
    for ratio in torch.linspace(0, 1, 301, dtype=torch.float64).tolist():
        ratios = torch.full((layout.U, ), ratio, dtype=torch.float64)
        kept = kept_counts(ratios, layout).tolist()
        for unit, k in zip(UNITS, kept):
            assert k == nearest((1 - ratio) * unit.size, unit.allowed)


def test_nearest_counts_take_batches_and_any_number(layout):
    wanted = torch.tensor([[-5., -5., -5., -5.], [99., 99., 99., 99.],
                           [4.5, 2.5, 3., 2.4]]).double()
    assert nearest_counts(wanted, layout).tolist() == [[3, 1, 2, 2],
                                                       [12, 30, 4, 3],
                                                       [6, 3, 4, 2]]


def test_a_layout_without_choices_rounds_as_before():
    layout = Layout([Unit('a', 'width', 7, least=2, most=6)])
    ratios = torch.linspace(0, 1, 29, dtype=torch.float64)[:, None]
    for ratio in ratios:
        wanted = (1 - ratio) * 7
        expected = torch.floor(wanted + .5).clamp(2, 6).long()
        assert torch.equal(kept_counts(ratio, layout), expected)


def test_the_bank_is_hard_on_choices_alone(layout):
    bank = Bank(layout)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        bank.ratios = torch.rand(
            layout.U, generator=generator, dtype=torch.float64)
        bank.refresh()
        kept, hard = bank.kept().tolist(), bank.hard()
        for u, unit in enumerate(UNITS):
            assert kept[u] in unit.allowed
            assert int(hard[layout.slice_of(u)].sum()) == kept[u]
    bank.set_kept(torch.tensor([6, 4, 2, 2]))
    assert bank.kept().tolist() == [6, 4, 2, 2]
    bank.freeze_depth()
    assert bank.counts()[2] == 2
    with pytest.raises(ValueError, match='its choices are'):
        bank.set_kept(torch.tensor([7, 4, 2, 2]))
    with pytest.raises(ValueError, match='its choices are'):
        bank.set_kept(torch.tensor([6, 4, 3, 2]))


@pytest.mark.parametrize('share', [.25, .4, .5, .66, .8, .95])
def test_projected_networks_keep_choices_and_the_best_is_found(layout, share):
    resource = resource_of(layout)
    generator = torch.Generator().manual_seed(int(100 * share))
    ratios = .6 * torch.rand(
        layout.U, generator=generator, dtype=torch.float64)
    ranks = layout.place_in_row
    target = share * resource.supernet('macs')
    kept = project(layout, resource, ratios, 'macs', target, ranks=ranks)
    assert all(k in unit.allowed for k, unit in zip(kept.tolist(), UNITS))

    def figure(counts):
        masks = torch.cat([
            torch.arange(unit.size) >= unit.size - k
            for unit, k in zip(UNITS, counts)
        ])
        return float(
            resource(torch.tensor(counts).double(), masks.double(), 'macs'))

    every = [figure(c) for c in itertools.product(*(u.allowed for u in UNITS))]
    largest = max(f for f in every if f <= target)
    found = figure(kept.tolist())
    assert found <= target and found >= min(largest, .99 * target)


def test_frozen_depth_is_a_choice_in_the_projection(layout):
    resource = resource_of(layout)
    # Two of four blocks, and room for them: widths alone meet the target.
    kept = project(
        layout,
        resource,
        torch.zeros(layout.U, dtype=torch.float64),
        'macs',
        .25 * resource.supernet('macs'),
        ranks=layout.place_in_row,
        depth_kept=torch.tensor([12, 30, 2, 3]))
    assert kept[2] == 2 and kept[0] in (3, 6, 12)
