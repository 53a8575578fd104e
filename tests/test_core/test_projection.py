# Copyright (c) dms_razor contributors. All rights reserved.
import itertools

import pytest
import torch

from dms_razor.core import (Axis, Cost, Layout, ResourceModel, TargetError,
                            Term, Unit, project, ratio_bounds)
from .helpers import hard_figure, random_ranks, random_resource


def ratios_of(layout, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(
        layout.U, generator=generator,
        dtype=torch.float64) * ratio_bounds(layout)[1]


def all_networks(layout):
    return itertools.product(*(range(u.least, u.most + 1)
                               for u in layout.units))


@pytest.mark.parametrize('seed', range(12))
def test_small_spaces_against_brute_force(seed):
    """Every target between the smallest and the largest network."""
    layout, resource = random_resource(
        seed, widths=2 + seed % 2, stages=seed % 3, largest=4)
    ranks = random_ranks(layout, seed)
    figures = sorted(
        hard_figure(layout, resource, torch.tensor(kept), ranks)
        for kept in all_networks(layout))
    for number, share in enumerate((.1, .25, .4, .55, .7, .85, .97)):
        target = max(share * figures[-1], figures[0])
        kept = project(
            layout,
            resource,
            ratios_of(layout, number),
            'macs',
            target,
            ranks=ranks)
        figure = hard_figure(layout, resource, kept, ranks)
        largest = max(f for f in figures if f <= target)
        assert figure <= target
        assert figure >= .99 * target or figure == largest


@pytest.mark.parametrize('seed', range(10))
def test_middle_sized_spaces_that_hold_a_network_on_the_target(seed):
    layout, resource = random_resource(seed, widths=6 + seed % 5, stages=2)
    ranks = random_ranks(layout, seed)
    generator = torch.Generator().manual_seed(seed)
    hidden = layout.least + (torch.rand(layout.U, generator=generator) *
                             (layout.most - layout.least + 1)).long()
    target = hard_figure(layout, resource, hidden, ranks)
    kept = project(
        layout, resource, ratios_of(layout, seed), 'macs', target, ranks=ranks)
    figure = hard_figure(layout, resource, kept, ranks)
    assert .99 * target <= figure <= target


@pytest.mark.parametrize('share', [.8, .5, .1, .01])
def test_fine_spaces_shift_all_widths_alike(share):
    units = [Unit(f'w{i}', 'width', 100 * (i + 1)) for i in range(6)]
    units.append(Unit('stage', 'depth', 3))
    layout = Layout(units)
    axes = [Axis((Term(1, (1 + i, )), )) for i in range(6)]
    first = layout.slice_of(6).start
    costs = [
        Cost(f'c{i}', 'Conv2d', 'macs', 9, (i, (i + 1) % 6),
             (first + i, ) if i < 3 else ()) for i in range(6)
    ]
    resource = ResourceModel(axes, costs, layout)
    ranks = random_ranks(layout, 0)
    ratios = torch.tensor([.3, .4, .5, .35, .45, .4, .3]).double()
    target = share * resource.supernet('macs')
    kept = project(layout, resource, ratios, 'macs', target, ranks=ranks)
    figure = hard_figure(layout, resource, kept, ranks)
    assert .999 * target <= figure <= target
    assert kept[6] == 2  # 2.1 blocks asked for, no reason to touch them
    shift = kept[:6] / layout.size[:6] - (1 - ratios[:6])
    inside = (kept[:6] > 1) & (kept[:6] < layout.size[:6])
    if inside.any():
        assert shift[inside].max() - shift[inside].min() < .03
    again = project(
        layout,
        resource,
        1 - kept / layout.size.double(),
        'macs',
        target,
        ranks=ranks)
    assert again.equal(kept)


@pytest.mark.parametrize('seed', range(6))
def test_a_projected_network_projects_onto_itself(seed):
    layout, resource = random_resource(seed, widths=4, stages=1)
    ranks = random_ranks(layout, seed)
    target = .6 * resource.supernet('macs')
    kept = project(
        layout, resource, ratios_of(layout, seed), 'macs', target, ranks=ranks)
    again = project(
        layout,
        resource,
        1 - kept / layout.size.double(),
        'macs',
        target,
        ranks=ranks,
        depth_kept=kept)
    assert again.equal(kept)


def blocks_of_different_cost():
    """One width of 10 inside three blocks that cost 1, 10 and 100."""
    layout = Layout([Unit('w', 'width', 10), Unit('stage', 'depth', 3)])
    axes = [Axis((Term(1, (1, )), ))]
    costs = [
        Cost(f'b{i}', 'Conv2d', 'macs', 10**i, (0, ), (10 + i, ))
        for i in range(3)
    ]
    return layout, ResourceModel(axes, costs, layout)


def test_ranks_decide_which_blocks_are_paid_for():
    layout, resource = blocks_of_different_cost()
    ratios = torch.tensor([0., 2 / 3]).double()
    # Either the block of 100 stays alone, or it comes back last of all.
    for ranks, expected in (([0, 1, 2], [4, 1]), ([1, 2, 0], [3, 3])):
        full = torch.tensor([*range(10), *ranks])
        kept = project(layout, resource, ratios, 'macs', 400., ranks=full)
        assert kept.tolist() == expected


def test_blocks_come_back_where_full_width_is_not_enough():
    layout, resource = blocks_of_different_cost()
    ranks = torch.tensor([*range(10), 2, 1, 0])  # the cheapest stays longest
    ratios = torch.tensor([.5, 1.]).double()
    kept = project(layout, resource, ratios, 'macs', 110., ranks=ranks)
    assert kept.tolist() == [10, 2]
    kept = project(layout, resource, ratios, 'macs', 10., ranks=ranks)
    assert kept.tolist() == [10, 1]


def test_blocks_go_where_the_least_width_is_too_much():
    layout, resource = blocks_of_different_cost()
    ranks = torch.tensor([*range(10), 2, 1, 0])
    ratios = torch.tensor([.5, 0.]).double()
    kept = project(layout, resource, ratios, 'macs', 110., ranks=ranks)
    assert kept.tolist() == [10, 2]
    kept = project(
        layout,
        resource,
        ratios,
        'macs',
        9.,
        ranks=ranks,
        depth_kept=torch.tensor([5, 3]))
    assert kept.tolist() == [9, 1]


def test_the_block_nearest_to_going_goes_first():
    """A quarter of a stage of two, an eighth of a stage of four."""
    layout = Layout([
        Unit('w', 'width', 2),
        Unit('short', 'depth', 2),
        Unit('long', 'depth', 4),
    ])
    axes = [Axis((Term(1, (1, )), ))]
    costs = [
        Cost(f'b{e}', 'Conv2d', 'macs', 1, (0, ), (e, )) for e in range(2, 8)
    ]
    resource = ResourceModel(axes, costs, layout)
    ranks = torch.tensor([0, 1, 0, 1, 0, 1, 2, 3])
    for asked, target, expected in (([0., 0.,
                                      0.], 5., [1, 2,
                                                3]), ([0., 1.,
                                                       1.], 2., [2, 0, 1])):
        ratios = torch.tensor(asked).double()
        kept = project(layout, resource, ratios, 'macs', target, ranks=ranks)
        assert kept.tolist() == expected


def test_given_depth_is_kept_where_it_can_be():
    layout, resource = blocks_of_different_cost()
    ranks = torch.tensor([*range(10), 2, 1, 0])
    ratios = torch.tensor([.5, 0.]).double()
    kept = project(
        layout,
        resource,
        ratios,
        'macs',
        66.,
        ranks=ranks,
        depth_kept=torch.tensor([0, 2]))
    assert kept.tolist() == [6, 2]


def test_bounds_hold_and_the_largest_network_is_enough():
    layout = Layout([
        Unit('a', 'width', 10, least=4, most=8),
        Unit('one', 'width', 1),
        Unit('stage', 'depth', 2, least=1, most=1),
    ])
    axes = [Axis((Term(1, (1, )), )), Axis((Term(1, (2, )), ))]
    costs = [
        Cost('a', 'Linear', 'macs', 1, (0, 1)),
        Cost('b', 'Linear', 'macs', 1, (0, ), (11, )),
        Cost('c', 'Linear', 'macs', 1, (0, ), (12, ))
    ]
    resource = ResourceModel(axes, costs, layout)
    ranks = random_ranks(layout, 0)

    def kept(target):
        return project(
            layout,
            resource,
            torch.zeros(3).double(),
            'macs',
            target,
            ranks=ranks).tolist()

    assert kept(30.) == [8, 1, 1]
    assert kept(13.) == [6, 1, 1]
    assert kept(8.) == [4, 1, 1]
    with pytest.raises(TargetError, match='7 cannot be reached.*from 8 to 30'):
        kept(7.)


def test_unreachable_with_the_important_blocks():
    layout = Layout([Unit('stage', 'depth', 2, least=1)])
    axes = [Axis((Term(1), ))]
    costs = [
        Cost('cheap', 'Conv2d', 'macs', 1, (0, ), (0, )),
        Cost('dear', 'Conv2d', 'macs', 9, (0, ), (1, ))
    ]
    resource = ResourceModel(axes, costs, layout)
    zero = torch.zeros(1).double()
    cheap_stays, dear_stays = torch.tensor([1, 0]), torch.tensor([0, 1])
    assert project(
        layout, resource, zero, 'macs', 5., ranks=cheap_stays).tolist() == [1]
    with pytest.raises(TargetError, match='the least is 9.*lower "least"'):
        project(layout, resource, zero, 'macs', 5., ranks=dear_stays)


def test_supernet_as_target_changes_nothing():
    layout, resource = random_resource(0, widths=4, stages=2)
    kept = project(
        layout,
        resource,
        ratios_of(layout, 0),
        'macs',
        resource.supernet('macs'),
        ranks=random_ranks(layout, 0))
    assert kept.equal(layout.size)
