# Copyright (c) dms_razor contributors. All rights reserved.
"""What all selectors have in common, the paper's and those compared."""
import pytest
import torch

from dms_razor.core import Bank, Layout, Unit, hard_masks

NAMES = ('dms', 'get', 'mes', 'sns', 'unnormalised')
DRAWN = ('mes', 'sns')
LAYOUT = Layout([
    Unit('a', 'width', 6),
    Unit('b', 'width', 4, groups=2),
    Unit('c', 'heads', 3, least=2),
    Unit('d', 'width', 8, choices=(2, 4, 8)),
    Unit('e', 'width', 1),
    Unit('f', 'depth', 3),
    Unit('g', 'depth', 1),
])


def bank_of(name, layout=LAYOUT, seed=0, **settings):
    """With importances, as after a first update."""
    bank = Bank(layout, selector=name, **settings)
    generator = torch.Generator().manual_seed(seed)
    bank.importance = torch.rand(
        layout.E, generator=generator, dtype=torch.float64) / 10
    bank.updates = 1
    bank.refresh()
    return bank


def scattered(bank, seed=1):
    """Numbers in the middle of what they can be."""
    generator = torch.Generator().manual_seed(seed)
    numbers = bank.selector.numbers
    noise = torch.rand(len(numbers), generator=generator, dtype=torch.float64)
    if bank.selector.state_name == 'ratios':
        return .2 + .5 * noise
    return numbers * .3 + noise / 4


def differences(function, numbers, step=1e-6):
    """Central differences of a vector, ``[outputs, n]``."""
    columns = []
    for i in range(len(numbers)):
        at = torch.zeros_like(numbers)
        at[i] = step
        columns.append(
            (function(numbers + at) - function(numbers - at)) / (2 * step))
    return torch.stack(columns, 1)


@pytest.mark.parametrize('name', NAMES)
def test_gradients_are_finite_differences(name):
    bank = bank_of(name)
    selector, numbers = bank.selector, scattered(bank)
    functions = [
        selector.counts, lambda n: selector.expected(
            n, bank.ranks, selector.soft(n, bank.ranks))
    ]
    if name != 'get':  # whose gradient of hard masks is another on purpose
        functions.append(lambda n: selector.soft(n, bank.ranks))
    for function in functions:
        exact = torch.autograd.functional.jacobian(function, numbers)
        torch.testing.assert_close(
            exact, differences(function, numbers), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_nothing_goes_at_the_start(name):
    layout = Layout([Unit('a', 'width', 2000), Unit('b', 'depth', 3)])
    bank = Bank(layout, selector=name)
    assert bank.kept().equal(layout.size) and bank.hard().all()
    lost = layout.size - bank.counts()
    assert (lost <= .25 + 1e-9).all() and (lost
                                           <= .01 * layout.size + 1e-9).all()
    expected = bank.resource_masks()
    assert (expected > .989).all() and (expected <= 1).all()
    assert bank.masks.mean() > (.99 if name in DRAWN else .998)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kept', [
    (6, 4, 3, 8, 1, 3, 1),
    (1, 1, 2, 2, 1, 0, 0),
    (3, 2, 2, 4, 1, 1, 1),
    (5, 3, 3, 4, 1, 2, 0),
])
def test_counts_that_are_set_are_kept(name, kept):
    bank = bank_of(name)
    kept = torch.tensor(kept)
    bank.set_kept(torch.tensor((4, 2, 2, 4, 1, 2, 1)))
    for _ in range(2):  # from anywhere, to the same
        bank.set_kept(kept)
        assert bank.kept().equal(kept)
        assert (bank.counts() - kept).abs().max() < .09
        torch.testing.assert_close(bank.ratios,
                                   1 - bank.counts() / LAYOUT.size)
        assert bank.hard().equal(hard_masks(kept, bank.ranks, LAYOUT))
    # A step that moves nothing leaves them.
    bank.selector.step(torch.zeros_like(bank.selector.numbers), 0.)
    assert bank.kept().equal(kept)


@pytest.mark.parametrize('name', NAMES)
def test_only_the_units_that_are_meant_are_set(name):
    bank = bank_of(name)
    before = bank.kept()
    bank.freeze_depth(torch.tensor((1, 1, 2, 2, 1, 1, 0)))
    assert bank.kept()[:5].equal(before[:5])
    assert bank.kept()[5:].tolist() == [1, 0]
    depth = LAYOUT.depth_elements
    for masks in (bank.masks.detach(), bank.resource_masks()):
        assert sorted(masks[depth].tolist()) == [0, 0, 0, 1]


@pytest.mark.parametrize('name', NAMES)
def test_down_the_gradient_of_a_cost_every_count_is_reached(name):
    layout = Layout([Unit('a', 'width', 6), Unit('f', 'depth', 3)])
    bank = bank_of(name, layout)
    bank.set_kept(layout.size)
    selector, before = bank.selector, float('inf')

    def cost(numbers):
        expected = selector.expected(numbers, bank.ranks,
                                     selector.soft(numbers, bank.ranks))
        return (1 + selector.counts(numbers)[0]) * (1 + expected[6:].sum())

    for target in (24., 16., 10., 5., 3.):
        for _ in range(20_000):
            leaf = selector.numbers.clone().requires_grad_()
            value = cost(leaf)
            assert value.item() <= before + 1e-9
            before = value.item()
            if before <= target:
                break
            slope, = torch.autograd.grad(value, leaf)
            length = .01 * slope / slope.abs().max()
            selector.numbers = (selector.numbers - length).clamp(
                selector.low, selector.high)
        assert target - .5 < before <= target


@pytest.mark.parametrize('name', DRAWN)
def test_the_network_and_the_slope_see_the_same_draw(name):
    """Against central differences of a loss of the masks."""
    bank = bank_of(name, lr=1.)
    bank.selector.numbers = numbers = scattered(bank)
    bank.refresh()
    order = bank.ranks
    weights = torch.linspace(-1, 1, LAYOUT.E, dtype=torch.float64)
    slopes = differences(
        lambda n: (bank.selector.soft(n, order) * weights).sum()[None],
        numbers)[0]
    loss = (bank.masks.double() * weights).sum()
    (loss + bank.loss_anchor()).backward()
    drawn = bank.selector.draws.uniform
    assert bank.update()
    wanted = (numbers - slopes).clamp(bank.selector.low, bank.selector.high)
    torch.testing.assert_close(
        bank.selector.numbers, wanted, atol=1e-6, rtol=1e-5)
    assert not bank.selector.draws.uniform.equal(drawn)
    # The same draw for as long as there is no update.
    masks = bank.masks.detach()
    bank.refresh()
    assert bank.masks.equal(masks)


@pytest.mark.parametrize('name', DRAWN)
def test_a_state_that_is_none_changes_nothing(name):
    bank = bank_of(name)
    state = bank.state_dict()
    drawn, numbers = bank.selector.draws.uniform, bank.selector.numbers
    state['numbers'] = torch.zeros_like(numbers)
    state['draws'] = torch.zeros_like(state['draws'])
    with pytest.raises(ValueError, match='"draws".*no state.*; load a'):
        bank.load_state_dict(state)
    state = dict(bank_of(name, seed=3).state_dict())
    state['numbers'] = torch.full_like(numbers, float('nan'))
    with pytest.raises(ValueError, match='"numbers".*lie outside'):
        bank.load_state_dict(state)
    assert bank.selector.numbers.equal(numbers)
    assert bank.selector.draws.uniform.equal(drawn)


@pytest.mark.parametrize('name', NAMES)
def test_numbers_of_resnet_50(name):
    """37 widths with 11,456 channels, 4 stages with 12 blocks (Table 2)."""
    widths = [64]
    for width, blocks in zip((64, 128, 256, 512), (3, 4, 6, 3)):
        widths += [width] * 2 * blocks + [4 * width]
    units = [Unit(f'w{i}', 'width', n) for i, n in enumerate(widths)]
    units += [
        Unit(f'd{i}', 'depth', n - 1) for i, n in enumerate((3, 4, 6, 3))
    ]
    layout = Layout(units)
    assert (layout.U, layout.E) == (41, 11_468)
    numbers = Bank(layout, selector=name).selector.numbers.numel()
    assert numbers == (11_468 if name in DRAWN else 41)
