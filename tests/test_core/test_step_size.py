# Copyright (c) dms_razor contributors. All rights reserved.
"""Steps that follow from the length of a search, not from its scale."""
import pytest
import torch

from dms_razor.core.bank import Bank
from dms_razor.core.layout import Layout, Unit
from dms_razor.core.step_size import TRAVEL, AutoStep

LAYOUT = Layout([Unit('a', 'width', 64), Unit('b', 'width', 64)])


def made(length):
    auto = AutoStep(torch.zeros(3, dtype=torch.float64))
    auto.length = length
    return auto


@pytest.mark.parametrize('length', [10, 1000])
@pytest.mark.parametrize('scale', [1e-6, 1., 1e6])
def test_a_steady_gradient_travels_the_same_way(length, scale):
    auto = made(length)
    grad = scale * torch.tensor([1., -2., .5], dtype=torch.float64)
    moved = torch.zeros_like(grad)
    for _ in range(length):
        auto.see(grad)
        moved += auto.sizes() * grad
    torch.testing.assert_close(moved, TRAVEL * grad.sign())


def test_noise_travels_less_the_longer_it_is():

    def spread(length):
        auto = AutoStep(torch.zeros(2000, dtype=torch.float64))
        auto.length = length
        noise = torch.Generator().manual_seed(0)
        moved = 0.
        for _ in range(length):
            grad = torch.randn(2000, generator=noise, dtype=torch.float64)
            auto.see(grad)
            moved = moved + auto.sizes() * grad
        return moved.std().item()

    assert spread(400) == pytest.approx(TRAVEL / 20, rel=.1)
    assert spread(100) == pytest.approx(TRAVEL / 10, rel=.1)


def test_what_the_task_does_not_see_rests_and_has_a_bound():
    auto = made(100)
    auto.see(torch.zeros(3, dtype=torch.float64))
    assert not auto.sizes().any()
    auto.see(torch.tensor([1., 1., 0.], dtype=torch.float64))
    sizes = auto.sizes()
    assert torch.isfinite(sizes).all()
    assert 50 * sizes[0] < sizes[2] < 200 * sizes[0]


def test_the_length_is_needed():
    with pytest.raises(RuntimeError, match='total_steps.*set_length'):
        made(None).sizes()


def test_the_scale_of_the_loss_is_no_matter():
    """mmyolo multiplies its losses by the batch size."""

    def found(scale):
        bank = Bank(LAYOUT, lr='auto', dtype=torch.float64)
        bank.motion.auto.length = 20
        noise = torch.Generator().manual_seed(3)
        for _ in range(20):
            bank.masks.grad = scale * torch.randn(
                LAYOUT.E, generator=noise, dtype=torch.float64)
            bank.scale.grad = torch.ones((), dtype=torch.float64)
            bank.update(
                excess=lambda counts, masks: torch.log(counts.sum() / 100))
        assert bank.counts().sum().item() == pytest.approx(100, rel=1e-5)
        return bank.ratios

    torch.testing.assert_close(found(128.), found(1.), atol=1e-9, rtol=0)


def test_it_is_resumed():

    def steps(bank, number, noise):
        for _ in range(number):
            bank.masks.grad = torch.randn(LAYOUT.E, generator=noise)
            bank.scale.grad = torch.ones(())
            bank.update()

    noise = torch.Generator().manual_seed(3)
    whole, resumed = (Bank(LAYOUT, lr='auto') for _ in range(2))
    whole.motion.auto.length = resumed.motion.auto.length = 20
    steps(whole, 7, noise)
    state, at = whole.state_dict(), noise.get_state()
    steps(whole, 7, noise)
    resumed.load_state_dict(state)
    noise.set_state(at)
    steps(resumed, 7, noise)
    assert resumed.ratios.equal(whole.ratios)
