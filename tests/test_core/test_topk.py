# Copyright (c) dms_razor contributors. All rights reserved.
import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_razor.core import (Layout, Unit, hard_masks, initial_order,
                            kept_counts, rank_order, ranks_from_order,
                            ratio_bounds, soft_masks, topk)
from .helpers import layouts, spaces

fast = settings(deadline=None, max_examples=60)


def naive_order(importance, layout, previous):
    """Python's stable sort, row by row."""
    order = []
    for row in range(layout.R):
        inside = [e for e in previous if layout.row_of_element[e] == row]
        order += sorted(inside, key=lambda e: importance[e])
    return order


def naive_masks(ratios, ranks, layout):
    """Masks element by element, straight from METHOD and the paper."""
    masks = []
    for e, rank in enumerate(ranks):
        unit = layout.units[layout.unit_of_element[e]]
        a, size = float(ratios[layout.unit_of_element[e]]), unit.size
        if unit.kind != 'depth' and size == 1:
            masks.append(1.)
            continue
        four = 4 if unit.kind in ('depth', 'heads') else 1
        score = four * size * ((rank + .5) / size - a)
        mask = 1 - min(1, a * size) * (1 - 1 / (1 + math.exp(-score)))
        if unit.kind == 'depth':
            mask *= min(1, (1 - a) * size)
        masks.append(mask)
    return masks


@fast
@given(spaces())
def test_masks_and_ranks_against_loops(space):
    layout, importance, ratios = space
    previous = initial_order(layout, 3)
    order = rank_order(importance, layout, previous)
    expected = naive_order(importance.tolist(), layout, previous.tolist())
    assert order.tolist() == expected
    ranks = ranks_from_order(order, layout)
    for row in range(layout.R):
        inside = [e for e in expected if layout.row_of_element[e] == row]
        assert ranks[inside].tolist() == list(range(len(inside)))
    masks = soft_masks(ratios, ranks, layout)
    torch.testing.assert_close(
        masks,
        torch.tensor(naive_masks(ratios, ranks.tolist(), layout)).double(),
        rtol=1e-6,
        atol=1e-12)


@pytest.mark.parametrize('sizes', [range(1, 60), (3, 1, 3, 2, 3)])
def test_orders_of_rows_of_many_sizes_and_of_few(sizes):
    """Beyond 32 sizes everything is sorted at once."""
    layout = Layout([
        Unit(f'u{n}', 'width', size, groups=1 + n % 2)
        for n, size in enumerate(sizes)
    ])
    assert len(layout.rows_by_size) == (3 if len(sizes) == 5 else 0)
    previous = initial_order(layout, 3)
    importance = torch.randint(4, (layout.E, )).double()
    assert rank_order(importance, layout, previous).tolist() == naive_order(
        importance.tolist(), layout, previous.tolist())
    assert rank_order(importance,
                      layout).tolist() == naive_order(importance.tolist(),
                                                      layout, range(layout.E))
    places = torch.cat([x.flatten() for x in layout.rows_by_size]
                       or [torch.arange(layout.E)])
    assert places.sort().values.equal(torch.arange(layout.E))


@fast
@given(spaces())
def test_identity_at_zero_whatever_the_importances(space):
    layout, importance, _ = space
    ranks = ranks_from_order(rank_order(importance, layout), layout)
    zero = torch.zeros(layout.U, dtype=torch.float64, requires_grad=True)
    masks = soft_masks(zero, ranks, layout)
    assert bool((masks == 1).all())
    grad, = torch.autograd.grad(masks.sum(), zero)
    prunable = torch.tensor([u.prunable for u in layout.units])
    assert bool((grad[prunable] < 0).all())
    assert bool((grad[~prunable] == 0).all())


@fast
@given(layouts(kinds=('depth', )))
def test_an_empty_stage_is_exactly_zero(layout):
    ranks = ranks_from_order(initial_order(layout), layout)
    one = torch.ones(layout.U, dtype=torch.float64, requires_grad=True)
    masks = soft_masks(one, ranks, layout)
    assert bool((masks == 0).all())
    grad, = torch.autograd.grad(masks.sum(), one)
    assert bool((grad < 0).all())  # the last block can come back


@fast
@given(
    st.sampled_from(['width', 'depth']), st.integers(2, 200), st.floats(0, 1))
def test_soft_masks_add_up_to_what_is_kept(kind, size, ratio):
    layout = Layout([Unit('u', kind, size)])
    ratio = min(ratio, float(ratio_bounds(layout)[1]))
    ranks = ranks_from_order(initial_order(layout), layout)
    total = soft_masks(torch.tensor([ratio]).double(), ranks,
                       layout).sum().item()
    kept = (1 - ratio) * size
    # At the ends the sigmoid loses a tail: softplus(1) instead of 1.
    assert abs(total - kept) <= 0.32
    if min(kept, size - kept) >= 6:
        # Between, a sigmoid four times as steep ripples a little.
        assert abs(total - kept) <= (0.01 if kind == 'width' else 0.03)


@fast
@given(spaces())
def test_one_k_for_counts_masks_and_groups(space):
    layout, importance, ratios = space
    ranks = ranks_from_order(rank_order(importance, layout), layout)
    kept = kept_counts(ratios, layout)
    keep = hard_masks(kept, ranks, layout)
    for row in range(layout.R):
        inside = layout.row_of_element == row
        unit = layout.unit_of_element[inside][0]
        assert int(keep[inside].sum()) == int(kept[unit])
        if bool(keep[inside].any()) and not bool(keep[inside].all()):
            lowest = importance[inside & keep].min()
            assert lowest >= importance[inside & ~keep].max()
    for unit, k, a in zip(layout.units, kept.tolist(), ratios.tolist()):
        assert unit.least <= k <= unit.most
        assert abs(k - (1 - a) * unit.size) <= 0.5 + 1e-9


def test_values_by_hand():
    ranks = torch.arange(4)
    layout = Layout([Unit('u', 'width', 4)])

    def masks(a):
        return soft_masks(torch.tensor([a]).double(), ranks, layout)

    def close(actual, expected):
        torch.testing.assert_close(
            actual, torch.tensor(expected).double(), rtol=0, atol=1e-4)

    # a = 1/2: sigmoid of -1.5, -0.5, 0.5, 1.5
    close(masks(.5), [.1824, .3775, .6225, .8176])
    # aN = 1/2: half the paper's mask, sigmoid of 0, 1, 2, 3, half of 1
    close(masks(.125), [.75, .8655, .9404, .9763])
    # depth, N = 2, a = 3/4: half a block left, half of sigmoid(-4, 0)
    depth = Layout([Unit('u', 'depth', 2)])
    close(
        soft_masks(torch.tensor([.75]).double(), ranks[:2], depth),
        [.0090, .25])


def test_paper_gradient_where_more_than_one_element_goes():
    layout = Layout([Unit('w', 'width', 8), Unit('h', 'heads', 6)])
    ratios = torch.tensor([.4, .5]).double().requires_grad_()
    ranks = ranks_from_order(initial_order(layout), layout)
    masks = soft_masks(ratios, ranks, layout)
    for e in range(layout.E):
        u = int(layout.unit_of_element[e])
        grad, = torch.autograd.grad(masks[e], ratios, retain_graph=True)
        m = masks[e].item()
        expected = -layout.units[u].temperature * m * (1 - m)
        assert grad[u].item() == pytest.approx(expected, rel=1e-9)
        assert grad[1 - u].item() == 0


@fast
@given(spaces())
def test_gradient_against_finite_differences(space):
    layout, importance, ratios = space
    ratios = ratios.clamp(.02, .98)
    # Away from the kinks aN = 1 and (1 - a)N = 1.
    near = ((ratios * layout.size - 1).abs()
            < 1e-3) | (((1 - ratios) * layout.size - 1).abs() < 1e-3)
    ratios = torch.where(near, ratios - 2e-3, ratios)
    ranks = ranks_from_order(rank_order(importance, layout), layout)
    assert torch.autograd.gradcheck(
        lambda a: soft_masks(a, ranks, layout),
        ratios.requires_grad_(),
        atol=1e-6)


def test_ties_keep_their_previous_order():
    layout = Layout([Unit('a', 'width', 4), Unit('b', 'width', 3)])
    previous = torch.tensor([2, 0, 3, 1, 5, 4, 6])
    tied = torch.zeros(7).double()
    assert rank_order(tied, layout, previous).equal(previous)
    one_up = tied.clone()
    one_up[2] = 1
    assert rank_order(one_up, layout,
                      previous).tolist() == [0, 3, 1, 2, 5, 4, 6]


def test_denormal_importances_keep_their_order():
    layout = Layout([Unit('a', 'width', 5)])
    importance = torch.tensor([3e-323, 1e-323, 2e-323, 5e-323, 4e-323],
                              dtype=torch.float64)
    order = rank_order(importance, layout)
    assert order.tolist() == [1, 2, 0, 4, 3]
    for _ in range(20):
        importance = importance * .5
        order = rank_order(importance, layout, order)
    assert bool((importance == 0).all())
    assert order.tolist() == [1, 2, 0, 4, 3]


def test_importances_of_one_unit_do_not_reach_another():
    """A key that adds the unit's number to the importance would round."""
    units = [Unit(f'u{i}', 'width', 64) for i in range(200)]
    layout = Layout(units)
    generator = torch.Generator().manual_seed(0)
    importance = 1e-9 * torch.rand(
        layout.E, generator=generator, dtype=torch.float64)
    ranks = ranks_from_order(rank_order(importance, layout), layout)
    table = importance.reshape(200, 64)
    expected = (table[:, :, None] > table[:, None, :]).sum(2)
    assert ranks.reshape(200, 64).equal(expected)


def test_first_order_depends_on_the_seed_alone():
    layout = Layout([Unit('a', 'width', 64), Unit('b', 'depth', 4)])
    torch.manual_seed(5)
    first = initial_order(layout, 0)
    torch.manual_seed(6)
    assert first.equal(initial_order(layout, 0))
    assert not first.equal(initial_order(layout, 1))
    assert layout.row_of_element[first].equal(layout.row_of_element)


def test_halves_round_up_and_bounds_hold():
    layout = Layout([
        Unit('half', 'width', 5),
        Unit('least', 'width', 8, least=3),
        Unit('most', 'width', 8, most=6),
        Unit('depth', 'depth', 3),
        Unit('one', 'width', 1),
    ])
    kept = kept_counts(torch.tensor([.5, 1., 0., 1., 1.]), layout)
    assert kept.tolist() == [3, 3, 6, 0, 1]
    low, high = ratio_bounds(layout)
    assert low.tolist() == [0, 0, .25, 0, 0]
    assert high.tolist() == [.8, .625, .875, 1, 0]


@pytest.mark.parametrize('size', [1, 3, 7, 48, 49, 1000, 2048])
def test_every_count_survives_its_own_ratio(size):
    layout = Layout([Unit(f'u{k}', 'width', size) for k in range(1, size + 1)])
    kept = torch.arange(1, size + 1)
    assert kept_counts(1 - kept / layout.size.double(), layout).equal(kept)


def test_temperature_can_be_chosen():
    layout = Layout([Unit('u', 'width', 4)])
    masks = soft_masks(
        torch.tensor([.5]).double(), torch.arange(4), layout,
        torch.tensor([8.]).double())
    assert masks[3].item() == pytest.approx(1 / (1 + math.exp(-3)))


def test_single_operator():
    importance = torch.tensor([3., 1., 2., 4.], requires_grad=True)
    ratio = torch.tensor(.5, requires_grad=True)
    masks = topk(importance, ratio)
    assert masks.dtype == ratio.dtype
    torch.testing.assert_close(
        masks, torch.tensor([.6225, .1824, .3775, .8176]), atol=1e-4, rtol=0)
    masks.sum().backward()
    expected = -4 * (masks * (1 - masks)).sum().item()
    assert ratio.grad.item() == pytest.approx(expected, rel=1e-5)
    assert importance.grad is None
    steep = topk(importance, ratio, temperature=4000.)
    assert steep.round().tolist() == [1, 0, 0, 1]
    assert torch.allclose(steep, steep.round())
    assert topk(importance, torch.tensor(1.), kind='depth').tolist() == [0] * 4
    with pytest.raises(ValueError, match='one set of elements'):
        topk(importance.reshape(2, 2), ratio)


def test_counts_from_the_cpu_serve_ranks_elsewhere():
    layout = Layout([Unit('a', 'width', 4)])
    keep = hard_masks(torch.tensor([2]), torch.arange(4).to('meta'), layout)
    assert keep.device.type == 'meta' and keep.shape == (4, )


def test_the_docstring_example():
    example = doctest.DocTestFinder().find(topk, globs=dict(globals()))
    results = [doctest.DocTestRunner().run(test) for test in example]
    assert sum(r.attempted for r in results) >= 5
    assert not any(r.failed for r in results)
